"""Explains errors that a full disk causes."""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Callable, Iterator


class DiskFullError(OSError):
    """A write failed because the disk is full; what was complete before is unchanged."""


@contextlib.contextmanager
def explain_full_disk(folder: pathlib.Path, kept: Callable[[], str]) -> Iterator[None]:
    """Converts any error caused by a full disk into a `DiskFullError` that says what to do.

    Args:
        folder: A folder on the disk in question; it need not exist yet.
        kept: Says what is complete, in a sentence without its full stop; called only if the disk is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) or not _says_disk_full(error):
            raise
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(existing).free
        raise DiskFullError(
            errno.ENOSPC,
            f"the disk of {folder} is full ({free / 2**20:.0f} MiB free). {kept()}: free some space and run the same "
            "command again",
        ) from error


def _says_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is about disk space; TensorStore and threads only preserve the message."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
