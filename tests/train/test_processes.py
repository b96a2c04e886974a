"""Two and four real processes (CPU, Gloo) must train as one, and resume each other's runs."""

import signal

import numpy as np
import pytest

from facejax.train.metrics_log import read_metrics
from facejax.train.preemption import EXIT_CODE

from . import processes
from .prepared import prepare_squares

pytestmark = pytest.mark.slow

STEPS = 20  # of the full stage, whose records are read from the shards
# At the toy's own learning rates SAM and Adam amplify the rounding of sums over other numbers of devices without bound.
SLOW = {"stages__head__lr": 1e-3, "stages__full__lr": 2e-3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepare_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    """The run in one process on four devices."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    processes.run(data_dir, workdir, 1, 4, **SLOW)
    return workdir


def assert_same_run(workdir, other):
    """The same log line by line, except for the rounding of sums over other numbers of devices."""
    ours, theirs = read_metrics(workdir), read_metrics(other)
    assert [(line["phase"], line["step"]) for line in ours] == [(line["phase"], line["step"]) for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        numbers = [name for name, value in b.items() if isinstance(value, float)]
        assert [a[name] for name in numbers] == pytest.approx([b[name] for name in numbers], rel=1e-3, abs=1e-4)
    with np.load(workdir / "scores_last.npz") as a, np.load(other / "scores_last.npz") as b:
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_train_as_one(data_dir, whole, tmp_path, sharding):
    processes.run(data_dir, tmp_path / "two", 2, 2, sharding=sharding, **SLOW)
    assert_same_run(tmp_path / "two", whole)
    expected = processes.order(whole, 1)
    got = processes.order(tmp_path / "two", 2)
    assert [got[step] for step in range(STEPS)] == [expected[step] for step in range(STEPS)]


def test_every_record_is_evaluated_once_with_an_uneven_tail(data_dir, whole, tmp_path):
    # 50 records in batches of 16 over four processes: the last batch has two records, and two processes none.
    processes.run(data_dir, tmp_path / "four", 4, 1, stages__head__epochs=0, stages__full__epochs=1)
    with np.load(tmp_path / "four" / "scores_last.npz") as four, np.load(whole / "scores_last.npz") as one:
        np.testing.assert_array_equal(four["labels/emotion8"], one["labels/emotion8"])
        assert four["scores/emotion8"].shape == one["scores/emotion8"].shape == (50, 8)
        assert np.isfinite(four["scores/emotion8"]).all()
        hits = (four["scores/emotion8"].argmax(axis=1) == four["labels/emotion8"]).mean()
    (line,) = (line for line in read_metrics(tmp_path / "four") if line["phase"] == "eval")
    assert line["emotion8/n"] == 50
    assert line["emotion8/accuracy"] == pytest.approx(hits)


def test_pmap_on_two_processes_is_pmap_on_one(data_dir, tmp_path):
    for name, count in (("one", 1), ("two", 2)):
        processes.run(data_dir, tmp_path / name, count, 4 // count, parallel="pmap", stages__full__epochs=1, **SLOW)
    assert_same_run(tmp_path / "two", tmp_path / "one")
    flops = [
        {line["flops"] for line in read_metrics(tmp_path / name, timing=True) if line["phase"] == "compile"}
        for name in ("one", "two")
    ]
    assert flops[0] == flops[1] != set()


def test_sigterm_to_one_of_them_stops_all_and_other_numbers_continue(data_dir, whole, tmp_path):
    """2 processes x 2 devices, then 4 x 1, then 1 x 2: the global order of the data does not change."""
    workdir = tmp_path / "run"
    orders = {}
    for lines, count, devices in ((14, 2, 2), (3, 4, 1)):
        # More lines than the stopped run has left: the signal would kill a process that is still starting.
        lines += processes.count_lines(workdir)
        started = processes.start(data_dir, workdir, count, devices, pause=1.0, **SLOW)
        processes.wait_for_lines(workdir, lines, started)
        started[-1].send_signal(signal.SIGTERM)
        assert processes.finish(started) == [EXIT_CODE] * count, (workdir / "log_0.txt").read_text()[-3000:]
        orders |= processes.order(workdir, count)
        for path in workdir.glob("order_*.txt"):
            path.unlink()
    processes.run(data_dir, workdir, 1, 2, **SLOW)
    orders |= processes.order(workdir, 1)
    assert_same_run(workdir, whole)
    expected = processes.order(whole, 1)
    assert [orders[step] for step in range(STEPS)] == [expected[step] for step in range(STEPS)]
