"""muxspace/facial_expressions: 13,682 photos in a public GitHub repository, each with one expression.

Layout: ``images/``, ``data/legend.csv`` with the columns ``user.id`` (the annotator), ``image``, ``emotion``.
Optional: ``attributes.csv`` next to them, with ``image``, ``gender`` (male, female) and ``ethnicity``.
"""

import hashlib
import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets.layout import Skips, consistent_labels, find, table
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION8, ETHNICITY, GENDER

# Labels in legend.csv vary in case; any other labels are counted and skipped.
_EMOTIONS = {name: place for place, name in enumerate(EMOTION8)} | {
    "angry": EMOTION8.index("anger"),
    "happy": EMOTION8.index("happiness"),
    "sad": EMOTION8.index("sadness"),
    "surprised": EMOTION8.index("surprise"),
}
# Several groups, or "other", are not a single class: such photos are kept without an ethnicity.
_ETHNICITIES = {
    "caucasian": ETHNICITY.index("white"),
    "african": ETHNICITY.index("black"),
    "eastasian": ETHNICITY.index("asian"),
    "asianindian": ETHNICITY.index("indian"),
    "latino": ETHNICITY.index("latino_middle_eastern"),
    "middleeastern": ETHNICITY.index("latino_middle_eastern"),
}
# Serial number at the end of a file name, with the size letter of some press photos ("..._2868588k").
_NUMBER = re.compile(r"[ _-]*\d+[a-z]?$")
_VALIDATION_PERCENT = 20
# A few people account for most photos of a rare class (one of them for half of all disgust), so a hash can leave either
# split without it. This salt was chosen among the first 60 by class counts alone, before anything was trained: 17 to
# 22 % of each class fall into validation (in the 3,622 photos that were available).
_SALT = "21"


def person_of(image: str) -> str:
    """The person in a file, as far as its name tells: the name without its number, in lower case.

    ``Aaron_Peirsol_0002.jpg`` and ``aaron_peirsol_0003.JPG`` are the same person. The press photos
    ``facial-expressions_2868588k.jpg`` count as one person: their subjects are unknown, and one person in both splits
    would be worse than several people kept together. A purely numeric name is a person of its own.
    """
    stem = pathlib.PurePosixPath(image).stem.lower()
    return _NUMBER.sub("", stem) or stem


def split_of(person: str) -> str:
    """``validation`` for a fifth of all people, by a hash of the name; the same for any subset of the photos."""
    digest = hashlib.sha256(f"{_SALT}/{person}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") % 100 < _VALIDATION_PERCENT else "train"


@register_dataset
class FacialExpressions(Dataset):
    """Reader of muxspace/facial_expressions; see the module docstring."""

    name = "facial_expressions"
    description = (
        "13,682 photos, most of them grey LFW chips, with one of eight expressions, very unbalanced. "
        "Split by person: a fifth of the people are held out for validation."
    )
    licence = "Apache-2.0 (the repository's; the rights to the photos are their owners')"
    commercial = "unclear"
    url = "https://github.com/muxspace/facial_expressions"
    tasks = ("emotion8", "emotion7", "gender", "ethnicity")
    expected_counts: ClassVar = {"train": None, "validation": None}
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None) -> Iterator[Record]:
        """Yields one record for each photo listed in legend.csv.

        Labels: ``emotion``, ``person`` (text), and ``gender`` and ``ethnicity`` where attributes.csv has them. Counted
        and skipped: rows with an unknown label or without a usable file name, duplicate rows of a photo, and photos
        whose rows contradict each other.

        Raises:
            FileNotFoundError: There is no legend.csv.
            ValueError: A column is missing.
        """
        skip = Skips(self)
        root = find(self, raw, "data/legend.csv").parents[1]
        emotions = consistent_labels(_emotions(root, skip), skip, "photo")
        attributes = _attributes(root / "attributes.csv", skip)
        for image, emotion in emotions.items():
            person = person_of(image)
            labels: dict[str, object] = {"emotion": emotion, "person": person, **attributes.get(image, {})}
            yield Record(f"images/{image}", split_of(person), root / "images" / image, labels)


def _emotions(root: pathlib.Path, skip: Skips) -> Iterator[tuple[str, int]]:
    for place, row in table(root / "data" / "legend.csv", skip, "image", "emotion"):
        path, word = skip.listed(root / "images", row["image"]), row["emotion"].lower()
        if path is None:
            continue
        if word in _EMOTIONS:
            yield path.relative_to(root / "images").as_posix(), _EMOTIONS[word]
        else:
            skip("label is none of the eight", place)


def _attributes(path: pathlib.Path, skip: Skips) -> dict[str, dict[str, int]]:
    if not path.is_file():
        return {}
    attributes = {}
    for _, row in table(path, skip, "image", "gender", "ethnicity"):
        gender, ethnicity = row["gender"].lower(), row["ethnicity"].lower()
        known = {"gender": GENDER.index(gender)} if gender in GENDER else {}
        if ethnicity in _ETHNICITIES:
            known["ethnicity"] = _ETHNICITIES[ethnicity]
        attributes[row["image"]] = known
    return attributes
