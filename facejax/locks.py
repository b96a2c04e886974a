"""One process at a time in a folder that several may want to write to."""

import contextlib
import fcntl
import logging
import pathlib
from collections.abc import Iterator

logger = logging.getLogger(__name__)
LOCK = ".lock"


@contextlib.contextmanager
def alone_in(folder: pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a folder for this process by the file `LOCK` in it, which stays; makes the folder.

    On a file system without locks (Lustre may be mounted so) nothing keeps another process out; the log says so.

    Args:
        folder: To be held.
        wait: Whether to wait for a process that holds it.

    Raises:
        BlockingIOError: Another process holds it, and `wait` is off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"another process writes to {folder} now: wait for it, or choose another folder"
            ) from error
        except OSError as error:
            logger.warning("%s is not locked against other processes: %s", folder, error)
        yield
