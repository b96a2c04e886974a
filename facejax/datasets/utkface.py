"""UTKFace (Zhang, Song and Qi, 2017): photos of faces of 0 to 116 years with age, gender and ethnicity in the name.

Published layout (the set's page)::

    UTKFace/<age>_<gender>_<race>_<date>.jpg.chip.jpg             23,708 photos, aligned and cropped ("aligned")
    part1/, part2/, part3/<age>_<gender>_<race>_<date>.jpg        in the wild ("wild")

Gender is 0 male, 1 female; race 0 white, 1 black, 2 Asian, 3 Indian, 4 others (Hispanic, Latino, Middle Eastern).
A few names are malformed: see `CORRECTED`; others lack a dot (``55_0_0_20170116232725357jpg.chip.jpg``), have a blank
before it (``24_0_1_20170116220224657 .jpg``) or another suffix (``44_1_4_20170116235150272.pg``), which is harmless.
"""

import hashlib
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from facejax.data.records import Record
from facejax.datasets.layout import IMAGE_SUFFIXES, Skips, find, rows
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import ETHNICITY, GENDER

_NAME = re.compile(r"([0-9]{1,3})_([01])_([0-4])_([0-9]{14,20}).*", re.ASCII)
_GENDER = (GENDER.index("male"), GENDER.index("female"))
_RACE = tuple(map(ETHNICITY.index, ("white", "black", "asian", "indian", "latino_middle_eastern")))
# Names that lack a field, by what comes before the first dot: age, gender, race. Where one release has what the other
# lacks (61_1_... and 61_3_... are one photo), it is taken from there; the race of the others is what public readers
# whose authors looked at the photos agree on, and a gender on which they do not agree is left out.
CORRECTED = {
    "39_1_20170116174525125": (39, None, 1),
    "61_1_20170109142408075": (61, 1, 1),
    "61_1_20170109150557335": (61, 1, 3),
    "61_3_20170109150557335": (61, 1, 3),
    "53__0_20170116184028385": (53, None, 0),
}
TRAIN, VALIDATION = 20_149, 3_559
_RELEASES = {"aligned": ("UTKFace",), "wild": ("part1", "part2", "part3")}
OLDEST = 116


@register_dataset
class UtkFace(Dataset):
    """Ethnicity (paper section 3, Table 7: aligned photos) and a test of age and gender (Table 6: photos in the wild).

    The paper's split into 20,149 and 3,559 photos is not published; this one has the same sizes and is drawn by the
    photos' names.
    """

    name = "utkface"
    description = (
        "faces of 0 to 116 years: aligned crops split into 20,149 train and 3,559 validation, or all the photos in the "
        "wild as test"
    )
    licence = "for non-commercial research (photos remain their owners')"
    url = "https://susanqq.github.io/UTKFace/"
    tasks = ("age", "gender", "ethnicity")
    expected_counts: ClassVar = {"train": TRAIN, "validation": VALIDATION, "test": None}
    expected_total = TRAIN + VALIDATION  # those in the wild are the same photos, and some more
    # Of the aligned photos, which are read by default; those in the wild want ``--crop mtcnn --margin 0.4``.
    default_crop = "none"

    def records(
        self,
        raw: pathlib.Path | None,
        *,
        release: Literal["aligned", "wild"] | None = None,
        ages: tuple[int, int] | None = None,
        listing: pathlib.Path | None = None,
        seed: int = 0,
    ) -> Iterator[Record]:
        """Yields the photos by folder and name.

        Args:
            raw: Folder with ``UTKFace`` (aligned) or ``part1`` to ``part3`` (wild).
            release: ``aligned`` or ``wild``; None takes aligned if both are there.
            ages: First and last age to keep, both included; Table 6 has a subset of 21 to 60 years. The split is
                made before, so that a subset's photos keep theirs.
            listing: Keeps only the photos that this csv names in its second column: ``utk_test.csv`` of
                Raschka-research-group/coral-cnn is the list of 3,287 photos of Table 6. They are all ``test``. Names
                count up to their first dot, since that list has the aligned ones, whose suffix those in the wild lack.
            seed: Of the split.

        Raises:
            ValueError: The first of the `ages` is above the last, or `listing` names no photo.
        """
        if ages is not None and ages[0] > ages[1]:
            raise ValueError(f"ages must be the first and the last to keep, got {ages[0]},{ages[1]}")
        skip = Skips(self)
        names = [name for key, group in _RELEASES.items() if release in (None, key) for name in group]
        first = find(self, raw, *names)
        folders = next(group for group in _RELEASES.values() if first.name in group)
        photos = [
            photo
            for folder in folders
            if (first.parent / folder).is_dir()
            for photo in skip.files(first.parent / folder, IMAGE_SUFFIXES | {".pg", ""})
        ]
        listed = None if listing is None else _listed(listing, skip)
        usable = [(photo, labels) for photo in photos if (labels := _labels(photo.name, skip)) is not None]
        train = _training(sorted({_stem(photo.name) for photo, _ in usable}), seed)
        for photo, labels in usable:
            if ages is not None and not ages[0] <= labels["age"] <= ages[1]:
                skip("age not asked for", photo.name)
            elif listed is not None and _stem(photo.name) not in listed:
                skip("not in the listing", photo.name)
            elif listed is not None or folders == _RELEASES["wild"]:
                yield Record(f"{photo.parent.name}/{photo.name}", "test", photo, labels)
            else:
                split = "train" if _stem(photo.name) in train else "validation"
                yield Record(f"{photo.parent.name}/{photo.name}", split, photo, labels)


def _labels(name: str, skip: Skips) -> dict[str, int] | None:
    """Age, gender and ethnicity in a file name; None, and counted, where it has none."""
    if match := _NAME.fullmatch(name):
        age, gender, race = (int(match[i]) for i in (1, 2, 3))
    elif name.split(".", 1)[0] in CORRECTED:
        age, gender, race = CORRECTED[name.split(".", 1)[0]]
    else:
        skip("malformed file name", name)
        return None
    if age > OLDEST:
        skip(f"age above {OLDEST}", name)
        return None
    labels = {"age": age, "ethnicity": _RACE[race]}
    return labels if gender is None else labels | {"gender": _GENDER[gender]}


def _stem(name: str) -> str:
    """What a photo is called in both releases: its name up to the first dot, odd ones too (see the module)."""
    return name.split(".", 1)[0].strip().removesuffix("jpg")


def _training(stems: Iterable[str], seed: int) -> set[str]:
    """Which photos train: 20,149 of 23,708, and the same part of any other number.

    Drawn by their names, so that a photo which is missing in one copy of the set moves one other at the most.
    """
    drawn = sorted(stems, key=lambda stem: hashlib.sha256(f"{seed}/{stem}".encode()).digest())
    return set(drawn[: round(len(drawn) * TRAIN / (TRAIN + VALIDATION))])


def _listed(listing: pathlib.Path, skip: Skips) -> set[str]:
    """Photos in the second column of a csv with a header, as `_stem` gives them."""
    named = {_stem(cells[1]) for _, cells in rows(listing, skip) if len(cells) > 1}
    if not named:
        raise ValueError(f"{listing}: no file names in the second column")
    return named
