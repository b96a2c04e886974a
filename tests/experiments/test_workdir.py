"""What a workdir belongs to, and who has it locked."""

import dataclasses
import functools
import json
import threading
import time

import cv2
import numpy as np
import pytest

from experiments import run, workdir
from facejax.config import Config, ConfigError, DataConfig, PaperResult
from facejax.datasets.prepare import prepare_dataset
from facejax.locks import exclusive_lock
from facejax.overrides import flatten


def test_workdir_of_another_config_is_refused(tmp_path):
    stages = dataclasses.replace(Config().stages, full=dataclasses.replace(Config().stages.full, lr=1.0))
    other = dataclasses.replace(Config(), stages=stages)
    for config in (other, Config(), Config()):  # nothing has begun yet
        workdir.check_config(config, tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"another config \(differs in stages.full.lr\)"):
        workdir.check_config(other, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["stages"]["full"]["lr"] == Config().stages.full.lr
    # What a message advises for a run that has begun.
    data = dataclasses.replace(Config().data, on_corrupt="skip", num_train=1)
    lenient = dataclasses.replace(Config(), data=data, paper=PaperResult(row="of another name"), eval_batch_size=7)
    workdir.check_config(lenient, tmp_path)
    # From a version with one more field, of the same kind.
    older = dataclasses.asdict(Config())
    older["data"]["num_eval"] = 4000
    (tmp_path / "config.json").write_text(json.dumps(older))
    workdir.check_config(lenient, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["on_corrupt"] == "skip"
    # From one that lacked fields and behaved like their defaults.
    del older["seed"], older["model"]["global_pool"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    model = dataclasses.replace(lenient.model, global_pool="max")
    for changes, name in (({"seed": 1}, "seed"), ({"model": model}, "model.global_pool")):
        with pytest.raises(ConfigError, match=rf"another config \(differs in {name}\)"):
            workdir.check_config(dataclasses.replace(lenient, **changes), tmp_path)
    workdir.check_config(lenient, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json is damaged"):
        workdir.check_config(Config(), tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"checkpoints without their config.json: restore it"):
        workdir.check_config(Config(), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_only_fields_that_change_no_result_may_differ_in_a_run_that_has_begun(tmp_path):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    harmless = set()
    for path in flatten(Config()):
        before = dataclasses.asdict(Config())
        *groups, field = path.split(".")
        functools.reduce(dict.__getitem__, groups, before)[field] = "another"
        (tmp_path / "config.json").write_text(json.dumps(before))
        try:
            workdir.check_config(Config(), tmp_path)
        except ConfigError:
            continue
        harmless.add(path)
    paper = {f"paper.{field.name}" for field in dataclasses.fields(PaperResult)}
    assert harmless - paper == {
        "checkpoint.every_steps",
        "checkpoint.keep",
        "data.num_train",
        "data.on_corrupt",
        "data.read_threads",
        "eval_batch_size",
    }


@pytest.mark.parametrize("arguments", [["lfw_mobilenet"], ["emotion_mobilenet", "--config.data.name=affectnet"]])
def test_a_workdir_holds_one_run_at_a_time(arguments, tmp_path):
    with (
        exclusive_lock(tmp_path / "run"),
        pytest.raises(BlockingIOError, match=r"another process is writing to .*/run:"),
    ):
        run.main(["--config", *arguments, "--workdir", str(tmp_path / "run"), "--data_dir", str(tmp_path)])
    with exclusive_lock(tmp_path / "run"):
        pass


def test_who_waits_for_a_lock_gets_it_when_the_other_is_done(tmp_path):
    order = []

    def wait():
        with exclusive_lock(tmp_path, wait=True):
            order.append("waited")

    with exclusive_lock(tmp_path, wait=True):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        order.append("done")
    thread.join()
    assert order == ["done", "waited"]


@pytest.mark.parametrize("relabelled", [False, True])
def test_a_set_whose_labels_were_changed_is_another(tmp_path, relabelled):
    """Counts and sizes are the same then, as is everything in dataset_info.json."""
    (tmp_path / "raw" / "data").mkdir(parents=True)
    (tmp_path / "raw" / "images").mkdir()
    cv2.imwrite(str(tmp_path / "raw" / "images" / "A_B_0001.png"), np.zeros((8, 8, 3), np.uint8))
    for folder, emotion in (("data", "anger"), ("other", "fear" if relabelled else "anger")):
        (tmp_path / "raw" / "data" / "legend.csv").write_text(f"user.id,image,emotion\n1,A_B_0001.png,{emotion}\n")
        where = tmp_path / "raw", tmp_path / folder
        prepare_dataset("facial_expressions", *where, crop="none", workers=0, log=lambda line: None)
    infos = {path.read_text() for path in tmp_path.rglob("dataset_info.json")}
    assert len(infos) == 1
    (tmp_path / "run" / "best").mkdir(parents=True)
    config = dataclasses.replace(Config(), data=DataConfig(name="facial_expressions"))
    workdir.check_data(config, tmp_path / "data", tmp_path / "run")
    if relabelled:
        with pytest.raises(ConfigError, match="contains a run on other photos"):
            workdir.check_data(config, tmp_path / "other", tmp_path / "run")
    else:
        workdir.check_data(config, tmp_path / "other", tmp_path / "run")
    (summary,) = (tmp_path / "data").rglob("summary.json")
    summary.write_text("{")
    with pytest.raises(ConfigError, match=r"summary\.json is damaged .*: prepare the dataset again"):
        workdir.check_data(config, tmp_path / "data", tmp_path / "run")


def test_workdir_of_other_photos_is_refused(tmp_path):
    config = dataclasses.replace(Config(), data=DataConfig(name="imdb_wiki+adience"))
    for folder, size in (("data", 4), ("other", 5)):
        for name in ("imdb_wiki", "adience"):
            info = tmp_path / folder / name / "1.0.0" / "dataset_info.json"
            info.parent.mkdir(parents=True)
            info.write_text(str(size if name == "adience" else 4))
    (tmp_path / "old" / "best").mkdir(parents=True)  # begun before there was a data.json
    for _ in range(2):
        workdir.check_data(config, tmp_path / "data", tmp_path / "old")
    with pytest.raises(
        ConfigError, match=r"on other photos \(adience in .*other is .* give the --data_dir of that run"
    ):
        workdir.check_data(config, tmp_path / "other", tmp_path / "old")
