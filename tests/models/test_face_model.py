"""Heads on a backbone, the registry's errors, and which switch does what in train mode."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from facejax.models import (
    FaceModel,
    abstract_variables,
    create_backbone,
    create_model,
    init_variables,
    list_models,
    pretrained_cfg,
    register_model,
)
from facejax.models.layers import Backbone, Conv, global_pool, kernel_std
from facejax.models.normalization import BatchNorm


class Tiny(Backbone):
    """One convolution with BatchNorm: a backbone at a millionth of the cost."""

    @property
    def num_features(self) -> int:
        return 6

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        x = nn.Conv(6, (3, 3), name="conv")(images)
        x = BatchNorm(use_running_average, 1e-3, nn.relu, self.dtype, name="bn")(x)
        return global_pool(x, self.global_pool)


def tiny(**kwargs):
    tasks = ("age", "gender", "emotion8")
    return FaceModel(Tiny(), tasks, shared_hidden=("age", "gender"), **kwargs)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((4, 10, 10, 3), np.float32)


def test_features_are_the_mean_or_the_maximum_over_the_pixels():
    maps = np.random.default_rng(0).standard_normal((2, 5, 4, 3), np.float32)
    np.testing.assert_allclose(global_pool(jnp.asarray(maps), "avg"), maps.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_array_equal(global_pool(jnp.asarray(maps), "max"), maps.max(axis=(1, 2)))
    assert global_pool(jnp.asarray(maps, jnp.bfloat16), "max").dtype == jnp.float32


def test_outputs_equal_the_layers_written_out(images):
    model = tiny()
    variables = init_variables(model, 1, 10)
    outputs = model.apply(variables, images)
    assert {name: output.shape for name, output in outputs.items()} == {
        "features": (4, 6),
        "age": (4, 100),
        "gender": (4, 1),
        "emotion8": (4, 8),
    }
    params = jax.tree.map(np.asarray, variables["params"])
    features = np.asarray(outputs["features"])
    hidden = np.maximum(features @ params["head_shared"]["kernel"] + params["head_shared"]["bias"], 0)
    for task, inputs in (("age", hidden), ("gender", hidden), ("emotion8", features)):
        logits = params[f"head_{task}"]["logits"]
        np.testing.assert_allclose(outputs[task], inputs @ logits["kernel"] + logits["bias"], rtol=1e-5, atol=1e-5)


def test_own_hidden_layer_without_sharing():
    params = abstract_variables(FaceModel(Tiny(), ("age", "gender")), 10)["params"]
    assert params["head_age"]["hidden"]["kernel"].shape == (6, 256)
    assert params["head_age"]["logits"]["kernel"].shape == (256, 100)
    assert set(params["head_gender"]) == {"logits"}


def test_shapes_are_their_caller_s_own_and_the_model_may_count_classes_in_any_mapping():
    model = FaceModel(Tiny(), ("identity",), {"identity": 3})
    abstract_variables(model, 10)["params"].clear()
    assert abstract_variables(model, 10)["params"]["head_identity"]["logits"]["kernel"].shape == (6, 3)
    more = FaceModel(Tiny(), ("identity",), {"identity": 4})
    assert abstract_variables(more, 10)["params"]["head_identity"]["logits"]["kernel"].shape == (6, 4)


def test_heads_train_on_cached_features(images):
    """The heads alone, without the backbone's variables, give the same outputs as the whole model."""
    model = tiny(dropout_rate=0.5)
    variables = init_variables(model, 1, 10)
    rngs = {"dropout": jax.random.key(7)}
    whole = model.apply(variables, images, train=True, use_running_average=True, rngs=rngs)
    features = model.apply(variables, images, method="features")
    heads = {"params": {name: leaf for name, leaf in variables["params"].items() if name != "backbone"}}
    cached = model.apply(heads, np.asarray(features), method="heads", train=True, rngs=rngs)
    for task, logits in cached.items():
        np.testing.assert_array_equal(logits, whole[task])
    plain = model.apply(heads, features, method="heads")
    assert not np.allclose(plain["emotion8"], cached["emotion8"])


def test_hidden_layers_drop_in_training():
    """Of 256 units that all say 1 about half are left, at twice their size; heads that share them lose the same."""
    hidden = {"kernel": jnp.zeros((6, 256)), "bias": jnp.ones(256)}
    logits = {name: {"kernel": jnp.ones((256, n)), "bias": jnp.zeros(n)} for name, n in (("age", 100), ("gender", 1))}
    own = FaceModel(Tiny(), ("age",), dropout_rate=0.5), {"head_age": {"hidden": hidden, "logits": logits["age"]}}
    shared = FaceModel(Tiny(), ("age", "gender"), shared_hidden=("age", "gender"), dropout_rate=0.5)
    heads = {f"head_{name}": {"logits": layer} for name, layer in logits.items()}
    for model, params in (own, (shared, {"head_shared": hidden, **heads})):
        for train in (False, True):
            rngs = {"dropout": jax.random.key(0)}
            said = model.apply({"params": params}, jnp.zeros((40, 6)), train, method="heads", rngs=rngs)
            (sums,) = {tuple(column.tolist()) for outputs in said.values() for column in outputs.T}
            assert (len(set(sums)) > 1) == train
            assert np.mean(sums) == pytest.approx(256, abs=10 * train)  # standard error 2.5


def test_dropout_and_batch_norm_are_switched_apart(images):
    model = tiny(dropout_rate=0.5)
    variables = init_variables(model, 1, 10)
    outputs, updated = model.apply(variables, images, train=False, use_running_average=False, mutable=["batch_stats"])
    assert not np.allclose(updated["batch_stats"]["backbone"]["bn"]["mean"], 0)
    again = model.apply(
        {**variables, **updated}, images, train=True, use_running_average=True, rngs={"dropout": jax.random.key(0)}
    )
    moved = model.apply({**variables, **updated}, images)
    np.testing.assert_array_equal(again["features"], moved["features"])
    assert not np.allclose(again["emotion8"], moved["emotion8"])
    assert not np.allclose(outputs["features"], moved["features"])


def test_kernels_are_drawn_as_he_and_le_cun_have_it():
    """Variance 2 / (k k outputs) for convolutions, 2 / (k k) for depthwise ones, 1 / inputs for dense layers."""
    variances = [kernel_std(shape) ** 2 for shape in ((3, 5, 32, 64), (1, 1, 16, 96), (5, 5, 1, 40), (20, 7))]
    assert variances == pytest.approx([2 / (15 * 64), 2 / 96, 2 / 25, 1 / 20])


def test_initial_values_have_the_layers_distribution():
    variables = init_variables(create_model("mobilenet_v1", ("age",)), 5, 32)
    backbone = variables["params"]["backbone"]
    for kernel in (backbone["conv_pw_13"]["kernel"], variables["params"]["head_age"]["hidden"]["kernel"]):
        np.testing.assert_allclose(kernel.std(), kernel_std(kernel.shape), rtol=0.02)
    assert abs(backbone["conv_dw_13"]["kernel"].std() / np.sqrt(2 / 9) - 1) < 0.03
    assert all(
        (variables["batch_stats"]["backbone"]["conv1_bn"]["var"] == 1, backbone["conv1_bn"]["scale"] == 1)[i].all()
        for i in (0, 1)
    )
    assert not (backbone["conv_dw_8"]["kernel"] == backbone["conv_dw_9"]["kernel"]).any()
    other = init_variables(create_model("mobilenet_v1"), 6, 32)["params"]["backbone"]
    assert not (backbone["conv_dw_8"]["kernel"] == other["conv_dw_8"]["kernel"]).any()
    same = init_variables(create_model("mobilenet_v1", ("age", "gender")), 5, 32)
    np.testing.assert_array_equal(
        same["params"]["head_age"]["hidden"]["kernel"], variables["params"]["head_age"]["hidden"]["kernel"]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("tf_eficientnet_b0"), "did you mean 'tf_efficientnet_b0'"),
        (lambda: create_model("tf_efficientnet_b0", ("emotion",)), "did you mean 'emotion"),
        (lambda: create_model("tf_efficientnet_b0", ("identity",)), r"num_classes=\{'identity': n\}"),
        (lambda: create_model("tf_efficientnet_b0", ("emotion8",), shared_hidden=("emotion8",)), "shared_hidden"),
        (lambda: create_model("resnet18", ("gender",), {"gender": 2}), r"'gender' has 1 outputs, got .*: 2"),
        (lambda: pretrained_cfg("tf_efficientnet_b0.ns_jft"), r"did you mean 'tf_efficientnet_b0\.ns_jft_in1k'"),
        (lambda: register_model(pretrained_cfg("tf_efficientnet_b0"))(Tiny), "without tag"),
    ],
)
def test_errors_name_what_was_meant(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_list_models_and_tags():
    assert list_models("tf_efficientnet_*") == ["tf_efficientnet_b0", "tf_efficientnet_b2"]
    assert "tf_efficientnet_b2.ns_jft_in1k" in list_models(pretrained=True)
    assert create_backbone("tf_efficientnet_b2.ns_jft_in1k") == create_backbone("tf_efficientnet_b2")
    assert create_backbone("tf_efficientnet_b0", dtype=jnp.bfloat16).dtype == jnp.bfloat16
    assert [pretrained_cfg(f"tf_efficientnet_{b}").preprocessing.image_size for b in ("b0", "b2")] == [224, 260]


@pytest.mark.parametrize(("name", "shortcuts"), [("tf_efficientnet_b0", 9), ("tf_efficientnet_b2", 16)])
def test_new_residual_branches_start_as_the_identity(name, shortcuts):
    """Blocks less stages with one block: 16 - 7 in B0, 23 - 7 in B2; every other scale is 1."""
    params = init_variables(create_model(name), 0, 32)["params"]["backbone"]
    scales = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "scale"]
    assert sum((scale == 0).all() for scale in scales) == shortcuts
    assert sum((scale == 1).all() for scale in scales) == len(scales) - shortcuts


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, "same"), (3, 1, 1), (7, 2, 3), ((1, 5), 1, (0, 2))])
def test_convolution_as_patches_is_the_convolution(size, stride, padding):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 11, 14, 3)), jnp.float32)
    layers = [Conv(5, size, stride, padding, implementation=name) for name in ("shift", "conv")]
    variables = layers[0].init(jax.random.key(0), images)

    def run(layer):
        def loss(variables, images):
            return (layer.apply(variables, images) ** 2).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables, images)

    def check(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)

    jax.tree.map(check, *map(run, layers))
