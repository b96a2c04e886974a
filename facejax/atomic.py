"""Files that appear whole or not at all, whenever the process is killed or the power fails."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write; it takes the place of `path` when the block ends without an error."""
    # Of this call alone, as two workers may be given one task.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    with whole_file(path) as file:
        file.write(data)
