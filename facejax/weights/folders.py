"""Folders that appear whole or not at all."""

import contextlib
import fnmatch
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

# What systems put into folders that somebody looked into.
_OF_SYSTEMS = (".DS_Store", "desktop.ini", "Thumbs.db")


@contextlib.contextmanager
def whole_folder(directory: pathlib.Path, marker: str, *others: str) -> Iterator[pathlib.Path]:
    """A folder to fill; it takes the place of `directory` when the block ends without an error.

    Args:
        directory: The folder; an older one of the same kind is replaced.
        marker: A file that every folder of this kind holds.
        *others: Names of what else such a folder holds, with ``*`` for any letters.

    Raises:
        FileExistsError: `directory` holds something else, which would be lost.
    """
    directory = directory.absolute()
    _check_ours(directory, marker, others)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        yield new
        if directory.exists():
            os.replace(directory, old)
        os.replace(new, directory)
    finally:
        if old.exists() and not directory.exists():  # it failed between the two
            os.replace(old, directory)
        shutil.rmtree(temporary, ignore_errors=True)


def _check_ours(directory: pathlib.Path, marker: str, others: Iterable[str]) -> None:
    if not directory.exists():
        return
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if not directory.is_dir() or (names and marker not in names):
        raise FileExistsError(f"{directory} is not empty and holds no {marker}: choose another folder")
    ours = (marker, *others, *_OF_SYSTEMS)
    foreign = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ours)]
    if foreign:
        raise FileExistsError(
            f"{directory} would be replaced, but holds {', '.join(foreign)}, not written by facejax there: move that "
            "away, or choose another folder"
        )
