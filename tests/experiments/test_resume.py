"""The main job as a user runs it: killed at random times and run again, it must end as if nothing had happened."""

import os
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from facejax.train.metrics_log import read_metrics
from tests.train.prepared import prepare_squares

RUN = pathlib.Path(__file__).parents[2] / "experiments" / "run.py"


def command(data_dir: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    values = {
        "data.name": "facial_expressions",
        "model.image_size": "32",
        "batch_size": "16",
        "stages.head.epochs": "1",
        "stages.full.epochs": "2",
        "checkpoint.every_steps": "3",
    }
    overrides = [f"--config.{path}={value}" for path, value in values.items()]
    return [
        sys.executable,
        str(RUN),
        "--config=emotion_b0",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        *overrides,
    ]


@pytest.mark.slow
def test_run_killed_at_random_steps_is_bit_equal_to_an_uninterrupted_one(tmp_path):
    data_dir = prepare_squares(tmp_path, people=16)
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run(command(data_dir, tmp_path / "whole"), check=True, env=environment)
    lines = len(read_metrics(tmp_path / "whole"))

    draw = random.Random(time.time_ns())
    kills = sorted(draw.sample(range(1, lines), 3))
    print("killed after", kills, "of", lines, "lines")
    for kill in kills:
        process = subprocess.Popen(command(data_dir, tmp_path / "killed"), env=environment)
        while process.poll() is None and len(read_metrics(tmp_path / "killed")) < kill:
            time.sleep(0.01)
        assert process.poll() is None, "the run ended before it could be killed"
        process.kill()
        process.wait()
    subprocess.run(command(data_dir, tmp_path / "killed"), check=True, env=environment)

    assert read_metrics(tmp_path / "killed") == read_metrics(tmp_path / "whole")
    for name in ("best", "last"):
        with (
            np.load(tmp_path / "killed" / f"scores_{name}.npz") as ours,
            np.load(tmp_path / "whole" / f"scores_{name}.npz") as theirs,
        ):
            assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
