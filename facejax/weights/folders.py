"""Atomic creation of folders: a folder appears complete or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_folder(directory: pathlib.Path, marker: str, key: str, *others: str) -> Iterator[pathlib.Path]:
    """Yields a folder to fill, which replaces `directory` when the block ends without an error.

    Args:
        directory: The folder, or a link to it. An existing folder of the same kind is replaced; unrelated files in it
            are kept.
        marker: Name of a JSON file that every folder of this kind contains.
        key: Key that the JSON object must have (TensorFlow.js has a model.json too).
        *others: Names of the other files that belong to a folder of this kind.

    Raises:
        FileExistsError: `directory` is something else, and not empty; or another process has written to it meanwhile.
    """
    directory = pathlib.Path(os.path.realpath(directory))
    before = _identity(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: choose a folder")
    if directory.exists() and not _is_of_this_kind(directory, marker, key):
        raise FileExistsError(f"{directory} is not empty and has no {marker} of facejax: choose another folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        yield new
        if _identity(directory) != before:  # it is no longer the folder that was checked
            raise FileExistsError(f"another process has written to {directory} meanwhile: choose another folder")
        if directory.exists():
            os.replace(directory, old)
        os.replace(new, directory)
    finally:
        if old.exists():
            if not directory.exists():  # it failed between the two renames
                os.replace(old, directory)
            else:
                _move_foreign(old, directory, (marker, *others))
        shutil.rmtree(temporary, ignore_errors=True)


def _identity(directory: pathlib.Path) -> tuple[int, int] | None:
    """Identifies a folder, so that a replacement can be noticed; None if there is none."""
    try:
        status = directory.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_of_this_kind(directory: pathlib.Path, marker: str, key: str) -> bool:
    if not any(directory.iterdir()):
        return True
    try:
        told = json.loads((directory / marker).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and key in told


def _move_foreign(old: pathlib.Path, new: pathlib.Path, own: tuple[str, ...]) -> None:
    for path in old.iterdir():
        if path.name not in own and not (new / path.name).exists():
            os.replace(path, new / path.name)
