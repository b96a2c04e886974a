"""`People.edition` is the edition whose photos, clips and labels are stored next to this file.

Whoever changes what is drawn increments the edition, so that photos prepared from the previous one are rendered again,
and rewrites the file: ``python -m tests.datasets.people.test_people_edition``.
"""

import pathlib

import cv2
import numpy as np

from facejax.datasets import get_dataset
from facejax.datasets.people.identity import shape_weights
from facejax.datasets.people.reader import People

KEPT = pathlib.Path(__file__).with_name("edition.npz")
CELLS = 16  # of a picture, each way: a cell's mean hardly depends on the machine


def cells(photo: np.ndarray) -> np.ndarray:
    return cv2.resize(photo, (CELLS, CELLS), interpolation=cv2.INTER_AREA)


def described() -> dict[str, np.ndarray]:
    """Pictures reduced to few cells, and the numbers that they are made of."""
    people = get_dataset("people")
    photos = list(people.records(num_train=12, num_validation=6, num_test=6, photos_per_person=1, size=96))
    photos += people.records(num_train=4, num_validation=0, photos_per_person=1, size=96, setting="studio", seed=1)
    clips = [*people.clips(num_train=2, num_validation=0, size=96, num_frames=3)]
    clips += people.clips(kind="group", num_train=1, num_validation=0, size=96, num_frames=3)
    pictures = [photo.image() for photo in photos] + [clip.image()[-1] for clip in clips]
    faces = [photo.image for photo in photos]
    return {
        "edition": np.array(people.edition),
        "pictures": np.stack([cells(picture) for picture in pictures]),
        "points": np.float32([np.vstack([photo.landmarks, np.reshape(photo.bbox, (2, 2))]) for photo in photos]),
        "labels": np.array(
            [
                [photo.labels[key] for key in ("identity", "age", "gender", "ethnicity", "emotion", "intensity")]
                + [*photo.labels["valence_arousal"], *photo.labels["action_units"], *photo.labels["head_pose"]]
                for photo in photos
            ],
            np.float32,
        ),
        "units": np.float32([value for face in faces for _, value in sorted(face.expression.units.items())]),
        "shapes": np.float32([value for face in faces for _, value in sorted(shape_weights(face.identity).items())]),
    }


def test_photos_of_an_edition_stay_what_they_were():
    with np.load(KEPT) as kept:
        found = described()
        assert found.keys() == set(kept.files)
        assert found["edition"] == kept["edition"] == People.edition
        for name in ("labels", "units", "shapes"):
            np.testing.assert_allclose(found[name], kept[name], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found["points"], kept["points"], atol=0.01)
        np.testing.assert_allclose(found["pictures"].astype(int), kept["pictures"], atol=4)


if __name__ == "__main__":
    np.savez_compressed(KEPT, allow_pickle=False, **described())
