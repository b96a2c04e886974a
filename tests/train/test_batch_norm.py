import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.config import Config, DataConfig, ModelConfig
from facejax.data.source import FaceSource
from facejax.models import pretrained_cfg
from facejax.models.face_model import create_model, init_variables
from facejax.preprocessing import Preprocessing
from facejax.train.batch_norm import is_folded, restore_batch_norm
from facejax.train.setup import initial_variables, set_up
from facejax.weights.checkpoint import save_inference_checkpoint

from . import prepared


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return FaceSource(prepared.prepare_squares(tmp_path_factory.mktemp("squares"), 6), "facial_expressions", "train")


def folded_variables(model, size):
    """Random weights whose BatchNorm is only a bias, as in a frozen graph."""
    variables, rng = init_variables(model, 0, size), np.random.default_rng(0)

    def fold(path, leaf):
        if path[-1].key == "var":
            return np.full_like(leaf, 1 - 1e-3)
        return rng.normal(0, 0.1, leaf.shape).astype(np.float32) if path[-1].key == "bias" else leaf

    return jax.tree_util.tree_map_with_path(fold, variables)


def test_folded_layers_are_recognised():
    model = create_model("mobilenet_v1", ("emotion8",))
    assert is_folded(folded_variables(model, 32))
    assert not is_folded(init_variables(model, 0, 32))


@pytest.mark.parametrize("restore", [False, True])
def test_a_run_restores_batch_norm_where_the_config_says_so(source, tmp_path, restore):
    model = create_model("mobilenet_v1", ("gender",))
    cfg = dataclasses.replace(pretrained_cfg("mobilenet_v1"), tasks=("gender",), labels={}, num_classes={})
    save_inference_checkpoint(tmp_path / "folded", folded_variables(model, 32), cfg)
    wanted = ModelConfig(
        backbone="mobilenet_v1", init_from=str(tmp_path / "folded"), image_size=32, restore_batch_norm=restore
    )
    config = Config(
        model=wanted, data=DataConfig(name="facial_expressions", eval_split="train"), batch_size=8, eval_batch_size=8
    )
    setup = set_up(config, source.directory.parents[1], tmp_path / "run")
    assert is_folded(initial_variables(setup)) == (not restore)


def test_restored_network_computes_the_same_and_trains_on_batches(source):
    model, preprocessing = create_model("mobilenet_v1", ("emotion8",)), Preprocessing(image_size=32)
    folded = folded_variables(model, 32)
    restored = restore_batch_norm(model, folded, preprocessing, source, seed=0)
    assert not is_folded(restored)
    crops = [preprocessing.resize(source.read(index)["image"]) for index in range(len(source))]
    images = preprocessing.normalize(jnp.asarray(np.stack(crops)))
    features = jax.jit(lambda variables: model.apply(variables, images, method="features"))
    before, after = features(folded), features(restored)
    np.testing.assert_allclose(after, before, atol=2e-4 * float(jnp.abs(before).max()))

    @jax.jit
    def on_the_batch(variables):
        return model.apply(
            variables, images, train=True, use_running_average=False, mutable=["batch_stats"], method="features"
        )[0]

    # The whole dataset as one batch has nearly the measured statistics; with folded BatchNorm the result would differ.
    scale = float(jnp.abs(before).mean())
    assert float(jnp.abs(on_the_batch(restored) - before).mean()) < 0.1 * scale
    assert float(jnp.abs(on_the_batch(folded) - before).mean()) > 0.3 * scale
