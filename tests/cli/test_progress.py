import io
import types

import pytest

from facejax.cli import progress as module
from facejax.cli.progress import Progress


class Clock:
    """Stands in for `time`; moves only when told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def log(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(module, "sys", types.SimpleNamespace(stderr=stream))
    return stream


def count(progress, clock, *seconds):
    for wait in seconds:
        clock.now += wait
        progress.add()


def test_the_rate_and_the_time_left_leave_out_the_start(clock, log):
    with Progress("photos", 100) as progress:
        count(progress, clock, 60, 0, 0, 0)  # compilation, then the first four photos together
        count(progress, clock, *[0.5] * 20)  # two a second
        assert log.getvalue().splitlines()[-1] == "24 of 100 photos, 2.0 per second, 38 s left"
    assert log.getvalue().splitlines()[-1] == "24 of 100 photos, 2.0 per second"


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(clock, log):
    with Progress("frames") as progress:
        count(progress, clock, *[1.0] * 35)
    assert [line.split(",")[0] for line in log.getvalue().splitlines()] == [
        "10 frames",
        "20 frames",
        "30 frames",
        "35 frames",
    ]


def test_a_terminal_has_one_line_that_is_overwritten(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(module, "sys", types.SimpleNamespace(stderr=terminal))
    with Progress("photos", 3) as progress:
        count(progress, clock, 1, 1, 1)
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    lines = shown.strip("\r\n").split("\r")
    assert [line.split(",")[0].rstrip() for line in lines] == [f"{n} of 3 photos" for n in (1, 2, 3, 3)]
    assert len({len(line.rstrip("\n")) for line in lines}) == 1  # each covers the one before it


@pytest.mark.parametrize(("quiet", "done"), [(True, 5), (False, 0)])
def test_nothing_is_shown_when_quiet_or_when_nothing_was_done(clock, log, quiet, done):
    with Progress("photos", 5, quiet=quiet) as progress:
        count(progress, clock, *[20.0] * done)
    assert log.getvalue() == ""
