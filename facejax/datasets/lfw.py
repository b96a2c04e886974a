"""Labeled Faces in the Wild (Huang et al., 2007): 13,233 photos of 5,749 people, 250 x 250 pixels.

Published layout (from the dataset's readme)::

    lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg ...       (or lfw_funneled/, lfw-deepfunneled/, lfw-py/...)
    pairs.txt                                          10 folds of 300 same and 300 different pairs

or a folder prepared by TensorFlow Datasets (``lfw/0.1.1``: features ``image`` and ``label``, the person's name).
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets import tfds_folder
from facejax.datasets.layout import Skips, chosen, find, lines, parse_int, where_to_get
from facejax.datasets.registry import Dataset, register_dataset

_PLACES = ("lfw", "lfw_funneled", "lfw-funneled", "lfw-deepfunneled", "lfw_deepfunneled", ".")


@dataclasses.dataclass(frozen=True)
class Pair:
    """One pair of the verification protocol: ids of the two photos, whether they show one person, and the fold."""

    first: str
    second: str
    same: bool
    fold: int


@register_dataset
class Lfw(Dataset):
    """Identification (paper, Table 1): 596 subjects with two photos or more that also have a YouTube Faces video."""

    name = "lfw"
    description = "photos of 5,749 people from the news; all test"
    licence = "for research; no licence is stated (photos remain their owners')"
    commercial = "unclear"
    url = "http://vis-www.cs.umass.edu/lfw/"
    tasks = ("identity",)
    expected_counts: ClassVar = {"test": 13_233}
    default_crop = "mtcnn"

    def records(
        self, raw: pathlib.Path | None, *, subjects: pathlib.Path | Iterable[str] | None = None
    ) -> Iterator[Record]:
        """Yields the photos by person and number; identities are numbered by name among those yielded.

        Args:
            raw: Folder with ``lfw``, that folder itself, or a folder prepared by TensorFlow Datasets.
            subjects: Keeps only these people: names, or a text file with one per line (`shared_subjects` makes the
                paper's list). Subjects without photos are counted.

        Raises:
            FileNotFoundError: No photo has the published layout.
        """
        skip = Skips(self)
        found = find(self, raw, tfds_folder.MARK, *_PLACES)
        wanted = chosen(subjects, skip)
        people = _prepared(found.parent) if found.name == tfds_folder.MARK else _folders(found, skip)
        if not people:
            raise FileNotFoundError(f"{self.name}: no folder Name/Name_0001.jpg in {found}; {where_to_get(self)}")
        for name in sorted((wanted or set()) - set(people)):
            skip("subject without photos", name)
        names = sorted(people if wanted is None else wanted & set(people))
        for identity, name in enumerate(names):
            for record_id, image in people[name]:
                yield Record(record_id, "test", image, {"identity": identity, "person": name})

    def pairs(self, path: pathlib.Path) -> list[Pair]:
        """Pairs of the dataset's ``pairs.txt`` in file order; malformed lines are counted and skipped.

        The file (dataset readme, 3c) starts with a line ``folds pairs``. Each fold then has that many pairs of the same
        person (``Name n1 n2``) and as many of different people (``Name1 n1 Name2 n2``), separated by tabs.

        Raises:
            ValueError: The first line is not of this form.
        """
        skip = Skips(self)
        size, pairs, places = 0, [], itertools.count()
        for place, line in lines(path, skip):
            cells = line.split()
            numbers = [parse_int(cell) for cell in cells]
            if not size:
                size = 2 * (numbers[1] or 0) if len(numbers) == 2 else 0
                if not size:
                    raise ValueError(f"{path}: expected a first line such as '10 300', got {line[:80]!a}")
                continue
            fold = next(places) // size  # a malformed line still counts towards its fold
            if len(cells) == 3 and numbers[1] and numbers[2]:
                pairs.append(Pair(_id(cells[0], numbers[1]), _id(cells[0], numbers[2]), True, fold))
            elif len(cells) == 4 and numbers[1] and numbers[3]:
                pairs.append(Pair(_id(cells[0], numbers[1]), _id(cells[2], numbers[3]), False, fold))
            else:
                skip("malformed pair", place)
        return pairs


def shared_subjects(records: Iterable[Record], video_names: Iterable[str]) -> list[str]:
    """Sorted names of the people with two photos or more and a video: the paper's 596 of LFW and YouTube Faces."""
    photos: dict[str, int] = {}
    for record in records:
        person = str(record.labels["person"])
        photos[person] = photos.get(person, 0) + 1
    return sorted(name for name in set(video_names) if photos.get(name, 0) >= 2)


def _id(name: str, number: int) -> str:
    return f"{name}/{name}_{number:04d}.jpg"


def _folders(root: pathlib.Path, skip: Skips) -> dict[str, list[tuple[str, pathlib.Path]]]:
    """Photos by person; files in a person's folder that are not named after them are counted and skipped."""
    people: dict[str, list[tuple[str, pathlib.Path]]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name.isprintable()):
        expected = re.compile(rf"{re.escape(folder.name)}_[0-9]{{4}}\.jpg", re.ASCII)
        for photo in skip.files(folder):
            if expected.fullmatch(photo.name):
                people.setdefault(folder.name, []).append((f"{folder.name}/{photo.name}", photo))
            else:
                skip("photo not named after its folder", f"{folder.name}/{photo.name}")
    return people


def _prepared(folder: pathlib.Path) -> dict[str, list[tuple[str, functools.partial]]]:
    """Photos by person in a folder prepared by TensorFlow Datasets, which does not keep photo numbers."""
    people: dict[str, list[tuple[str, functools.partial]]] = {}
    for index, example in enumerate(tfds_folder.examples(folder, "train")):
        if "label" not in example:
            raise ValueError(f"{folder} does not contain LFW: its examples have {', '.join(example)}, not label")
        name = example["label"].decode(errors="replace")
        people.setdefault(name, []).append(
            (f"tfds/{index:05d}", functools.partial(tfds_folder.photo, folder, "train", index))
        )
    return people
