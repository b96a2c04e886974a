"""Freed memory is returned to the system."""

import pathlib
import sys

import pytest

from facejax.train.memory import return_freed_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident_mib() -> float:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return kib / 1024


def test_freed_memory_goes_back_to_the_system():
    pieces = [bytes([1]) * 4096 for _ in range(20_000)]  # 78 MiB; the last one keeps the top of the heap in place
    kept = pieces[-1]
    del pieces
    before = resident_mib()
    return_freed_memory()
    assert before - resident_mib() > 50
    assert kept
