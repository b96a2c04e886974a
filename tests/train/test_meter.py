"""Peak memory against the kernel's own count."""

import pathlib
import re
import resource
import sys

import pytest

from facejax.train.meter import memory_use


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_peak_memory_is_in_bytes():
    peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    assert memory_use()["host_peak_bytes"] == pytest.approx(int(peak[1]) * 1024, rel=0.05)


def test_peak_memory_is_in_bytes_on_macos(monkeypatch):
    """There getrusage counts bytes (its manual page)."""
    monkeypatch.setattr(sys, "platform", "darwin")
    expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory_use()["host_peak_bytes"] == pytest.approx(expected, rel=0.05)
