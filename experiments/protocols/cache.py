"""Caches features and outputs in a workdir: they are computed once, and again when their inputs change."""

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


def cached_file(path: pathlib.Path, made_from: dict[str, Any], make: Callable[[pathlib.Path], None]) -> None:
    """Calls ``make(path)``, which writes the .npz file, unless it exists, is whole, and was made from the same inputs.

    The inputs are recorded next to it: ``features.json`` has those of ``features.npz``.
    """
    told = path.with_suffix(".json")
    text = json.dumps(made_from, indent=2) + "\n"
    if zipfile.is_zipfile(path) and told.exists() and told.read_text() == text:
        return
    if path.exists():
        logger.info("%s is damaged, or was made from other photos, settings or weights: computing it again", path)
    told.unlink(missing_ok=True)  # first: a run that is interrupted after this leaves a file without recorded inputs
    make(path)
    write_atomically(told, text.encode())


def files_digest(paths: Iterable[pathlib.Path]) -> str:
    """Digest of files by name, size and modification time: it changes if a file is repaired or replaced."""
    told = [f"{path.name} {_stamp(path)}" for path in paths]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def _stamp(path: pathlib.Path) -> str:
    try:
        state = path.stat()
    except OSError:
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def records_digest(records: Sequence[Record]) -> str:
    """Digest of a list of records: their ids in order, their files, and the edition of the rendered ones."""
    told = [str(get_dataset("people").edition), *(record.id for record in records)]
    told += [_stamp(record.image) for record in records if isinstance(record.image, pathlib.Path)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
