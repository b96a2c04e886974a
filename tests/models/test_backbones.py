"""Every registered backbone: exact size, features and logits of the reference implementation, gradients, bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.models import abstract_variables, create_model, list_models, pretrained_cfg
from facejax.weights.merge import merge_variables
from facejax.weights.timm import from_timm
from tools.make_goldens import CLASSES, GOLDEN, IMAGE_SIZES, random_images, random_state_dict, timm_outputs, timm_shapes

QUICK_COMPILE = {"xla_backend_optimization_level": 0}

# Parameters of the backbone without classifier: timm's count less the classifier's 1000 (features + 1).
PARAMETERS = {
    "tf_efficientnet_b0": 5_288_548 - 1_281_000,
    "tf_efficientnet_b2": 9_109_994 - 1_409_000,
}


@functools.cache
def converted(name):
    """Model with the classifier as its identity head, and its variables from the random state dict."""
    model = create_model(name, num_classes={"identity": CLASSES})
    target = abstract_variables(model, pretrained_cfg(name).preprocessing.image_size)
    state_dict = random_state_dict(timm_shapes(name))
    return model, merge_variables(target, from_timm(name, state_dict, head="identity")), state_dict


@functools.cache
def forward(name, dtype="float32"):
    model, _, _ = converted(name)
    return jax.jit(model.clone(backbone=model.backbone.clone(dtype=dtype)).apply, compiler_options=QUICK_COMPILE)


def relative(actual, expected) -> float:
    return float(np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected)))


def test_every_model_is_tested_and_described():
    assert set(list_models()) == set(PARAMETERS) == set(IMAGE_SIZES) == {path.stem for path in GOLDEN.glob("*.npz")}
    for name in [*list_models(), *list_models(pretrained=True)]:
        cfg = pretrained_cfg(name)
        assert cfg.name == name
        assert not cfg.tag or (cfg.source and cfg.licence and cfg.notes), f"{name} does not say where it comes from"


@pytest.mark.parametrize("name", PARAMETERS)
def test_size(name):
    model = create_model(name)
    cfg = pretrained_cfg(name)
    variables = abstract_variables(model, cfg.preprocessing.image_size)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]
    assert model.backbone.num_features == cfg.num_features


@pytest.mark.parametrize(
    ("name", "image_size"), [(name, size) for name, sizes in IMAGE_SIZES.items() for size in sizes]
)
def test_parity_with_the_reference(name, image_size):
    golden = np.load(GOLDEN / f"{name}.npz")
    _, variables, _ = converted(name)
    outputs = forward(name)(variables, jnp.asarray(random_images(image_size)))
    assert relative(outputs["features"], golden[f"features_{image_size}"]) <= 1e-4
    assert relative(outputs["identity"], golden[f"logits_{image_size}"]) <= 1e-4


@pytest.mark.parametrize("tensor", ["blocks.3.1.bn2.running_var", "blocks.5.0.se.conv_reduce.bias", "conv_stem.weight"])
def test_parity_fails_when_one_tensor_is_corrupted(tensor):
    name, image_size = "tf_efficientnet_b0", 75
    _, variables, state_dict = converted(name)
    corrupted = from_timm(name, {**state_dict, tensor: np.flip(state_dict[tensor])}, head="identity")
    outputs = forward(name)(merge_variables(variables, corrupted), jnp.asarray(random_images(image_size)))
    assert relative(outputs["features"], np.load(GOLDEN / f"{name}.npz")[f"features_{image_size}"]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_parity_with_timm_itself(name):
    """At the network's own input size, with the names and shapes that timm has today."""
    pytest.importorskip("timm")
    image_size = pretrained_cfg(name).preprocessing.image_size
    shapes, features, logits = timm_outputs(name, image_size)
    assert shapes == timm_shapes(name)
    _, variables, _ = converted(name)
    outputs = forward(name)(variables, jnp.asarray(random_images(image_size)))
    assert relative(outputs["features"], features) <= 1e-4
    assert relative(outputs["identity"], logits) <= 1e-4


@pytest.mark.parametrize("name", ["tf_efficientnet_b0"])
def test_bfloat16_is_close_and_features_stay_float32(name):
    _, variables, _ = converted(name)
    images = jnp.asarray(random_images(IMAGE_SIZES[name][-1]))
    features = forward(name, "bfloat16")(variables, images)["features"]
    reference = forward(name)(variables, images)["features"]
    assert features.dtype == jnp.float32
    assert 0 < relative(features, np.asarray(reference)) < 0.1


def test_every_parameter_gets_a_gradient_and_batch_stats_move():
    """Train mode, B0: the loss reaches each leaf; BatchNorm keeps 0.9 of its old statistics."""
    name = "tf_efficientnet_b0"
    model, variables, _ = converted(name)
    images = jnp.asarray(random_images(48))

    def loss(params):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        outputs, updated = model.apply(state, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(outputs["identity"])), updated["batch_stats"]

    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK_COMPILE)
    gradients, updated = gradient(variables["params"])
    silent = [path for path, leaf in jax.tree.leaves_with_path(gradients) if not np.any(leaf)]
    assert not silent, f"no gradient: {silent}"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    # The first BatchNorm's batch mean, recomputed from its input.
    kernel = jnp.asarray(variables["params"]["backbone"]["conv_stem"]["kernel"])
    stem = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    before = variables["batch_stats"]["backbone"]["bn1"]["mean"]
    np.testing.assert_allclose(
        updated["backbone"]["bn1"]["mean"], 0.9 * before + 0.1 * np.asarray(stem).mean((0, 1, 2)), atol=1e-6
    )
