"""Features and outputs of a workdir: made once, and again as soon as what they are made from is another."""

import hashlib
import json
import logging
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from facejax.atomic import write_atomically
from facejax.data.records import Record
from facejax.datasets import get_dataset

logger = logging.getLogger("facejax")


def keep(path: pathlib.Path, made_from: dict[str, Any], make: Callable[[pathlib.Path], None]) -> None:
    """Calls ``make(path)``, which writes the .npz file, unless it is there, whole, and was made from the same.

    What it was made from stands beside it: ``features.json`` tells it of ``features.npz``.
    """
    told = path.with_suffix(".json")
    text = json.dumps(made_from, indent=2) + "\n"
    if zipfile.is_zipfile(path) and told.exists() and told.read_text() == text:
        return
    if path.exists():
        logger.info("%s is damaged, or of other photos, settings or weights: made anew", path)
    told.unlink(missing_ok=True)  # first: a run that is stopped from here on leaves a file of which nothing is told
    make(path)
    write_atomically(told, text.encode())


def files_digest(paths: Iterable[pathlib.Path]) -> str:
    """Short name of files by their sizes and times of change: a file that was mended or replaced has another."""
    told = [f"{path.name} {_stamp(path)}" for path in paths]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def _stamp(path: pathlib.Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def records_digest(records: Sequence[Record]) -> str:
    """Short name of a list of records: their ids in order, their files, and the edition of those that are rendered."""
    told = [str(get_dataset("people").edition), *(record.id for record in records)]
    told += [_stamp(record.image) for record in records if isinstance(record.image, pathlib.Path)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
