"""Atomic file writes: a file appears complete or not at all, even if the process is killed or the power fails."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Yields a file to write to, which replaces `path` when the block ends without an error."""
    # The temporary name is unique to this call, since two workers may be given the same task.
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
    """Writes a file atomically."""
    with atomic_file(path) as file:
        file.write(data)
