"""Inference checkpoints: what is saved comes back, bit for bit, or the error says what does not fit."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from facejax.models import PretrainedCfg, init_variables, model_from_cfg, pretrained_cfg
from facejax.preprocessing import Preprocessing
from facejax.weights.checkpoint import load_inference_checkpoint, save_inference_checkpoint


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


def test_missing_checkpoint_names_the_commands(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tools/convert_weights\.py"):
        load_inference_checkpoint(tmp_path)


def test_cfg_survives_json_and_refuses_unknown_fields(cfg):
    assert PretrainedCfg.from_dict(json.loads(json.dumps(cfg.to_dict()))) == cfg
    with pytest.raises(ValueError, match="did you mean 'licence'"):
        PretrainedCfg.from_dict({**cfg.to_dict(), "license": "MIT"})
    with pytest.raises(ValueError, match="did you mean 'image_size'"):
        PretrainedCfg.from_dict({**cfg.to_dict(), "preprocessing": {"imagesize": 3}})
