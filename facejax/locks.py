"""A lock that lets only one process at a time write to a folder."""

import contextlib
import fcntl
import logging
import pathlib
from collections.abc import Iterator

logger = logging.getLogger(__name__)
LOCK = ".lock"


@contextlib.contextmanager
def exclusive_lock(folder: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Locks a folder for this process with the file `LOCK` inside it, which is left behind; creates the folder.

    File systems without locks (Lustre may be mounted that way) cannot keep other processes out; this logs a warning.

    Args:
        folder: The folder to lock.
        wait: Whether to wait if another process holds the lock.

    Raises:
        BlockingIOError: Another process holds the lock and `wait` is off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another process is writing to {folder}: wait for it, or choose another folder"
            ) from error
        except OSError as error:
            logger.warning("%s is not locked against other processes: %s", folder, error)
        yield
