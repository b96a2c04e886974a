"""Folders that appear whole or not at all."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def whole_folder(directory: pathlib.Path, marker: str, key: str, *others: str) -> Iterator[pathlib.Path]:
    """A folder to fill; it takes the place of `directory` when the block ends without an error.

    Args:
        directory: The folder, or a link to it. An older one of the same kind is replaced; files of others that lie in
            it stay.
        marker: A JSON file that every folder of this kind holds.
        key: That its object has (TensorFlow.js has a model.json too).
        *others: Names of what else the older folder holds of this kind.

    Raises:
        FileExistsError: `directory` is something else, and not empty; or another process has written it meanwhile.
    """
    directory = pathlib.Path(os.path.realpath(directory))
    before = _identity(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: name a folder")
    if directory.exists() and not _is_of_this_kind(directory, marker, key):
        raise FileExistsError(f"{directory} is not empty and holds no {marker} of facejax: choose another folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        yield new
        if _identity(directory) != before:  # what lies there now is not what was looked at
            raise FileExistsError(f"another process has written {directory} meanwhile: choose another folder")
        if directory.exists():
            os.replace(directory, old)
        os.replace(new, directory)
    finally:
        if old.exists():
            if not directory.exists():  # it failed between the two
                os.replace(old, directory)
            else:
                _move_foreign(old, directory, (marker, *others))
        shutil.rmtree(temporary, ignore_errors=True)


def _identity(directory: pathlib.Path) -> tuple[int, int] | None:
    """Differs where another folder took the place of this one; None where there is none."""
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
