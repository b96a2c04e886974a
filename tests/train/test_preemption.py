"""SIGTERM, timing lines and the profile of a run, in this process."""

import contextlib
import logging
import os
import signal

import jax
import jax.numpy as jnp
import pytest

from facejax.config import SamConfig, StageConfig, StagesConfig
from facejax.train import loop, meter
from facejax.train.metrics_log import read_metrics
from facejax.train.preemption import EXIT_CODE, PreemptedError, Preemption
from facejax.train.profiling import STEPS_BEFORE, Profile
from facejax.train.setup import set_up

from . import prepared

pytestmark = pytest.mark.usefixtures("toy_net")
STAGES = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=2, lr=2e-2))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return prepared.prepare_squares(tmp_path_factory.mktemp("squares"), people=16)


def run(data_dir, workdir, profile_steps=0, **changes):
    workdir.mkdir(exist_ok=True)
    return loop.train(set_up(prepared.toy_config(stages=STAGES, **changes), data_dir, workdir), profile_steps)


@pytest.fixture(scope="module")
def whole(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    run(data_dir, workdir, profile_steps=2)
    return workdir


def test_exit_code_is_the_one_in_the_docs():
    assert EXIT_CODE == 75


def test_handler_is_there_during_the_run_only():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("batches", [0, 1])
def test_sigterm_in_the_evaluation_saves_and_evaluates_again(data_dir, whole, tmp_path, monkeypatch, batches):
    """Also at the very end, and twice."""
    make = loop.eval_batches

    def terminated(*args, **kwargs):
        for index, batch in enumerate(make(*args, **kwargs)):
            if index == batches:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(loop, "eval_batches", terminated)
    for _ in range(2):
        with pytest.raises(PreemptedError, match=r"SIGTERM"):
            run(data_dir, tmp_path / "run")
    monkeypatch.setattr(loop, "eval_batches", make)
    for _ in range(2):  # a finished run is unchanged, too
        progress = run(data_dir, tmp_path / "run")
        assert progress.epoch == 2
        assert read_metrics(tmp_path / "run") == read_metrics(whole)


def test_sigterm_after_any_step_loses_nothing(data_dir, whole, tmp_path, monkeypatch):
    make = loop.train_loader

    def terminated(*args, start_step, **kwargs):
        for step, batch in enumerate(make(*args, start_step=start_step, **kwargs), start_step):
            if step in (1, 2, 7) and step > start_step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_loader", terminated)
        for _ in range(2):
            with pytest.raises(PreemptedError, match=r"step \d+ is saved"):
                run(data_dir, tmp_path / "run")
    run(data_dir, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == read_metrics(whole)


def test_timing_is_logged_beside_the_metrics(whole):
    lines = read_metrics(whole, timing=True)
    (compiled,) = (line for line in lines if line["phase"] == "compile")
    assert compiled["seconds"] > 0
    assert compiled["bytes_per_device"] > 1000
    # Two passes; forward and the kernel's gradient of the convolution, all three products of the head.
    convolution, head = 2 * 16 * 4 * 4 * 16 * 48, 2 * 16 * 16 * 8
    assert compiled["flops"] == 2 * (2 * convolution + 3 * head)
    timing = [line for line in lines if line["phase"] == "timing"]
    assert sum(line["steps"] for line in timing) == max(line["step"] for line in lines)
    for line in timing:
        assert line["images_per_second"] == pytest.approx(16 / line["step_seconds"])
        assert line["device_seconds"] > 0
        assert 0 < line["input_seconds"] < line["step_seconds"]
        assert line["host_peak_bytes"] > 1 << 20
        assert "mfu" not in line  # the peak of a CPU is unknown


def test_mfu_is_work_over_peak(monkeypatch):
    written = []
    monkeypatch.setattr(meter, "peak_flops", lambda kind: 1e9)
    clock = iter([10.0, 12.0, 12.0, 12.0])
    monkeypatch.setattr(meter.time, "monotonic", lambda: next(clock))
    made = meter.Meter("full", 0, 10, 5, 16, 4 * 10**9, lambda **values: written.append(values))
    monkeypatch.setattr(meter, "SECONDS_BETWEEN_LINES", 0.0)
    made.update({"loss": 1.0}, 1.5, 0.25)
    (line,) = written
    assert line["step_seconds"] == 2.0
    assert line["mfu"] == pytest.approx(4e9 / (2.0 * 1e9 * jax.device_count()))
    assert line["images_per_second"] == 8.0


def test_profile_is_of_as_many_steps_as_were_asked_for(whole):
    (path,) = (whole / "profile").rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    assert sum(event.name == "train" for plane in planes for line in plane.lines for event in line.events) == 2


def test_a_profile_says_what_was_traced(tmp_path, caplog):
    caplog.set_level(logging.INFO, "facejax")
    with contextlib.closing(Profile(tmp_path, 100)) as profile:
        for _ in range(STEPS_BEFORE + 2):
            profile.before_step(jnp.zeros(()))
        profile.stop(jnp.zeros(()))
    assert "profile of 2 steps written" in caplog.text
    with contextlib.closing(Profile(tmp_path / "ended", 100)) as profile:  # by an error during the traced steps
        for _ in range(STEPS_BEFORE + 3):
            profile.before_step(jnp.zeros(()))
    assert "profile of 3 steps written" in caplog.text
    assert list((tmp_path / "ended").rglob("*.xplane.pb"))
    assert "no profile" not in caplog.text
    with contextlib.closing(Profile(tmp_path, 100)) as profile:
        profile.before_step(jnp.zeros(()))
    assert "no profile: it starts after 3 steps, but only 1 were run" in caplog.text


def test_batch_must_divide_over_devices_parts_and_microbatches(data_dir, tmp_path):
    message = r"batch_size 16 is not a multiple of the 8 devices x 2 parts x 2 microbatches; set --config.batch_size"
    with pytest.raises(ValueError, match=message):
        run(data_dir, tmp_path, sam=SamConfig(parts=2), accumulate=2)


def test_accumulation_and_parts_run_in_the_loop(data_dir, tmp_path):
    for name, changes in (("accumulate", {"accumulate": 2}), ("parts", {"sam": SamConfig(parts=2)})):
        assert run(data_dir, tmp_path / name, sharding="full", **changes).epoch == 2
