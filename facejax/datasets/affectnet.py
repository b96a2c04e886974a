"""AffectNet (Mollahosseini, Hasani and Mahoor, 2017), manually annotated part, in both of its releases.

2017 release (from the dataset's readme)::

    Manually_Annotated_file_lists/training.csv, validation.csv
        subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal
    Manually_Annotated_Images/689/737db2483489148d783ef278f43f486c0a97e140fc4b6b61b84363ca.jpg ...

``facial_landmarks`` are 68 pairs ``x;y;x;y;...`` in pixels of the photo. The header line is optional, because copies of
validation.csv without it exist.

2021 release (AffectNet8Labels_Documentation_OneDrive_March2021; also read by av-savchenko/face-emotion-recognition)::

    train_set/images/0.jpg ..., val_set/images/...                  224 x 224 crops; the box is the whole image
    train_set/annotations/0_exp.npy, 0_val.npy, 0_aro.npy, 0_lnd.npy

Each .npy file contains one number (numeric, or as text such as ``'3'``); the landmark file contains 136.

Expressions are 0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 anger, 7 contempt, 8 none, 9 uncertain,
10 no face; valence and arousal are in [-1, 1], or -2 if missing.
"""

import io
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from facejax.data.records import Record
from facejax.datasets.layout import LARGEST, Skips, find, parse_float, rows
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION8

_PATH, *_BOX, _LANDMARKS, _EXPRESSION, _VALENCE, _AROUSAL = _COLUMNS = [
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
]
# Index in EMOTION8 of each of the dataset's expressions.
_EMOTION = tuple(
    map(EMOTION8.index, ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"))
)
_LISTS = {"train": "training.csv", "validation": "validation.csv"}
_FOLDERS = {"train": "train_set", "validation": "val_set"}
_IMAGES = (
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed/Manually_Annotated_Images",
)
_WHOLE = (0.0, 0.0, 224.0, 224.0)
# Larger than any published annotation file (136 numbers of 8 bytes, or written in 4-byte characters).
_MAX_NPY_BYTES = 1 << 16


@register_dataset
class AffectNet(Dataset):
    """Expression in 8 classes (paper section 3); 7 classes are the same photos without contempt.

    The published code, unlike the paper's text, crops the faces to the boxes of the CSV files, hence `default_crop`.
    The photos of the 2021 release already are such crops; their box is the whole photo, so that they are aligned too.
    """

    name = "affectnet"
    description = (
        "photos of faces with one of 8 expressions, valence and arousal; without contempt (7 classes) 283,901 train "
        "and 3,500 validation. The 2021 release has one validation photo fewer"
    )
    licence = "for non-commercial research, on request (photos remain their owners')"
    url = "http://mohammadmahoor.com/affectnet/"
    tasks = ("emotion8", "emotion7", "valence_arousal")
    expected_counts: ClassVar = {"train": 287_651, "validation": 4_000}
    default_crop = "annotation"

    def records(self, raw: pathlib.Path | None) -> Iterator[Record]:
        """Yields the photos with one of the 8 expressions, train first, in the order of the lists (2021: by number).

        Rows with other labels, with an empty box or malformed are counted and skipped, as in the paper's code.

        Args:
            raw: Folder of either release; if both are present, the 2017 lists are used.

        Raises:
            ValueError: The header of a list has other columns, or has them in another order.
        """
        skip = Skips(self)
        lists = [f"{folder}{name}" for folder in ("Manually_Annotated_file_lists/", "") for name in _LISTS.values()]
        found = find(self, raw, *lists, *_FOLDERS.values())
        if found.name in _FOLDERS.values():
            for split, folder in _FOLDERS.items():
                if (found.parent / folder).is_dir():
                    yield from self._release_2021(found.parent / folder, split, skip)
            return
        images = find(self, raw, *_IMAGES)
        for split, name in _LISTS.items():
            if (found.parent / name).is_file():
                yield from self._release_2017(found.parent / name, images, split, skip)

    def _release_2017(self, listing: pathlib.Path, images: pathlib.Path, split: str, skip: Skips) -> Iterator[Record]:
        for place, cells in rows(listing, skip):
            if cells[0] == _PATH:
                if cells != _COLUMNS:
                    told = ascii(",".join(cells)[:200])[1:-1]
                    raise ValueError(f"{place}: expected {','.join(_COLUMNS)}, got {told}: not the published file")
                continue
            if len(cells) != len(_COLUMNS):
                skip("malformed row", place)
                continue
            row = dict(zip(_COLUMNS, cells, strict=True))
            labels = _labels([parse_float(row[c]) for c in (_EXPRESSION, _VALENCE, _AROUSAL)], place, skip)
            if labels is None:
                continue
            x, y, width, height = (parse_float(row[column]) for column in _BOX)
            if x is None or y is None or width is None or height is None:
                skip("malformed box", place)
                continue
            if min(width, height) <= 0:
                skip("empty box", place)
                continue
            image = skip.listed(images, row[_PATH])
            if image is None:
                continue
            yield Record(
                id=f"{images.name}/{image.relative_to(images).as_posix()}",
                split=split,
                image=image,
                labels=labels,
                bbox=(x, y, x + width, y + height),
                landmarks=_landmarks(row[_LANDMARKS].split(";"), place, skip),
            )

    def _release_2021(self, folder: pathlib.Path, split: str, skip: Skips) -> Iterator[Record]:
        stems = sorted(
            path.name.removesuffix("_exp.npy")
            for path in skip.files(folder / "annotations", frozenset({".npy"}))
            if path.name.endswith("_exp.npy")
        )
        for stem in sorted(stems, key=lambda stem: (len(stem), stem)):
            place = f"{folder.name}/annotations/{stem}"
            read = {
                key: _read_npy(folder / "annotations" / f"{stem}_{key}.npy") for key in ("exp", "val", "aro", "lnd")
            }
            if problem := next((content for content in read.values() if isinstance(content, str)), None):
                skip(problem, place)
                continue
            values = {key: content for key, content in read.items() if not isinstance(content, str)}
            labels = _labels([values[key][0] if values[key] else None for key in ("exp", "val", "aro")], place, skip)
            if labels is None:
                continue
            yield Record(
                id=f"{folder.name}/images/{stem}.jpg",
                split=split,
                image=folder / "images" / f"{stem}.jpg",
                labels=labels,
                bbox=_WHOLE,
                landmarks=_landmarks(values["lnd"], place, skip) if values["lnd"] else None,
            )


def _labels(numbers: list[float | None], place: str, skip: Skips) -> Mapping[str, object] | None:
    """Expression, valence and arousal labels; None (counted as skipped) if it is not one of the 8 expressions."""
    expression, valence, arousal = numbers
    if expression is None or not (0 <= expression <= 10 and expression.is_integer()):
        skip("malformed expression", place)
        return None
    if expression >= len(_EMOTION):
        skip("expression none, uncertain or no face", place)
        return None
    labels: dict[str, object] = {"emotion": _EMOTION[int(expression)]}
    if valence is not None and arousal is not None and max(abs(valence), abs(arousal)) <= 1:
        labels["valence_arousal"] = (valence, arousal)
    return labels


def _landmarks(numbers: list[float] | list[str], place: str, skip: Skips) -> np.ndarray | None:
    """(68, 2) float32 pixels; None if malformed, which is counted although the photo is kept."""
    try:
        values = np.array(numbers, np.float64).reshape(68, 2)
    except ValueError:
        values = np.full((68, 2), np.nan)
    if (np.abs(values) <= LARGEST).all():
        return values.astype(np.float32)
    skip("malformed landmarks, photo kept", place)
    return None


def _read_npy(path: pathlib.Path) -> list[float] | str:
    """The numbers in a .npy file (empty if there is no such file), or a description of what is wrong with it.

    NumPy's own reader trusts the header: it would unpickle objects, or allocate memory for any shape.
    """
    if not path.is_file():
        return []
    if path.stat().st_size > _MAX_NPY_BYTES:
        return "annotation file is too large"
    stream = io.BytesIO(path.read_bytes())
    try:
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[np.lib.format.read_magic(stream)](stream)
        if dtype.hasobject:
            return "annotation file holds a pickled object: not read, as it could run code"
        values = np.frombuffer(stream.read(), dtype, count=math.prod(shape)).astype(np.float64)
    except Exception:  # NumPy tokenizes and evaluates the header, which can raise e.g. tokenize.TokenError
        return "unreadable annotation file"
    return values.tolist() if (np.abs(values) <= LARGEST).all() else "annotation out of range"
