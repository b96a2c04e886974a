"""FER2013 (Goodfellow et al., 2013) and the FER+ votes (Barsoum et al., 2016): 35,887 grey faces of 48 x 48 pixels.

Published layout (the challenge's csv; microsoft/FERPlus)::

    fer2013.csv       emotion,pixels,Usage             0,"70 80 82 72 ...",Training
    fer2013new.csv    Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF

Emotions are 0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral. Rows of the two files correspond by
position. FER+ has ten votes per row; ``NF`` means "no face" (such rows have no image name).
"""

import functools
import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from facejax.data.records import Record
from facejax.datasets.layout import Skips, find, parse_int, rows
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION8

SIZE = 48
_COLUMNS = ["emotion", "pixels", "Usage"]
_EMOTION = tuple(map(EMOTION8.index, ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")))
_VOTED = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
_SPLIT = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
_PIXELS = re.compile(r"[0-9]{1,3}( [0-9]{1,3})*", re.ASCII)


@register_dataset
class Fer2013(Dataset):
    """Expression in 7 classes, or in 8 with the FER+ votes, for users without an AffectNet licence."""

    name = "fer2013"
    description = "small grey faces from the web with one of 7 expressions (8 by FER+): train, validation and test"
    licence = "Kaggle competition data, no licence stated (photos remain their owners'); the votes of FER+ are MIT"
    commercial = "unclear"
    url = "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge/data"
    tasks = ("emotion8", "emotion7")
    expected_counts: ClassVar = {"train": 28_709, "validation": 3_589, "test": 3_589}
    default_crop = "none"

    def records(self, raw: pathlib.Path | None, *, ferplus: bool = False) -> Iterator[Record]:
        """Yields the faces in CSV order, grey in three equal channels.

        Args:
            raw: Folder with ``fer2013.csv``.
            ferplus: Takes labels by majority vote from ``fer2013new.csv`` next to it, following microsoft/FERPlus:
                single votes are ignored, and a face without a majority for one of the 8 expressions is counted and
                skipped. The votes are stored as text in ``votes``.

        Raises:
            ValueError: One of the files is not the published one, or the two do not match.
        """
        skip = Skips(self)
        votes: dict[int, list[str]] | None = None
        if ferplus:
            listing = find(self, raw, "fer2013new.csv", "fer2013/fer2013new.csv")
            votes = dict(_body(listing, ["Usage", "Image name", *_VOTED], skip))
        for row, (emotion, pixel_text, usage) in _body(
            find(self, raw, "fer2013.csv", "fer2013/fer2013.csv"), _COLUMNS, skip
        ):
            record_id, label, pixels = f"fer{row:07d}", parse_int(emotion), _pixels(pixel_text)
            if label is None or label >= len(_EMOTION) or pixels is None or usage not in _SPLIT:
                skip("malformed row", record_id)
                continue
            labels: dict[str, object] = {"emotion": _EMOTION[label]}
            if votes is not None:
                if row not in votes:
                    skip("no votes", record_id)
                    continue
                if votes[row][0] != usage:
                    raise ValueError(
                        f"row {row} has usage {votes[row][0]!a} in fer2013new.csv but {usage!a} in fer2013.csv: the "
                        "rows of the two files correspond by line number, and one file was changed"
                    )
                elected = majority([count for cell in votes[row][2:] if (count := parse_int(cell)) is not None])
                if elected is None:
                    skip("no majority for one of the 8 expressions", record_id)
                    continue
                labels = {"emotion": elected, "votes": " ".join(votes[row][2:])}
            yield Record(record_id, _SPLIT[usage], functools.partial(_image, pixels), labels)


def majority(votes: list[int]) -> int | None:
    """Index in EMOTION8 of the expression with more than half of the votes; None if there is none among the eight.

    Args:
        votes: Ten counts in the order of the FER+ columns. Counts of 1 are treated as errors and dropped first.
    """
    counts = [count if count > 1 else 0 for count in votes]
    if len(counts) != len(_VOTED) or 2 * max(counts) <= sum(counts):
        return None
    winner = _VOTED[counts.index(max(counts))]
    return EMOTION8.index(winner) if winner in EMOTION8 else None


def _body(path: pathlib.Path, columns: list[str], skip: Skips) -> Iterator[tuple[int, list[str]]]:
    """Yields (row number from 0, cells) of rows as wide as the CSV header; skipped rows do not shift the numbering."""
    header = None
    for place, cells in rows(path, skip):
        if header is None:
            header = cells
            if header != columns:
                break
        elif len(cells) == len(columns):
            yield int(place.rsplit(":", 1)[1]) - 2, cells
        else:
            skip("malformed row", place)
    if header != columns:
        raise ValueError(f"{path}: expected the columns {','.join(columns)}, got {(header or [])[:12]!a}")


def _pixels(text: str) -> bytes | None:
    if not _PIXELS.fullmatch(text):
        return None
    values = [int(cell) for cell in text.split(" ")]
    return bytes(values) if len(values) == SIZE * SIZE and max(values) <= 255 else None


def _image(pixels: bytes) -> np.ndarray:
    grey = np.frombuffer(pixels, np.uint8).reshape(SIZE, SIZE, 1)
    return np.repeat(grey, 3, axis=2)
