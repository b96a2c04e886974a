import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import run
from facejax.config import Config, ConfigError, PaperResult
from facejax.data.source import FaceSource
from facejax.models import list_models, pretrained_cfg
from facejax.tasks import EMOTION8, TASKS
from tests.conftest import REPOSITORY
from tests.models.torchvision_stub import import_timm, skip_without
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


# Dropout between the pooled features and the classifier in the networks that the published code takes from timm, where
# it puts its own classifier; all others have none.
TIMM_DROPOUT = {"rexnet_150": 0.2}


@pytest.mark.parametrize("name", [name for name in run.list_configs() if name.startswith(("identity_", "emotion_"))])
def test_dropout_before_the_head_is_that_of_the_published_network(name):
    model = run.load_config(name).model
    assert model.dropout_rate == TIMM_DROPOUT.get(model.backbone, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_b0", "tf_efficientnet_b2", "rexnet_150", "inception_v3", "dm_nfnet_f0"]
)
def test_dropout_is_that_of_timm_itself(name):
    skip_without("timm")
    network = import_timm().create_model(name)
    rates = {module.p for module in network.modules() if type(module).__name__ == "Dropout"}
    rates.add(getattr(network, "drop_rate", 0.0))  # EfficientNet's is a function, not a module
    assert max(rates) == TIMM_DROPOUT.get(name, 0)


def test_cpu_profile_is_applied_before_the_overrides():
    config = run.resolve("emotion_b2", [("stages.full.lr", "2e-5")])  # tests run on CPU
    assert config.profile == "cpu"
    assert config.model.image_size == Config().cpu.image_size
    assert config.stages.full.lr == 2e-5


def test_classifiers_of_another_label_have_no_number_of_the_paper():
    config = run.resolve("utkface_ethnicity_mobilenet", [("fit", "gender")])
    assert (config.paper.logistic, config.paper.svc_rbf, config.paper.dataset) == (0, 0, "utkface")
    assert run.resolve("utkface_ethnicity_mobilenet", [("seed", "1")]).paper.svc_rbf == 87.7


def test_the_cpu_profile_itself_can_be_changed():
    config = run.resolve("emotion_b2", [("batch_size", "8"), ("cpu.image_size", "32"), ("cpu.full_epochs", "2")])
    assert (config.model.image_size, config.stages.full.epochs, config.batch_size) == (32, 2, 8)


@pytest.mark.parametrize(("platform", "why"), [("cpu", ", because there is no accelerator here"), ("gpu", "")])
def test_the_header_blames_no_missing_accelerator_where_there_is_one(platform, why, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(run.jax, "devices", lambda: [argparse.Namespace(device_kind="X", platform=platform)])
    with caplog.at_level("INFO", logger="facejax"):
        run.print_header("emotion_b2", run.resolve("emotion_b2", [("profile", "cpu")]), "people", tmp_path)
    assert f"CPU profile{why}: 48 px input, 1 epoch of the head" in caplog.text


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "emotion_b3"], "did you mean 'emotion_b2'"),
        (["--config", "emotion_b2", "--workdirs", "x"], "did you mean '--workdir'"),
        (["--config", "emotion_b2", "--config.seed"], "--config.seed needs a value"),
        (["--config", "emotion_b2", "--config.sed=1"], "did you mean 'seed'"),
        (["--config", "emotion_b2", "--config.seed=-1"], "--config.seed=-1: expected 0 to 4294967294"),
        (["--config", "emotion_b2", "--config.batch_size=0"], "--config.batch_size=0: expected 1 or more"),
        (["--config", "emotion_b2", "--config.stages.full.epochs=-1"], "stages.full.epochs=-1: expected 0 or more"),
        (["--config", "emotion_b2", "--config.model.backbone=resnet5"], "did you mean 'resnet18'"),
        (["--config", "lfw_b0", "--dry_run"], "--dry_run is for training; lfw_b0 trains no network"),
        (["--config", "video_afew_b0", "--profile", "3"], "--profile is for training"),
        (["--config", "emotion_b2", "--config.model.tasks=emotion9"], "no task called 'emotion9'; did you mean"),
        (["--config", "emotion_b2", "--config.model.tasks=age,age"], "task age is named twice in --config.model.tasks"),
        (["--config", "ethnicity_mobilenet", "--config.model.tasks=age"], "task age is named twice"),
        (["--config", "emotion_b2", "--config.batch_size=20"], "batch_size 20 is not a multiple of the 8 devices"),
        (
            ["--config", "emotion_b2", "--config.parallel=pmap", "--config.sharding=full"],
            "--config.sharding=full needs --config.parallel=jit",
        ),
        (
            ["--config", "emotion_b2", "--config.stages.head.epochs=0", "--config.stages.full.epochs=0"],
            "no stage has epochs: set --config.stages.head.epochs",
        ),
        (
            ["--config", "video_afew_b0", "--config.classifier.names=logistic,svm"],
            "classifier.names=svm: no such choice",
        ),
        (["--config", "video_afew_b0", "--config.classifier.costs="], "classifier.costs=: expected 1 or more"),
        (["--config", "video_afew_b0", "--config.classifier.costs=1,0"], "classifier.costs=0: expected 1e-06 or more"),
        (["--config", "video_afew_b0", "--config.descriptor.statistics=median"], "did you mean 'mean'"),
        (
            ["--config", "video_afew_b0", "--config.detection.thresholds=0.6,0.7"],
            "thresholds=0.6,0.7: expected 3 values",
        ),
        (["--config", "video_afew_b0", "--config.clips.every=0"], "clips.every=0: expected 1 or more"),
        (["--config", "video_afew_b0", "--config.clips.name=agew"], "did you mean 'afew'"),
        (["--config", "utkface_mobilenet", "--config.heads=agee,gender"], "did you mean 'age'"),
        (["--config", "utkface_mobilenet", "--config.group_by=gender,emotion"], "group_by=emotion: no such choice"),
        (
            ["--config", "emotion_b2", "--config.data.name=affectnt"],
            "data.name=affectnt: no such dataset; did you mean",
        ),
        (["--config", "emotion_b2", "--config.data.name="], "data.name=: no such dataset"),
        (["--config", "lfw_b0", "--config.repeats=0"], "repeats=0: expected 1 or more"),
        (["--config", "lfw_b0", "--config.folds=1"], "folds=1: expected 2 or more"),
        (["--config", "lfw_b0", "--config.pairs_per_fold=0"], "pairs_per_fold=0: expected 1 or more"),
        (["--config", "lfw_b0", "--config.crops=center"], "did you mean 'centre'"),
    ],
)
def test_command_line_mistakes_name_the_mend(arguments, message):
    with pytest.raises(ConfigError, match=message):
        named, overrides = run.parse_arguments(arguments)
        run.check(run.resolve(named.config, overrides), named)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A prepared `facial_expressions`."""
    return prepare_squares(tmp_path_factory.mktemp("squares"), people=12)


@pytest.mark.parametrize(
    ("config", "changes", "count"),
    [
        ("emotion_b0", {}, "3600 on the built-in dataset `people`, as affectnet is not prepared in "),
        ("emotion_b0", {"profile": "full"}, "287651 on affectnet, as published"),
        ("emotion_b0_7", {"profile": "full"}, "283901 on affectnet, as published"),
        ("emotion_b0", {"profile": "full", "data.name": "people", "data.people_train": "77"}, "77 on the built-in"),
        ("emotion_b0_7", {}, "3600 on the built-in dataset `people`, as affectnet is not prepared in "),
        ("emotion_b0", {"data.name": "facial_expressions"}, "8 on facial_expressions, prepared"),
        ("emotion_b0_7", {"data.name": "facial_expressions"}, "7 on facial_expressions, prepared"),
    ],
)
def test_a_dry_run_counts_the_photos_of_the_run(squares, monkeypatch, capsys, config, changes, count):
    monkeypatch.setattr("facejax.train.dry_run.matmul_rate", lambda dtype: 1.0)
    monkeypatch.setattr("facejax.train.dry_run.plan", lambda config, num_train, rate: num_train)
    monkeypatch.setattr("facejax.train.dry_run.format_plan", lambda plan, num_train, rate: f"{plan} {num_train}")
    run.print_plan(config, run.resolve(config, [*changes.items()]), squares)
    first, second = capsys.readouterr().out.splitlines()
    number, of = count.split(" ", 1)
    if "prepared" in of and "not" not in of:  # 8 or 7 expressions
        train = FaceSource(squares, "facial_expressions", "train").labels("emotion")
        assert (train == EMOTION8.index("contempt")).any()
        number = len(train) if number == "8" else int((train != EMOTION8.index("contempt")).sum())
    assert ("without a label for the tasks are left out" in first) == (config == "emotion_b0_7" and "people" in of)
    assert second == f"{number} {number}"
    assert of in first


def test_a_dry_run_names_a_split_that_is_not_there(squares):
    config = run.resolve("emotion_b0", [("data.name", "facial_expressions"), ("data.train_split", "trian")])
    with pytest.raises(ConfigError, match=r"facial_expressions.* has no split 'trian'"):
        run.print_plan("emotion_b0", config, squares)


def test_a_profile_is_of_a_number_of_steps(capsys):
    with pytest.raises(SystemExit):
        run.parse_arguments(["--config", "emotion_b2", "--profile", "-1"])
    assert "--profile -1: expected a number of steps" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--num_processes", "2"], ["--process_id", "0"]])
def test_a_process_of_several_needs_to_know_the_others(arguments, capsys):
    with pytest.raises(SystemExit):
        run.parse_arguments(["--config", "emotion_b2", *arguments])
    assert "need --coordinator HOST:PORT" in capsys.readouterr().err


def test_a_coordinator_needs_a_port():
    with pytest.raises(ConfigError, match="--coordinator localhost: expected HOST:PORT"):
        run.main(["--config", "emotion_b2", "--coordinator", "localhost", "--num_processes", "2", "--process_id", "0"])


def test_the_paper_s_row_is_of_its_network_and_of_the_task_that_the_config_puts_first():
    assert run.resolve("emotion_b0", []).paper.accuracy == 61.32
    assert run.resolve("emotion_b0", [("model.tasks", "emotion8,valence_arousal")]).paper.accuracy == 61.32
    for tasks in ("emotion7", "valence_arousal,emotion8"):
        assert run.resolve("emotion_b0", [("model.tasks", tasks)]).paper == PaperResult()
    assert run.resolve("emotion_b0", [("model.backbone", "mobilenet_v1")]).paper == PaperResult()


def test_each_model_has_the_card_of_its_epoch(tmp_path, monkeypatch):
    cfg = dataclasses.replace(pretrained_cfg("mobilenet_v1"), tag="toy", tasks=("gender",))
    report = {"data": "toy"}
    for number, epoch in enumerate(("best", "last")):
        (tmp_path / epoch).mkdir()
        (tmp_path / f"scores_{epoch}.npz").touch()
        report[epoch] = {"epoch": number, "dataset": "toy", "split": "validation", "tasks": {}}
    (tmp_path / "report.md").touch()
    setup = argparse.Namespace(cfg=cfg, tasks=(), eval_source=None)
    monkeypatch.setattr("facejax.train.setup.set_up", lambda *args: setup)
    monkeypatch.setattr("facejax.train.loop.train", lambda *args: None)
    monkeypatch.setattr("facejax.train.metrics_log.read_metrics", lambda *args: [])
    monkeypatch.setattr("facejax.evals.report.write_report", lambda *args: report)
    run.train_network(Config(), tmp_path, "toy", tmp_path, 0)
    for number, epoch in enumerate(("best", "last")):
        assert f"Epoch {number} ({epoch})" in (tmp_path / epoch / "MODEL_CARD.md").read_text()
    for path in (tmp_path / "best" / "MODEL_CARD.md", tmp_path / "scores_last.npz"):
        path.unlink()
    (tmp_path / "best").rmdir()
    for gone in ("best", "scores_last.npz"):  # a finished run that was tidied up is run again
        with pytest.raises(SystemExit, match=rf"{gone} was deleted; restore it, or run again with another --workdir"):
            run.train_network(Config(), tmp_path, "toy", tmp_path, 0)
        (tmp_path / "best").mkdir(exist_ok=True)


def test_a_run_says_what_it_does_in_plain_lines_on_its_standard_output(tmp_path):
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text('{"seed": 7}')  # of another run: this one ends before it trains
    command = [sys.executable, "experiments/run.py", "--config", "emotion_b2", "--workdir", str(tmp_path / "run")]
    command += ["--config.data.name=facial_expressions", "--data_dir", str(prepare_squares(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=run.REPOSITORY)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "contains a run of another config" in done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("config emotion_b2 on ") for line in lines), done.stdout
    assert any(line.startswith("trains on: facial_expressions") for line in lines)


@pytest.mark.skipif(not pathlib.Path("/sys/devices").is_dir(), reason="needs a folder that not even root may write to")
def test_a_folder_that_cannot_be_written_is_answered_with_the_options_that_name_another():
    command = [sys.executable, "experiments/run.py", "--config", "emotion_b2", "--workdir", "/sys/facejax"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=run.REPOSITORY)
    assert done.returncode == 1
    assert "'/sys/facejax'; choose writable folders with --workdir and --data_dir" in done.stderr.splitlines()[-1]


def test_a_report_is_printed_under_a_locale_that_is_not_utf_8(tmp_path):
    """Files are UTF-8 everywhere; under the C locale, without Python's own workaround, text is ASCII."""
    code = (
        "from experiments import run\n"
        "run.run_protocol = lambda config, workdir, data_dir: (workdir / 'report.md').write_bytes(b'3 \\xc2\\xb1 1')\n"
        f"run.main(['--config', 'lfw_mobilenet', '--workdir', {str(tmp_path)!r}])"
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-X", "utf8=0", "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | plain, capture_output=True, check=True)
    assert "3 ± 1\n" in done.stdout.decode()
