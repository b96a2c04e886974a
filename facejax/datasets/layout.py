"""Shared by the readers of published folders: finding files, reading tables and rejecting hostile rows.

Tables are read line by line, so that a damaged line costs one row and not the whole file. A file name listed in a table
is used only if it stays inside the folder that it is relative to.
"""

import codecs
import csv
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

from facejax.datasets.registry import Dataset

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
LOGGED_PER_REASON = 20
# Longer than any published row (FER2013: 2304 pixels, about 9 kB); longer lines are not table rows.
MAX_LINE = 1 << 20
# Larger than any pixel, score or date, and representable in float32.
LARGEST = 1e9
# Limits for a single name and for a whole path inside the dataset; file systems accept no longer names.
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 1024

_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]{1,12}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?", re.ASCII)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Skips:
    """Records on the dataset which rows of one pass are skipped, and logs the first ones for each reason."""

    def __init__(self, dataset: Dataset):
        """Starts a new pass; what an earlier one skipped is forgotten."""
        self._dataset = dataset
        dataset.skipped = {}

    def __call__(self, reason: str, what: str) -> None:
        """Records that `what` (a file or row) is skipped for `reason` (the same text for all such rows)."""
        what = ascii(what[:200])[1:-1]  # so that no control character reaches a terminal or a report
        self._dataset.skip(reason, what)
        if self._dataset.read_before:
            return
        noted = len(self._dataset.skipped[reason])
        if noted <= LOGGED_PER_REASON:
            logger.warning("%s: %s: %s", self._dataset.name, what, reason)
        if noted == LOGGED_PER_REASON:
            logger.warning("%s: further cases (%s) are counted but not logged", self._dataset.name, reason)

    def listed(self, root: pathlib.Path, name: str) -> pathlib.Path | None:
        """Path of a file listed in a table as `name`, relative to `root`; None, and counted, if it points elsewhere.

        Either slash separates folders (YouTube Faces uses backslashes). The file need not exist.
        """
        parts = name.replace("\\", "/").split("/")
        if (
            any(part in ("", ".", "..") or len(part.encode(errors="replace")) > MAX_NAME_BYTES for part in parts)
            or len(name.encode(errors="replace")) > MAX_PATH_BYTES
            or not name.isprintable()
            or ":" in parts[0]
        ):
            self("not a path inside the data set", name)
            return None
        return root.joinpath(*parts)

    def files(self, folder: pathlib.Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[pathlib.Path]:
        """Sorted files of a folder with one of the suffixes, excluding hidden ones (``._a.jpg``)."""
        found = []
        with os.scandir(folder) as entries:  # is_file() of an entry needs no disk access, unlike that of a path
            for entry in entries:
                if entry.name.startswith(".") or os.path.splitext(entry.name)[1].lower() not in suffixes:
                    continue
                if not entry.name.isprintable():
                    self("file name is not printable text", entry.name)
                elif entry.is_file():
                    found.append(folder / entry.name)
        return sorted(found)


def where_to_get(dataset: Dataset) -> str:
    """Ending of an error message about a folder that does not contain the dataset."""
    return f"see docs/datasets.md for the layout of {dataset.name} and where to get it ({dataset.url})"


def find(dataset: Dataset, raw: pathlib.Path | None, *places: str) -> pathlib.Path:
    """The first of `places` (relative to the folder `raw`) that exists: a file if it has a suffix, else a folder.

    Raises:
        FileNotFoundError: None of them exists, or no folder was given; lists what the folder contains instead.
    """
    help_ = where_to_get(dataset)
    if raw is None:
        raise FileNotFoundError(f"{dataset.name} is read from a folder, and none was given (--raw DIR); {help_}")
    for place in places:
        path = raw / place
        if path.is_file() if path.suffix and place != "." else path.is_dir():
            return path
    if not raw.is_dir():
        raise FileNotFoundError(f"{dataset.name}: {raw} is not a folder; {help_}")
    held = sorted(path.name for path in raw.iterdir())
    shown = ", ".join(ascii(name)[1:-1] for name in held[:8]) + (", ..." if len(held) > 8 else "")
    raise FileNotFoundError(
        f"{dataset.name}: expected {' or '.join(places)} in {raw}, which contains {shown or 'nothing'}; {help_}"
    )


def lines(path: pathlib.Path, skip: Skips) -> Iterator[tuple[str, str]]:
    """Yields (place, line) of a text file: place is ``name:number`` for reports, line has no line end.

    The encoding is UTF-8 with or without a byte order mark, or UTF-16 with one. Invalid UTF-8 becomes U+FFFD: it only
    ever occurs in people's names. Empty lines are ignored; lines with NUL or above 1 MiB are counted and skipped.
    """
    with path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in _UTF16 else "utf-8-sig"
    with path.open(encoding=encoding, errors="replace", newline=None) as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            place = f"{path.name}:{number}"
            if len(line) == MAX_LINE and not line.endswith("\n"):
                skip("line is too long", place)
                while (rest := file.readline(MAX_LINE)) and not rest.endswith("\n"):
                    pass
            elif "\0" in line:
                skip("line holds NUL", place)
            elif line := line.rstrip("\r\n"):
                yield place, line


def rows(path: pathlib.Path, skip: Skips, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Yields (place, cells) of a table; cells are stripped. An unclosed quote ends with its line."""
    for place, line in lines(path, skip):
        try:
            cells = next(csv.reader([line], delimiter=delimiter))
        except (csv.Error, StopIteration):
            skip("malformed row", place)
            continue
        yield place, [cell.strip() for cell in cells]


def table(path: pathlib.Path, skip: Skips, *columns: str, delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (place, cell by column) for each row of a table with a header line.

    Rows shorter than the header are counted and skipped; extra cells (from a trailing comma) are ignored.

    Raises:
        ValueError: A required column is missing, or the table is empty.
    """
    header: list[str] | None = None
    for place, cells in rows(path, skip, delimiter):
        if header is None:
            header = cells
            if missing := [column for column in columns if column not in header]:
                raise ValueError(f"{path}: no column {missing[0]!r} among {header[:20]!a}: not the published file")
        elif len(cells) < len(header):
            skip("malformed row", place)
        else:
            yield place, dict(zip(header, cells, strict=False))
    if header is None:
        raise ValueError(f"{path}: empty, expected a table with the columns {', '.join(columns)}")


def consistent_labels(labels: Iterable[tuple[str, int]], skip: Skips, kind: str) -> dict[str, int]:
    """Label by name, in the order of first mention; names with contradictory rows are counted and skipped.

    Args:
        labels: (name, label) of each row.
        skip: Skips of this pass; duplicate rows of a name are counted too.
        kind: What the names refer to, such as ``photo``.
    """
    found: dict[str, int] = {}
    contradicted = set()
    for name, label in labels:
        if name not in found:
            found[name] = label
        elif found[name] == label:
            skip(f"further row of the same {kind}", name)
        else:
            contradicted.add(name)
    for name in sorted(contradicted):
        skip(f"rows of the {kind} contradict each other", name)
        del found[name]
    return found


def chosen(names: pathlib.Path | Iterable[str] | None, skip: Skips) -> set[str] | None:
    """The names that an option selects: those given, or the lines of a text file; None selects all."""
    if isinstance(names, pathlib.Path):
        return {line.strip() for _, line in lines(names, skip)}
    return None if names is None else set(names)


def parse_int(text: str) -> int | None:
    """Parses 1 to 9 ASCII digits; None for anything else (``int`` would accept ``1_0`` and ``٣``)."""
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else None


def parse_float(text: str) -> float | None:
    """Parses a number within `LARGEST`; None for anything else (``float`` would accept ``nan``)."""
    number = float(text) if _DECIMAL.fullmatch(text) else None
    return number if number is not None and abs(number) <= LARGEST else None
