import dataclasses
import json
import subprocess
import sys

import pytest

from experiments import run
from facejax.config import Config, ConfigError, DataConfig
from facejax.models import list_models
from facejax.tasks import TASKS
from tests.train.prepared import prepare_squares


@pytest.mark.parametrize("name", run.list_configs())
def test_every_config_resolves_and_says_what_it_reproduces(name):
    config = run.load_config(name)
    if not isinstance(config, Config):
        pytest.skip("trains no network: see test_protocols.py")
    assert config.model.backbone in list_models()
    assert {*config.model.tasks, *config.model.keep_heads} <= set(TASKS)
    assert config.paper.row
    module = __import__(f"experiments.configs.{name}", fromlist=["x"])
    assert f"python experiments/run.py --config {name}" in module.__doc__
    full = run.resolve(name, [("profile", "full")])
    assert dataclasses.replace(full, profile=config.profile) == config


def test_cpu_profile_is_applied_before_the_overrides():
    config = run.resolve("emotion_b2", [("stages.full.lr", "2e-5")])  # tests run on CPU
    assert config.profile == "cpu"
    assert config.model.image_size == Config().cpu.image_size
    assert config.stages.full.lr == 2e-5


def test_the_cpu_profile_itself_can_be_changed():
    config = run.resolve("emotion_b2", [("batch_size", "8"), ("cpu.image_size", "32"), ("cpu.full_epochs", "2")])
    assert (config.model.image_size, config.stages.full.epochs, config.batch_size) == (32, 2, 8)


@pytest.mark.parametrize("profile", ["auto", "cpu", "full"])
def test_a_profile_that_is_named_is_the_one_that_is_taken(profile):
    config = run.resolve("emotion_b2", [("stages.full.lr", "2e-5"), ("profile", profile)])
    expected = run.resolve("emotion_b2", [("stages.full.lr", "2e-5")])
    assert config.stages.full.lr == 2e-5
    assert (config == expected) == (profile != "full")
    assert config.profile == ("full" if profile == "full" else "cpu")


@pytest.mark.parametrize("name", run.list_configs())
def test_cpu_profile_leaves_out_the_stages_that_the_recipe_leaves_out(name):
    recipe, small = run.load_config(name), run.resolve(name, [])
    if not isinstance(recipe, Config):
        return
    for stage in ("head", "full"):
        if getattr(recipe.stages, stage).epochs == 0:
            assert getattr(small.stages, stage).epochs == 0


def test_random_weights_asked_for_leave_no_head_to_keep(tmp_path):
    overrides = [("model.init_from", "")]
    config = run.resolve("ethnicity_mobilenet", overrides)
    assert config.model.keep_heads
    assert not run.choose_start(config, overrides, tmp_path).model.keep_heads


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "emotion_b3"], "did you mean 'emotion_b2'"),
        (["--config", "emotion_b2", "--workdirs", "x"], "did you mean '--workdir'"),
        (["--config", "emotion_b2", "--config.seed"], "--config.seed needs a value"),
        (["--config", "emotion_b2", "--config.sed=1"], "did you mean 'seed'"),
    ],
)
def test_command_line_mistakes_name_the_mend(arguments, message):
    with pytest.raises(ConfigError, match=message):
        named, overrides = run.parse_arguments(arguments)
        run.resolve(named.config, overrides)


def test_set_named_on_the_command_line_must_be_prepared(tmp_path):
    overrides = [("data.name", "affectnet")]
    config = run.resolve("emotion_b2", overrides)
    with pytest.raises(FileNotFoundError, match=r"prepare_dataset\.py affectnet"):
        run.choose_data(config, overrides, tmp_path)


def test_workdir_of_another_config_is_refused(tmp_path):
    stages = dataclasses.replace(Config().stages, full=dataclasses.replace(Config().stages.full, lr=1.0))
    other = dataclasses.replace(Config(), stages=stages)
    for config in (other, Config(), Config()):  # nothing has begun yet
        run.check_workdir(config, tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"another config \(differs in stages.full.lr\)"):
        run.check_workdir(other, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["stages"]["full"]["lr"] == Config().stages.full.lr
    # What a message advises to a run that has begun.
    lenient = dataclasses.replace(Config(), data=dataclasses.replace(Config().data, on_corrupt="skip"))
    run.check_workdir(lenient, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["on_corrupt"] == "skip"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json is damaged"):
        run.check_workdir(Config(), tmp_path)


def test_a_workdir_holds_one_run_at_a_time(tmp_path):
    second = run.alone_in(tmp_path / "run")
    with run.alone_in(tmp_path / "run"), pytest.raises(ConfigError, match="another run writes to"):
        second.__enter__()
    with run.alone_in(tmp_path / "run"):
        pass


@pytest.mark.parametrize("arguments", [["--num_processes", "2"], ["--process_id", "0"]])
def test_a_process_of_several_needs_to_know_the_others(arguments, capsys):
    with pytest.raises(SystemExit):
        run.parse_arguments(["--config", "emotion_b2", *arguments])
    assert "need --coordinator HOST:PORT" in capsys.readouterr().err


def test_workdir_of_other_photos_is_refused(tmp_path):
    config = dataclasses.replace(Config(), data=DataConfig(name="imdb_wiki+adience"))
    for folder, size in (("data", 4), ("other", 5)):
        for name in ("imdb_wiki", "adience"):
            info = tmp_path / folder / name / "1.0.0" / "dataset_info.json"
            info.parent.mkdir(parents=True)
            info.write_text(str(size if name == "adience" else 4))
    (tmp_path / "old" / "best").mkdir(parents=True)  # begun before there was a data.json
    for _ in range(2):
        run.check_data(config, tmp_path / "data", tmp_path / "old")
    with pytest.raises(
        ConfigError, match=r"on other photos \(adience in .*other is .* name the --data_dir of that run"
    ):
        run.check_data(config, tmp_path / "other", tmp_path / "old")


@pytest.mark.parametrize(
    ("changes", "folder", "options", "crop"),
    [
        ({}, "people2_300_60x6", {"imbalance": "none", "same_people": False}, "mtcnn"),
        ({"model.tasks": "identity"}, "people2_300_60x6_same", {"same_people": True}, "mtcnn"),
        (
            {"data.people_imbalance": "affectnet", "data.people_crop": "centre"},
            "people2_300_60x6_affectnet_centre",
            {"imbalance": "affectnet"},
            "centre",
        ),
    ],
)
def test_built_in_set_is_prepared_as_the_config_says(tmp_path, monkeypatch, changes, folder, options, crop):
    asked = []
    monkeypatch.setattr("facejax.datasets.prepare.prepare_dataset", lambda *args, **more: asked.append((args, more)))
    overrides = [("data.people_train", "300"), ("data.people_validation", "60"), *changes.items()]
    assert run.prepare_people(run.resolve("emotion_b0", overrides), tmp_path) == tmp_path / folder
    (((name, raw, directory), more),) = asked
    assert (name, raw, directory, more["crop"]) == ("people", None, tmp_path / folder, crop)
    sizes = {"num_train": 300, "num_validation": 60, "photos_per_person": 6}
    assert more["reader_options"].items() >= (sizes | options).items()


def test_a_run_says_what_it_does_in_plain_lines_on_its_standard_output(tmp_path):
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text('{"seed": 7}')  # of another run: this one ends before it trains
    command = [sys.executable, "experiments/run.py", "--config", "emotion_b2", "--workdir", str(tmp_path / "run")]
    command += ["--config.data.name=facial_expressions", "--data_dir", str(prepare_squares(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=run.REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "holds a run of another config" in done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("config emotion_b2 on ") for line in lines), done.stdout
    assert any(line.startswith("trains on: facial_expressions") for line in lines)
