"""Which finished runs `experiments/ablate.py` reports. The runs themselves are those of `experiments/run.py`."""

import argparse
import json
import pathlib

import numpy as np
import pytest
import scipy.stats

from experiments import ablate, run
from facejax.models import create_model, init_variables, pretrained_cfg
from facejax.overrides import flatten, override
from facejax.weights.checkpoint import save_inference_checkpoint


@pytest.fixture
def runs(monkeypatch):
    """Commands that were run; each leaves a report on a dataset: `people` for centre crops without another name."""
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
    seeds = [next(part for part in command if part.startswith("--config.seed=")) for command in runs]
    assert seeds == ["--config.seed=0", "--config.seed=1"] * 2
    assert ["--config.sam.rho=0" in command for command in runs] == [False, False, True, True]
    assert first["variant"] == {"accuracy": [40.0, 40.0], "balanced_accuracy": [30.0, 30.0], "n": 10}


@pytest.mark.parametrize(("config", "overrides"), [("emotion_b2", []), ("emotion_mobilenet", ["--config.seed=3"])])
def test_results_of_another_command_are_refused(runs, tmp_path, config, overrides):
    ablate.ablate(arguments(tmp_path), [], "sam")
    run_of_another = tmp_path / "runs" / "baseline_0"
    for _ in range(2):  # finished, and stopped before it was
        with pytest.raises(
            SystemExit, match=r"contains the run of --config emotion_mobilenet .*choose another --workdir"
        ):
            ablate.ablate(arguments(tmp_path, config), overrides, "sam")
        (run_of_another / "report.json").unlink(missing_ok=True)
        (run_of_another / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
    run_of_another.with_suffix(".json").unlink()
    with pytest.raises(SystemExit, match=r"contains the run of something else; choose another --workdir"):
        ablate.ablate(arguments(tmp_path), [], "sam")


def test_a_command_that_was_refused_holds_no_workdir(runs, monkeypatch, tmp_path):
    """For example a missing dataset: the run ends before it begins, and leaves nothing but a lock."""

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
        ("all", "emotion_b2_7", "compares 7 of 8 classes, but emotion_b2_7 learns emotion7"),
        ("sam", "identity_b0", "identity_b0 learns identity first"),
        ("sam", "emotion_b3", "did you mean 'emotion_b2'"),
        ("init", "emotion_mobilenet", "`init` compares weights with random ones, and there are none"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(runs, monkeypatch, tmp_path, name, config, message):
    monkeypatch.setattr("sys.argv", ["ablate.py", name, "--config", config, "--workdir", str(tmp_path / "runs")])
    with pytest.raises(SystemExit, match=message):
        ablate.main()
    assert not runs


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("sam", ["--config.sam.rho=0"]),
        ("all", ["--config.loss.class_weights=none"]),
        ("crop", ["--config.data.name=people", "--config.data.people_crop=centre"]),
    ],
)
def test_a_run_is_not_compared_with_itself(runs, monkeypatch, tmp_path, name, overrides):
    monkeypatch.setattr("sys.argv", ["ablate.py", name, "--workdir", str(tmp_path / "runs"), *overrides])
    with pytest.raises(SystemExit, match=r"changes nothing: emotion_mobilenet has --config.* already"):
        ablate.main()
    assert not runs


def test_a_seed_counts_once(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["ablate.py", "sam", "--workdir", str(tmp_path / "runs"), "--seeds", "0,1,0"])
    with pytest.raises(SystemExit):
        ablate.main()
    assert "--seeds 0,1,0: a seed is given twice" in capsys.readouterr().err


def starts(runs):
    """The last ``init_from`` of each run, which is the one that counts; None where it is the config's."""
    fields = [dict(run.parse_overrides([part for part in one if part.startswith("--config.")])) for one in runs]
    return [field.get("model.init_from") for field in fields]


def test_every_arm_starts_from_the_run_beside_the_ablations(runs, monkeypatch, tmp_path):
    best = tmp_path / "identity_mobilenet" / "best"
    network = "mobilenet_v1"
    save_inference_checkpoint(best, init_variables(create_model(network), 0, 32), pretrained_cfg(network))
    found = str(best)
    for name, expected in (("sam", [found, found]), ("init", [found, ""])):
        runs.clear()
        workdir = str(tmp_path / f"runs_{name}")
        monkeypatch.setattr("sys.argv", ["ablate.py", name, "--seeds", "0", "--workdir", workdir])
        ablate.main()
        assert starts(runs) == expected


def test_where_there_are_no_weights_all_arms_are_said_to_start_from_random_ones(runs, monkeypatch, capsys, tmp_path):
    out = tmp_path / "record"
    monkeypatch.setattr("sys.argv", ["ablate.py", "sam", "--workdir", str(tmp_path / "runs"), "--out", str(out)])
    ablate.main()
    printed = capsys.readouterr().out
    assert "All arms start from RANDOM WEIGHTS" in printed
    assert starts(runs) == [None] * 6
    assert printed.endswith(out.with_suffix(".md").read_text())
    record = json.loads(out.with_suffix(".json").read_text())
    assert (record["config"], record["seeds"]) == ("emotion_mobilenet", [0, 1, 2])
    assert record["results"]["sam"]["variant"]["accuracy"] == [40.0] * 3
    named = "--config.model.init_from=identity_mobilenet"
    monkeypatch.setattr("sys.argv", ["ablate.py", "sam", "--workdir", str(tmp_path / "others"), named])
    with pytest.raises(SystemExit, match="neither a folder with a saved model, nor a finished run"):
        ablate.main()


def test_arms_on_two_sets_are_refused(runs, tmp_path):
    with pytest.raises(
        SystemExit, match=r"not trained on the same dataset \(baseline on facial_expressions, crop on people"
    ):
        ablate.ablate(arguments(tmp_path), [], "crop")


def test_centre_crops_of_people_are_rendered_where_the_others_are(runs, tmp_path):
    with pytest.raises(SystemExit, match="not trained on the same dataset"):
        ablate.ablate(arguments(tmp_path), [], "crop")
    assert [str(command[5]).endswith("centre") for command in runs] == [False, False, True, True]
    for config, overrides in (("emotion_mobilenet", ["--config.data.name=people"]), ("people_b0", [])):
        runs.clear()
        ablate.ablate(arguments(tmp_path / config, config), overrides, "crop")
        assert not any(str(command[5]).endswith("centre") for command in runs)
        assert ["--config.data.people_crop=centre" in command for command in runs] == [False, False, True, True]


def test_seven_of_eight_is_compared_with_training_on_seven(monkeypatch, tmp_path):
    def told(arguments, overrides, arm, seed, crop, changes):
        eight = {"accuracy": 0.5, "balanced_accuracy": 0.4, "n": 8}
        eight["seven_from_eight"] = {"accuracy": 0.6, "balanced_accuracy": 0.45, "n": 7}
        seven = {"accuracy": 0.65, "balanced_accuracy": 0.55, "n": 7}
        tasks = {"emotion8": eight} if arm == "baseline" else {"emotion7": seven}
        return {"dataset": "toy", "tasks": tasks}

    monkeypatch.setattr(ablate, "run", told)
    found = ablate.ablate(arguments(tmp_path), [], "seven")
    assert found["baseline"] == {"accuracy": [60, 60], "balanced_accuracy": [45, 45], "n": 7}
    assert found["variant"] == {"accuracy": [65, 65], "balanced_accuracy": pytest.approx([55, 55]), "n": 7}


CHANGED = {
    "crop": ("data.people_crop", "centre"),
    "init": ("model.init_from", ""),
    "head_only": ("stages.full.epochs", "0"),
    "sam": ("sam.rho", "0.0"),
    "class_weights": ("loss.class_weights", "none"),
    "seven": ("model.tasks", "emotion7"),
}


@pytest.mark.parametrize("name", ablate.ABLATIONS)
def test_an_ablation_changes_what_it_says_and_nothing_else(name):
    before = run.load_config("emotion_mobilenet")
    after = before
    for path, text in run.parse_overrides([*ablate.ABLATIONS[name].changes]):
        after = override(after, path, text)
    path, value = CHANGED[name]
    differ = {key: told for key, told in flatten(after).items() if told != flatten(before)[key]}
    assert differ == {path: value}


def test_intervals_are_student_s():
    values = np.random.default_rng(0).normal(60, 2, 5)
    mean, half = ablate.interval(values)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert np.isnan(ablate.interval(values[:1])[1])


def test_a_table_says_which_arm_is_better_and_by_how_much():
    with_sam = {"accuracy": [60.0, 62.0], "balanced_accuracy": [50.0, 50.0], "n": 9}
    without = {"accuracy": [58.0, 59.0], "balanced_accuracy": [51.0, 51.0], "n": 9}
    lines = ablate.format_results({"sam": {"question": "", "baseline": with_sam, "variant": without}}).splitlines()
    assert lines[2].startswith("| Does SAM beat plain Adam? | SAM | 9 | 61.00 ± 12.71 | 50.00 ± 0.00 |")
    assert lines[3].startswith("|  | Adam | 9 | 58.50 ± 6.35 | 51.00 ± 0.00 |")
    assert lines[4].startswith("| | *difference* | | +2.50 ± 6.35 | -1.00 ± 0.00 |")
