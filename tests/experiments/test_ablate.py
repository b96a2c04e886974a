"""Which finished runs `experiments/ablate.py` tells of. The runs themselves are those of `experiments/run.py`."""

import argparse
import json
import pathlib

import pytest

from experiments import ablate, run


@pytest.fixture
def runs(monkeypatch):
    """Commands that were run; each leaves a report of a set, `people` for centre crops of no other name."""
    commands = []

    def fake(command, **_):
        named = dict(zip(command[2::2], command[3::2], strict=False))
        workdir = pathlib.Path(command[command.index("--workdir") + 1])
        workdir.mkdir(parents=True, exist_ok=True)
        dataset = "people" if named["--data_dir"].endswith("centre") else "facial_expressions"
        figures = {"accuracy": 0.4, "balanced_accuracy": 0.3, "n": 10}
        task = run.load_config(named["--config"]).model.tasks[0]
        report = {"last": {"dataset": dataset, "tasks": {task: figures}}}
        (workdir / "report.json").write_text(json.dumps(report))
        commands.append(command)
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(ablate.subprocess, "run", fake)
    return commands


def arguments(tmp_path, config="emotion_mobilenet"):
    return argparse.Namespace(config=config, seeds=(0, 1), data_dir=tmp_path / "data", workdir=tmp_path / "runs")


def test_finished_runs_are_not_repeated(runs, tmp_path):
    first = ablate.ablate(arguments(tmp_path), [], "sam")
    assert len(runs) == 4
    assert ablate.ablate(arguments(tmp_path), [], "sam") == first
    assert len(runs) == 4
    assert first["variant"] == {"accuracy": [40.0, 40.0], "balanced_accuracy": [30.0, 30.0], "n": 10}


@pytest.mark.parametrize(("config", "overrides"), [("emotion_b2", []), ("emotion_mobilenet", ["--config.seed=3"])])
def test_results_of_another_command_are_refused(runs, tmp_path, config, overrides):
    ablate.ablate(arguments(tmp_path), [], "sam")
    run_of_another = tmp_path / "runs" / "baseline_0"
    for _ in range(2):  # finished, and stopped before it was
        with pytest.raises(SystemExit, match=r"holds the run of --config emotion_mobilenet .*choose another --workdir"):
            ablate.ablate(arguments(tmp_path, config), overrides, "sam")
        (run_of_another / "report.json").unlink(missing_ok=True)
        (run_of_another / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)


def test_a_command_that_was_refused_holds_no_workdir(runs, monkeypatch, tmp_path):
    """A set that is not there, say: the run ends before it begins, and leaves no more than a lock."""

    def refuse(command, **_):
        workdir = pathlib.Path(command[command.index("--workdir") + 1])
        workdir.mkdir(parents=True)
        (workdir / ".lock").touch()
        return argparse.Namespace(returncode=1)

    with monkeypatch.context() as patch:
        patch.setattr(ablate.subprocess, "run", refuse)
        with pytest.raises(SystemExit, match="ended with 1"):
            ablate.ablate(arguments(tmp_path), ["--config.data.name=lfw"], "sam")
    assert ablate.ablate(arguments(tmp_path), [], "sam")["baseline"]["accuracy"] == [40.0, 40.0]
    assert len(runs) == 4


@pytest.mark.parametrize("config", ["emotion_b2_7", "ethnicity_mobilenet"])
def test_the_figure_is_of_the_first_task(runs, tmp_path, config):
    assert ablate.ablate(arguments(tmp_path, config), [], "sam")["baseline"]["accuracy"] == [40.0, 40.0]


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("all", "emotion_b2_7", "compares 7 of 8 classes, emotion_b2_7 learns emotion7"),
        ("sam", "identity_b0", "identity_b0 learns identity first"),
        ("sam", "emotion_b3", "did you mean 'emotion_b2'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(runs, monkeypatch, name, config, message):
    monkeypatch.setattr("sys.argv", ["ablate.py", name, "--config", config])
    with pytest.raises(SystemExit, match=message):
        ablate.main()
    assert not runs


def test_arms_on_two_sets_are_refused(runs, tmp_path):
    with pytest.raises(
        SystemExit, match=r"not trained on the same set \(baseline on facial_expressions, crop on people"
    ):
        ablate.ablate(arguments(tmp_path), [], "crop")
