"""Adience (Eidinger, Enbar and Hassner, 2014): about 26 thousand faces of 2284 people with age interval and gender.

Published layout (from the dataset's page; files as listed by takuya-takeuchi/DlibDotNet, columns by public readers)::

    fold_0_data.txt ... fold_4_data.txt       tab separated, with a header:
        user_id original_image face_id age gender x y dx dy tilt_ang fiducial_yaw_angle fiducial_score
    aligned/<user_id>/landmark_aligned_face.<face_id>.<original_image>       or
    faces/<user_id>/coarse_tilt_aligned_face.<face_id>.<original_image>

Ages are intervals such as ``(25, 32)`` (some, such as ``(8, 23)``, are not among the benchmark's eight), single years
such as ``35``, or ``None``. Gender is ``f``, ``m``, ``u`` or empty.
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
    """Age and gender; the paper trains on all of it (section 3), with each age interval replaced by its midpoint."""

    name = "adience"
    description = "faces from Flickr albums with age interval and gender; all for training unless a fold is held out"
    licence = "for non-commercial research, on request"
    url = "https://talhassner.github.io/home/projects/Adience/Adience-data.html"
    tasks = ("age", "gender")
    expected_counts: ClassVar = {"train": None, "test": None}
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None, *, test_fold: int | None = None) -> Iterator[Record]:
        """Yields the faces fold by fold in file order; those with neither age nor gender are skipped.

        Args:
            raw: Folder with the five fold files and ``aligned`` or ``faces`` (``aligned`` if both exist).
            test_fold: Fold to hold out as ``test``, 0 to 4; folds share no people. None, as in the paper, makes all
                photos ``train``.

        Raises:
            ValueError: `test_fold` is out of range.
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
    """Age in years from a cell: a number, or an interval's midpoint rounded down ("(60, 100)" is 80); else None."""
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    low, high, loose = match.groups()
    if loose is not None:
        return int(loose)
    return (int(low) + int(high)) // 2 if int(low) <= int(high) else None
