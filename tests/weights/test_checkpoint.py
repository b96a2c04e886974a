"""Inference checkpoints: what is saved is loaded bit for bit, or the error says what does not fit."""

import dataclasses
import json
import os
import re
import shutil

import jax
import numpy as np
import pytest

from facejax.models import PretrainedCfg, init_variables, model_from_cfg, pretrained_cfg
from facejax.preprocessing import Preprocessing
from facejax.weights.checkpoint import load_inference_checkpoint, save_inference_checkpoint
from facejax.weights.folders import atomic_folder


@pytest.fixture(scope="module")
def cfg() -> PretrainedCfg:
    return dataclasses.replace(
        pretrained_cfg("resnet18"),
        tag="test",
        preprocessing=Preprocessing(64, channel_order="bgr"),
        tasks=("emotion8", "age", "gender", "identity"),
        num_classes={"identity": 3},
        labels={"identity": ("a", "b", "c")},
        shared_hidden=("age", "gender"),
    )


@pytest.fixture(scope="module")
def variables(cfg):
    return init_variables(model_from_cfg(cfg), seed=3, image_size=64)


def test_round_trip_is_exact_and_replaces_an_older_one(cfg, variables, tmp_path):
    directory = tmp_path / "some" / "model"
    save_inference_checkpoint(directory, jax.tree.map(np.zeros_like, variables), cfg)
    save_inference_checkpoint(directory, jax.tree.map(jax.numpy.asarray, variables), cfg)
    loaded, loaded_cfg = load_inference_checkpoint(directory)
    assert loaded_cfg == cfg
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded))
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert sorted(path.name for path in directory.parent.iterdir()) == ["model"]


def test_variables_of_another_model_are_refused(cfg, variables, tmp_path):
    with pytest.raises(ValueError, match=r"head_emotion7.*\n.*(\n.*)*head_emotion8"):
        save_inference_checkpoint(
            tmp_path / "model", variables, dataclasses.replace(cfg, tasks=("emotion7", *cfg.tasks[1:]))
        )
    assert not list(tmp_path.iterdir())


def test_foreign_folder_is_not_overwritten(cfg, variables, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        save_inference_checkpoint(tmp_path, variables, cfg)


def fill(folder, files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_files_of_others_stay_in_a_folder_that_is_replaced(tmp_path):
    fill(tmp_path / "a", {"model.json": '{"architecture": 1}', "notes.txt": "mine", "c.md": "old", "d.md": "old"})
    fill(tmp_path / "a", {"e.md": "old, of a name that older folders of this kind did not have"})
    fill(tmp_path / "a" / "inner", {"model.json": "another network"})
    with atomic_folder(tmp_path / "a", "model.json", "architecture", "c.md", "d.md") as folder:
        fill(folder, {"model.json": "new", "c.md": "new", "e.md": "new"})
    found = {path.relative_to(tmp_path / "a").as_posix(): path.read_text() for path in tmp_path.rglob("*.*")}
    assert found == {
        "model.json": "new",
        "c.md": "new",
        "e.md": "new",
        "notes.txt": "mine",
        "inner/model.json": "another network",
    }


@pytest.mark.parametrize("text", ['{"modelTopology": {}, "weightsManifest": []}', "[]", "{", None])
def test_a_folder_of_another_kind_is_not_replaced(tmp_path, text):
    """A file with the marker's name is not enough: TensorFlow.js has a model.json too."""
    fill(tmp_path / "a", {"group1-shard1of1.bin": "1", **({} if text is None else {"model.json": text})})
    before = {path: path.read_text() for path in (tmp_path / "a").iterdir()}
    with (
        pytest.raises(FileExistsError, match=r"has no model\.json of facejax: choose another folder"),
        atomic_folder(tmp_path / "a", "model.json", "architecture"),
    ):
        pass
    assert {path: path.read_text() for path in (tmp_path / "a").iterdir()} == before


@pytest.mark.parametrize("there", [False, True])
def test_of_two_writers_at_once_the_second_to_end_is_refused(there, tmp_path):
    if there:
        fill(tmp_path / "a", {"model.json": '{"architecture": 0}'})
    with (
        pytest.raises(FileExistsError, match=r"another process has written to .*/a meanwhile: choose another folder"),
        atomic_folder(tmp_path / "a", "model.json", "architecture") as second,
    ):
        fill(second, {"model.json": '{"architecture": 2}', "second": "2"})
        with atomic_folder(tmp_path / "a", "model.json", "architecture") as first:
            fill(first, {"model.json": '{"architecture": 1}'})
    assert {path.name: path.read_text() for path in tmp_path.rglob("*.*")} == {"model.json": '{"architecture": 1}'}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_interruption_between_the_two_renames_keeps_the_older_folder(tmp_path, monkeypatch):
    fill(tmp_path / "a", {"model.json": '{"architecture": 1}'})
    replace = os.replace

    def interrupted(source, target):
        if source.name == "new":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a", "model.json", "architecture") as folder:
        fill(folder, {"model.json": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "model.json").read_text() == '{"architecture": 1}'


def without_metadata(folder):
    (folder / "checkpoint" / "_METADATA").unlink()


def without_checkpoint(folder):
    shutil.rmtree(folder / "checkpoint")


def cut(folder):
    os.truncate(folder / "model.json", 50)


def edited(**values):
    def edit(folder):
        cfg = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**cfg, **values}))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_metadata, r"model/checkpoint is damaged or incomplete: copy or create the folder again"),
        (without_checkpoint, r"model/checkpoint is damaged or incomplete"),
        (cut, r"model/model\.json is damaged"),
        (edited(architecture="resnet81"), r"model/model\.json .* did you mean 'resnet18'"),
        (edited(global_pool="mean"), r"model/model\.json is damaged, or was edited"),
        (edited(num_features=7), r"num_features is 7, but resnet18 has 512"),
        (edited(labels={"emotion8": ["a", "b"]}), r"labels of emotion8 are \('a', 'b'\), expected 8 names"),
        (edited(labels={"emotion": ["a"]}), r"labels of an unknown task: 'emotion'; did you mean"),
        (edited(training_data=None), r"model/model\.json is damaged, or was edited"),
        (edited(preprocessing={"std": [0.0, 1.0, 1.0]}), r"positive numbers for std"),
        (edited(preprocessing=None), r"model/model\.json is damaged, or was edited"),
    ],
)
def test_a_damaged_folder_is_named(cfg, variables, tmp_path, damage, message):
    save_inference_checkpoint(tmp_path / "model", variables, cfg)
    damage(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        load_inference_checkpoint(tmp_path / "model")


def test_a_single_flipped_bit_in_any_file_is_detected(cfg, variables, tmp_path):
    save_inference_checkpoint(tmp_path / "model", variables, cfg)
    files = [path for path in (tmp_path / "model/checkpoint").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 3
    for path in files:
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"damaged or incomplete.*{path.name} has changed since it was written"):
            load_inference_checkpoint(tmp_path / "model")
        path.write_bytes(whole)
    load_inference_checkpoint(tmp_path / "model")


def test_a_checkpoint_without_hashes_is_loaded(cfg, variables, tmp_path):
    save_inference_checkpoint(tmp_path / "model", variables, cfg)
    (tmp_path / "model/sha256.json").unlink()  # older versions of facejax wrote none
    loaded, _ = load_inference_checkpoint(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": "32"}, "whole number of pixels, got '32'"),
        ({"mean": (1.0, 2.0)}, r"three finite numbers for mean, got \(1\.0, 2\.0\)"),
        ({"std": (1.0, 0.0, 1.0)}, "positive numbers for std"),
        ({"scale": float("nan")}, "a non-negative number for scale"),
        ({"margin": "x"}, "a non-negative number for margin"),
        ({"channel_order": "BGR"}, "no channel_order 'BGR'"),
        ({"interpolation": "bilinaer"}, "no interpolation 'bilinaer'; there are: nearest, bilinear"),
    ],
)
def test_mistyped_preprocessing_is_refused(values, message):
    preprocessing = Preprocessing()
    for name, value in values.items():  # not by the constructor, whose types are checked in the tests
        object.__setattr__(preprocessing, name, value)
    with pytest.raises(ValueError, match=message):
        preprocessing.__post_init__()


def test_a_link_stays_and_its_folder_is_filled(cfg, variables, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    save_inference_checkpoint(tmp_path / "link", variables, cfg)
    (tmp_path / "disk" / "mine.txt").write_text("mine")
    save_inference_checkpoint(tmp_path / "link", variables, cfg)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "mine.txt").read_text() == "mine"
    assert load_inference_checkpoint(tmp_path / "disk")[1] == cfg
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file is a file: choose a folder"):
        save_inference_checkpoint(tmp_path / "file", variables, cfg)


def test_missing_checkpoint_names_the_commands(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tools/convert_weights\.py"):
        load_inference_checkpoint(tmp_path)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=re.escape(f"did you mean {tmp_path / 'best'}?")):
        load_inference_checkpoint(tmp_path)


def test_cfg_survives_json_and_refuses_unknown_fields(cfg):
    assert PretrainedCfg.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    with pytest.raises(ValueError, match="did you mean 'licence'"):
        PretrainedCfg.from_dict({**cfg.to_dict(), "license": "MIT"})
    with pytest.raises(ValueError, match="did you mean 'image_size'"):
        PretrainedCfg.from_dict({**cfg.to_dict(), "preprocessing": {"imagesize": 3}})
