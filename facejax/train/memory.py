"""Releases memory that the C library keeps although it is no longer used."""

import ctypes
import sys


def return_freed_memory() -> None:
    """Returns memory that was freed but kept by glibc to the system; does nothing without glibc.

    XLA on CPU frees most of the memory it needs to compile a training step: 1.6 of 2.6 GB for EfficientNet-B2. Without
    this, it would stay allocated but unused, in addition to the step's own memory, for the rest of the run.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
