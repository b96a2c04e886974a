"""Handles output pipes that are closed early, as by `head`."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Exits silently with status 0 when standard output is closed by its reader."""
    try:
        yield
        sys.stdout.flush()  # now, where the error can be caught
    except BrokenPipeError:
        # Python flushes once more at exit, which then goes to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
