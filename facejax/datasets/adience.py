"""Adience (Eidinger, Enbar and Hassner, 2014): about 26 thousand faces of 2284 people with age interval and gender.

Published layout (the set's page; takuya-takeuchi/DlibDotNet lists the files, public readers the columns)::

    fold_0_data.txt ... fold_4_data.txt       tab separated, with a header:
        user_id original_image face_id age gender x y dx dy tilt_ang fiducial_yaw_angle fiducial_score
    aligned/<user_id>/landmark_aligned_face.<face_id>.<original_image>       or
    faces/<user_id>/coarse_tilt_aligned_face.<face_id>.<original_image>

Ages are intervals such as ``(25, 32)``, of which some do not belong to the eight of the benchmark (``(8, 23)``), loose
years such as ``35``, or ``None``; gender is ``f``, ``m``, ``u`` or empty.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets.layout import Skips, find, table
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import GENDER

_COLUMNS = ("user_id", "original_image", "face_id", "age", "gender")
_GENDER = {"f": GENDER.index("female"), "m": GENDER.index("male")}
_UNKNOWN_AGE = ("None", "")
_AGE = re.compile(r"\(([0-9]{1,3}), ?([0-9]{1,3})\)|([0-9]{1,3})", re.ASCII)
_FILE_PREFIX = {"aligned": "landmark_aligned_face", "faces": "coarse_tilt_aligned_face"}
FOLDS = 5


@register_dataset
class Adience(Dataset):
    """Age and gender; the paper trains on all of it (section 3) with an interval read as its middle."""

    name = "adience"
    description = "faces from Flickr albums with age interval and gender; all for training unless a fold is held out"
    licence = "for non-commercial research, on request"
    url = "https://talhassner.github.io/home/projects/Adience/Adience-data.html"
    tasks = ("age", "gender")
    expected_counts: ClassVar = {"train": None, "test": None}
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None, *, test_fold: int | None = None) -> Iterator[Record]:
        """Yields the faces fold by fold in the order of the files; those with neither age nor gender are left out.

        Args:
            raw: Folder with the five fold files and ``aligned`` or ``faces`` (if both are there, ``aligned``).
            test_fold: 0 to 4: this fold is ``test``. The folds share no person. None, as in the paper: all is train.

        Raises:
            ValueError: There is no such fold.
        """
        if test_fold is not None and test_fold not in range(FOLDS):
            raise ValueError(f"test_fold must be 0 to {FOLDS - 1} or None, got {test_fold}")
        skip = Skips(self)
        images = find(self, raw, *_FILE_PREFIX)
        prefix = _FILE_PREFIX[images.name]
        for fold in range(FOLDS):
            listing = find(self, raw, f"fold_{fold}_data.txt", f"folds/fold_{fold}_data.txt")
            for place, row in table(listing, skip, *_COLUMNS, delimiter="\t"):
                name = f"{row['user_id']}/{prefix}.{row['face_id']}.{row['original_image']}"
                image = skip.listed(images, name)
                if image is None:
                    continue
                age = age_of(row["age"])
                if age is None and row["age"] not in _UNKNOWN_AGE:
                    skip("malformed age", place)
                    continue
                labels: dict[str, object] = {"fold": fold}
                if age is not None:
                    labels["age"] = age
                if row["gender"] in _GENDER:
                    labels["gender"] = _GENDER[row["gender"]]
                if len(labels) == 1:
                    skip("neither age nor gender", place)
                    continue
                yield Record(f"{images.name}/{name}", "test" if fold == test_fold else "train", image, labels)


def age_of(text: str) -> int | None:
    """Years of an age cell: a loose number, or the middle of an interval, rounded down ("(60, 100)": 80); else None."""
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    low, high, loose = match.groups()
    if loose is not None:
        return int(loose)
    return (int(low) + int(high)) // 2 if int(low) <= int(high) else None
