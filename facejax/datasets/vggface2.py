"""VGGFace2 (Cao et al., 2018): 3.31 million photos of 9131 people.

Published layout (from ox-vgg/vgg_face2; CSV formats as read by Graviti-AI/tensorbay-python-sdk and
abars/VggFace2AgeLabel)::

    train/n000002/0001_01.jpg ...     8631 people      test/n000001/0001_01.jpg ...     500 other people
    meta/identity_meta.csv            Class_ID, Name, Sample_Num, Flag, Gender
    bb_landmark/loose_bb_train.csv, loose_bb_test.csv              NAME_ID,X,Y,W,H
    bb_landmark/loose_landmark_train.csv, loose_landmark_test.csv  NAME_ID,P1X,P1Y,...,P5X,P5Y
"""

import hashlib
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from facejax.data.records import Record
from facejax.datasets.layout import Skips, find, lines, parse_float
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import GENDER

_CLASS_ID = re.compile(r"n[0-9]{6}", re.ASCII)
_GENDER = {"f": GENDER.index("female"), "m": GENDER.index("male")}


@register_dataset
class VggFace2(Dataset):
    """Identification, split per person as in the paper (section 3): 9131 classes across both published folders."""

    name = "vggface2"
    description = (
        "3,311,286 photos of 9131 people (train and test folders together: 3,141,890 + 169,396), each person's photos "
        "split at random into 90 % train and 10 % validation"
    )
    licence = "for non-commercial research, on request (photos remain their owners')"
    url = "https://www.robots.ox.ac.uk/~vgg/data/vgg_face2/"
    tasks = ("identity", "gender")
    expected_counts: ClassVar = {"train": None, "validation": None}
    expected_total = 3_311_286
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None, *, validation: float = 0.1, seed: int = 0) -> Iterator[Record]:
        """Yields the photos by folder and name; identities are numbered by class id (``n000001`` first).

        Args:
            raw: Folder with ``train`` and ``test``; the CSV files are optional.
            validation: Fraction of each person's photos to hold out, rounded; at least one of two or more.
            seed: Seed of the split. A person's split depends only on their own photos.

        Raises:
            ValueError: `validation` is not in [0, 1].
        """
        if not 0 <= validation <= 1:
            raise ValueError(f"validation must be a fraction from 0 to 1, got {validation}")
        skip = Skips(self)
        folders = {half: find(self, raw, half) for half in ("train", "test")}
        people = sorted(
            (path.name, half)
            for half, folder in folders.items()
            for path in folder.iterdir()
            if _CLASS_ID.fullmatch(path.name) and path.is_dir()
        )
        identities = {class_id: i for i, class_id in enumerate(sorted({class_id for class_id, _ in people}))}
        metas = _read_identities(raw, skip)
        boxes = {half: _Annotations(raw, f"loose_bb_{half}.csv", 4) for half in folders}
        landmarks = {half: _Annotations(raw, f"loose_landmark_{half}.csv", 10) for half in folders}
        for class_id, half in people:
            photos = skip.files(folders[half] / class_id)
            held_out = _held_out([f"{class_id}/{photo.stem}" for photo in photos], validation, seed)
            class_boxes, class_landmarks = boxes[half].of(class_id, skip), landmarks[half].of(class_id, skip)
            for photo in photos:
                box = class_boxes.get(photo.stem)
                points = class_landmarks.get(photo.stem)
                yield Record(
                    id=f"{half}/{class_id}/{photo.name}",
                    split="validation" if f"{class_id}/{photo.stem}" in held_out else "train",
                    image=photo,
                    labels={"identity": identities[class_id], **metas.get(class_id, {})},
                    bbox=None if box is None else (box[0], box[1], box[0] + box[2], box[1] + box[3]),
                    landmarks=None if points is None else np.reshape(np.asarray(points, np.float32), (5, 2)),
                )


def _held_out(photos: Sequence[str], share: float, seed: int) -> set[str]:
    """Which photos of one person are held out.

    They are ordered by a hash of their names, so a photo missing from one copy of the dataset changes the split of at
    most one other.
    """
    held = round(len(photos) * share)
    if share > 0 and len(photos) > 1:
        held = min(max(held, 1), len(photos) - 1)
    ordered = sorted(photos, key=lambda photo: hashlib.sha256(f"{seed}/{photo}".encode()).digest())
    return set(ordered[:held])


def _read_identities(raw: pathlib.Path | None, skip: Skips) -> dict[str, dict[str, object]]:
    """Name and gender by class id.

    The published rows are not valid CSV: ``n000001, "14th_Dalai_Lama",424,0, m,`` has a space before the quote (which
    makes the quote part of the text) and a trailing comma, and the comma is missing where a name contains one. Rows are
    therefore parsed from both ends, which also works for files re-saved by a spreadsheet.
    """
    path = _meta_file(raw, "identity_meta.csv")
    people: dict[str, dict[str, object]] = {}
    for place, line in lines(path, skip) if path else ():
        cells = [cell.strip(' "\t') for cell in line.rstrip(", ").split(",")]
        if cells[0].lower() == "class_id":
            continue
        if len(cells) < 5 or not _CLASS_ID.fullmatch(cells[0]) or cells[-1] not in _GENDER:
            skip("malformed row of identity_meta.csv", place)
            continue
        people[cells[0]] = {"person": ",".join(cells[1:-3]), "gender": _GENDER[cells[-1]]}
    return people


def _meta_file(raw: pathlib.Path | None, name: str) -> pathlib.Path | None:
    """The CSV in one of the folders that the archives unpack to; None if it isn't there."""
    places = [raw / folder / name for folder in ("meta", "bb_landmark", ".")] if raw else []
    return next((place for place in places if place.is_file()), None)


class _Annotations:
    """Rows of a CSV of 3.1 million photos, read one person at a time: as a whole it would take more than a gigabyte."""

    def __init__(self, raw: pathlib.Path | None, name: str, width: int):
        """Indexes where in the file the rows of each person are; `width` is the count of numbers in a row."""
        self._path, self._width = _meta_file(raw, name), width
        self._spans: dict[bytes, list[tuple[int, int]]] = {}
        if self._path is None:
            return
        position, current, start = 0, b"", 0
        with self._path.open("rb") as file:
            for line in file:
                class_id = line.lstrip(b'"').split(b"/", 1)[0]
                if class_id != current:
                    self._spans.setdefault(current, []).append((start, position))
                    current, start = class_id, position
                position += len(line)
        self._spans.setdefault(current, []).append((start, position))

    def of(self, class_id: str, skip: Skips) -> dict[str, list[float]]:
        """Numbers of one person's photos, by photo stem (``0001_01``)."""
        found: dict[str, list[float]] = {}
        if self._path is None:
            return found
        for start, end in self._spans.get(class_id.encode(), ()):
            with self._path.open("rb") as file:
                file.seek(start)
                text = file.read(end - start).decode(errors="replace")
            for row in text.splitlines():
                name, *cells = row.replace('"', "").split(",")
                numbers = [parse_float(cell.strip()) for cell in cells]
                if len(numbers) != self._width or None in numbers:
                    skip(f"malformed row of {self._path.name}", row)
                    continue
                found[name.strip().split("/", 1)[-1].removesuffix(".jpg")] = [n for n in numbers if n is not None]
        return found
