"""Runs that are repeatedly killed or stopped at random times must end as if nothing had happened."""

import multiprocessing
import os
import pathlib
import random
import signal
import time

import jax
import numpy as np
import pytest

from facejax.train.metrics_log import read_metrics
from facejax.train.preemption import EXIT_CODE
from facejax.weights.checkpoint import load_inference_checkpoint

from . import worker
from .prepared import prepare_squares, registered_toy_net

pytestmark = pytest.mark.slow

TRIES = 40
CHANGES = {"checkpoint.every_steps": "2", "model.dropout_rate": "0.2", "data.augmentation": "flip"}


def in_child(options: dict) -> None:
    """Runs the worker, with its output in a file."""
    log = os.open(pathlib.Path(options["workdir"]) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    worker.main(options)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a run on the squares in a process that has imported everything already."""
    data_dir = prepare_squares(tmp_path_factory.mktemp("squares"))
    flags = os.environ.pop("XLA_FLAGS")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.worker", "tensorboardX"])

    def started(workdir):
        workdir.mkdir(exist_ok=True)
        options = {"data_dir": str(data_dir), "workdir": str(workdir), "devices": 1, "changes": CHANGES}
        process = context.Process(target=in_child, args=(options,))
        process.start()
        return process

    yield started
    os.environ["XLA_FLAGS"] = flags


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def assert_bit_equal(workdir, whole):
    assert read_metrics(workdir) == read_metrics(whole)
    for name in ("best", "last"):
        with np.load(workdir / f"scores_{name}.npz") as a, np.load(whole / f"scores_{name}.npz") as b:
            assert all(np.array_equal(a[key], b[key]) for key in b)
        with registered_toy_net():
            ours, theirs = (load_inference_checkpoint(path / name)[0] for path in (workdir, whole))
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), ours, theirs))


def test_killed_and_stopped_at_random_instants_is_bit_equal(start, tmp_path):
    draw = random.Random(time.time_ns())
    whole = tmp_path / "whole"
    process = start(whole)
    process.join()
    assert process.exitcode == 0, (whole / "log.txt").read_text()[-3000:]

    hits = {"killed": 0, "in a save": 0, "stopped": 0, "exited before": 0}
    runs, ended = 0, True
    while hits["killed"] + hits["stopped"] < TRIES or not ended:
        if ended:
            runs, ended = runs + 1, False
        workdir = tmp_path / f"run{runs}"
        process = start(workdir)
        until = lines(workdir) + draw.randint(0, 8)
        while process.is_alive() and lines(workdir) < until:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.1))
        how = draw.choice([signal.SIGKILL, signal.SIGTERM])
        if process.is_alive():
            os.kill(process.pid, how)
        process.join()
        assert process.exitcode in (0, EXIT_CODE, -signal.SIGKILL, -signal.SIGTERM), (
            process.exitcode,
            (workdir / "log.txt").read_text()[-3000:],
        )
        hits["killed"] += process.exitcode in (-signal.SIGKILL, -signal.SIGTERM)
        hits["stopped"] += process.exitcode == EXIT_CODE
        hits["exited before"] += process.exitcode == 0
        hits["in a save"] += any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))
        if process.exitcode == 0:
            ended = True
            assert_bit_equal(workdir, whole)
    print(f"{runs} runs: {hits}")
