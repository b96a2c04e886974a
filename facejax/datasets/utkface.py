"""UTKFace (Zhang, Song and Qi, 2017): photos of faces aged 0 to 116, with age, gender and ethnicity in the name.

Published layout (from the dataset's page)::

    UTKFace/<age>_<gender>_<race>_<date>.jpg.chip.jpg             23,708 photos, aligned and cropped ("aligned")
    part1/, part2/, part3/<age>_<gender>_<race>_<date>.jpg        in the wild ("wild")

Gender is 0 male, 1 female; race 0 white, 1 black, 2 Asian, 3 Indian, 4 others (Hispanic, Latino, Middle Eastern).
A few names are malformed: see `CORRECTED`. Others lack a dot (``55_0_0_20170116232725357jpg.chip.jpg``), have a space
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
# Age, gender and race for names that lack a field, keyed by what comes before the first dot. A value that one release
# lacks is taken from the other where it has it (61_1_... and 61_3_... are one photo). Otherwise race is what public
# readers whose authors looked at the photos agree on; a gender on which they disagree is left out.
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

    The paper's split into 20,149 and 3,559 photos is not published; this one has the same sizes and is drawn by a hash
    of the photos' names.
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
    expected_total = TRAIN + VALIDATION  # the release in the wild has the same photos, and some more
    # For the aligned photos, which are read by default; those in the wild need ``--crop mtcnn --margin 0.4``.
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
            release: ``aligned`` or ``wild``; None takes aligned if both exist.
            ages: Youngest and oldest age to keep, inclusive; Table 6 has a subset aged 21 to 60. The split is drawn
                before this filter, so that a subset's photos keep theirs.
            listing: Keeps only the photos named in the second column of this CSV, all as ``test``: ``utk_test.csv`` of
                Raschka-research-group/coral-cnn lists the 3,287 photos of Table 6. Names are compared up to their first
                dot, since that list has the aligned photos, whose suffix those in the wild lack.
            seed: Seed of the split.

        Raises:
            ValueError: The first of the `ages` is above the last, or `listing` names no photo.
        """
        if ages is not None and ages[0] > ages[1]:
            raise ValueError(f"ages must be the youngest and the oldest to keep, got {ages[0]},{ages[1]}")
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
    """Age, gender and ethnicity from a file name; None (counted as skipped) if it has none."""
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
    """Name of a photo in both releases: up to the first dot, without the irregularities that the module lists."""
    return name.split(".", 1)[0].strip().removesuffix("jpg")


def _training(stems: Iterable[str], seed: int) -> set[str]:
    """Stems of the training photos: 20,149 of 23,708, or the same fraction of any other number.

    They are drawn by a hash of their names, so that a photo missing from one copy of the dataset changes the split of
    at most one other.
    """
    drawn = sorted(stems, key=lambda stem: hashlib.sha256(f"{seed}/{stem}".encode()).digest())
    return set(drawn[: round(len(drawn) * TRAIN / (TRAIN + VALIDATION))])


def _listed(listing: pathlib.Path, skip: Skips) -> set[str]:
    """Stems (see `_stem`) of the photos in the second column of a CSV with a header."""
    named = {_stem(cells[1]) for _, cells in rows(listing, skip) if len(cells) > 1}
    if not named:
        raise ValueError(f"{listing}: no file names in the second column")
    return named
