"""Memory settings that must be in place before the process starts."""

import os
import sys

HUGE_PAGES = "glibc.malloc.hugetlb=1"


def use_huge_pages() -> None:
    """Restarts this program once with glibc's transparent huge pages, on Linux.

    XLA on CPU allocates and frees its large buffers through malloc at every step; with small pages most of a step's
    system time is page faults (docs/performance_log.md). The setting is read when a process starts, hence the restart.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = HUGE_PAGES
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # with Python's own flags
