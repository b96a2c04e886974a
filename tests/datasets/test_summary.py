import types

import pytest

from facejax.datasets import summary
from facejax.datasets.crops import Outcome
from facejax.datasets.summary import Progress, describe_summary


@pytest.fixture
def clock(monkeypatch):
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(summary, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def outcomes(**kinds):
    return [Outcome("id", kind) for kind, count in kinds.items() for _ in range(count)]


def test_progress_measures_its_rate_after_the_first_batch(clock):
    lines = []
    progress = Progress("people", 1000, 0, lines.append)
    clock.now += 60  # the detector is compiled
    progress.add(outcomes(face=40))
    assert lines == ["people: 40/1000 photos (40 face)"]
    clock.now += 4
    progress.add(outcomes(face=39, no_face=1))
    assert len(lines) == 1  # the last line is not five seconds old
    clock.now += 4
    progress.add(outcomes(face=40))
    assert lines[1:] == ["people: 120/1000 photos, 10.0/s, 88 s left (119 face, 1 no_face)"]
    progress.report(last=True)
    assert lines[-1] == "people: 120/1000 photos, 68 s (119 face, 1 no_face)"


def test_progress_says_that_it_continues(clock):
    lines = []
    Progress("people", 10, 90, lines.append)
    assert len(lines) == 1
    assert "90" in lines[0]
    assert "10" in lines[0]


def of_splits(**photos):
    lists = dict.fromkeys(summary.LISTS, 0)
    splits = {
        name: {"photos": there + 2, "faces": there, **lists, "missing": 2, "classes": {}}
        for name, there in photos.items()
    }
    return {"name": "toy", "splits": splits, "skipped_by_reader": {}, "plan": {"detector": None}}


@pytest.mark.parametrize(
    ("expected", "warned"),
    [
        ({"expected_photos": {"train": 30, "test": 10}, "expected_total": None}, []),
        ({"expected_photos": {"train": 31, "test": 10}, "expected_total": None}, ["toy train: 30 photos"]),
        ({"expected_photos": {"train": None, "test": None}, "expected_total": 40}, []),
        ({"expected_photos": {"train": None, "test": None}, "expected_total": 50}, ["toy: 40 photos"]),
        ({"expected_photos": {}, "expected_total": None}, []),
    ],
)
def test_counts_are_compared_with_the_published_ones_without_missing_photos(expected, warned):
    warnings = [line for line in describe_summary(of_splits(train=30, test=10) | expected) if "WARNING" in line]
    assert len(warnings) == len(warned)
    for line, words in zip(warnings, warned, strict=True):
        assert words in line
