"""Folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def whole_folder(directory: pathlib.Path, marker: str) -> Iterator[pathlib.Path]:
    """A folder to fill; it takes the place of `directory` when the block ends without an error.

    Args:
        directory: The folder; an older one of the same kind is replaced.
        marker: A file that every folder of this kind holds.

    Raises:
        FileExistsError: `directory` holds something else.
    """
    directory = directory.absolute()
    if directory.exists() and (
        not directory.is_dir() or (any(directory.iterdir()) and not (directory / marker).is_file())
    ):
        raise FileExistsError(f"{directory} is not empty and holds no {marker}: choose another folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        (temporary / "new").mkdir()
        yield temporary / "new"
        if directory.exists():
            os.replace(directory, temporary / "old")
        os.replace(temporary / "new", directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
