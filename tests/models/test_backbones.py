"""Every registered backbone: exact size, features and logits of the reference implementation, gradients, bfloat16."""

import functools
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.models import abstract_variables, create_model, efficientnet, init_variables, list_models, pretrained_cfg
from facejax.weights.keras import from_keras, keras_shapes
from facejax.weights.merge import merge_variables
from facejax.weights.timm import expected_tensors, from_timm
from tests.models.torchvision_stub import skip_without
from tools.make_goldens import CLASSES, GOLDEN, REFERENCES, keras_outputs, random_images, random_tensors, timm_outputs

QUICK_COMPILE = {"xla_backend_optimization_level": 0}

# Parameters of the backbone without classifier: the reference's count less the classifier's 1000 (features + 1).
PARAMETERS = {
    "inception_v3": 23_834_568 - 2_049_000,
    "mobilenet_v1": 3_206_976,  # Keras, include_top=False, trainable
    "nfnet_f0": 71_489_284 - 3_073_000,
    "resnet18": 11_689_512 - 513_000,
    "rexnet_150": 9_728_593 - 1_921_000,
    "senet50": 28_088_024 - 2_049_000,
    "tf_efficientnet_b0": 5_288_548 - 1_281_000,
    "tf_efficientnet_b2": 9_109_994 - 1_409_000,
    "vgg16": 138_357_544 - 4_097_000,
}

# VGG-16 does not support small images, and 119 million random weights take a while.
SIZES = [
    pytest.param(name, size, marks=[pytest.mark.slow] if name == "vgg16" or size != reference.image_sizes[-1] else [])
    for name, reference in REFERENCES.items()
    for size in reference.image_sizes
]


@functools.cache
def template(name):
    """Model (with the reference's classifier as its identity head), shapes of its variables."""
    model = create_model(name, num_classes={"identity": CLASSES} if REFERENCES[name].model else {})
    return model, abstract_variables(model, pretrained_cfg(name).preprocessing.image_size)


def reference_shapes(name):
    """Names and shapes of the reference's tensors that the converter expects."""
    if not (reference := REFERENCES[name]).model:
        return {tensor: shape for tensor, (_, shape) in keras_shapes(name).items()}
    features = pretrained_cfg(name).num_features
    classifier = {f"{reference.classifier}.weight": (CLASSES, features), f"{reference.classifier}.bias": (CLASSES,)}
    return {tensor: shape for tensor, (_, shape) in expected_tensors(name).items()} | classifier


def convert(name, tensors):
    convert = functools.partial(from_timm, head="identity") if REFERENCES[name].model else from_keras
    return merge_variables(template(name)[1], convert(name, tensors))


@functools.lru_cache(maxsize=1)
def converted(name):
    return convert(name, random_tensors(reference_shapes(name), REFERENCES[name].gain))


@functools.cache
def forward(name):
    return jax.jit(template(name)[0].apply, compiler_options=QUICK_COMPILE)


def relative(actual, expected) -> float:
    return float(np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected)))


def largest_difference(name, image_size, expected):
    """Largest difference of features and logits, relative to the largest value."""
    outputs = forward(name)(converted(name), jnp.asarray(random_images(image_size)))
    ours = {"features": outputs["features"], "logits": outputs.get("identity")}
    return max(relative(ours[key], value) for key, value in expected.items())


def test_every_model_is_tested_and_described():
    assert set(list_models()) == set(PARAMETERS) == set(REFERENCES) == {path.stem for path in GOLDEN.glob("*.npz")}
    for name in [*list_models(), *list_models(pretrained=True)]:
        cfg = pretrained_cfg(name)
        assert cfg.name == name
        assert not cfg.tag or (cfg.source and cfg.licence and cfg.notes), f"{name} does not say where it comes from"


@pytest.mark.parametrize("name", PARAMETERS)
def test_size(name):
    model, variables = template(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"]["backbone"])) == PARAMETERS[name]
    assert model.backbone.num_features == pretrained_cfg(name).num_features


@pytest.mark.parametrize(("name", "image_size"), SIZES)
def test_parity_with_the_reference(name, image_size):
    golden = np.load(GOLDEN / f"{name}.npz")
    expected = {key.removesuffix(f"_{image_size}"): golden[key] for key in golden if key.endswith(f"_{image_size}")}
    assert "features" in expected
    assert largest_difference(name, image_size, expected) <= 1e-4


@pytest.mark.parametrize("tensor", ["blocks.3.1.bn2.running_var", "blocks.5.0.se.conv_reduce.bias", "conv_stem.weight"])
def test_parity_fails_when_one_tensor_is_corrupted(tensor):
    name, image_size = "tf_efficientnet_b0", 75
    tensors = random_tensors(reference_shapes(name), REFERENCES[name].gain)
    outputs = forward(name)(
        convert(name, {**tensors, tensor: np.flip(tensors[tensor])}), jnp.asarray(random_images(image_size))
    )
    assert relative(outputs["features"], np.load(GOLDEN / f"{name}.npz")[f"features_{image_size}"]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_parity_with_the_reference_itself(name):
    """At the network's own input size, with the current names and shapes of the reference."""
    skip_without("timm" if REFERENCES[name].model else "keras")
    image_size = pretrained_cfg(name).preprocessing.image_size
    shapes, outputs = timm_outputs(name, image_size) if REFERENCES[name].model else keras_outputs(image_size)
    assert shapes == reference_shapes(name)
    assert largest_difference(name, image_size, outputs) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PARAMETERS if REFERENCES[name].model])
def test_parity_with_the_reference_that_pools_by_maximum(name):
    skip_without("timm")
    image_size = REFERENCES[name].image_sizes[-1]
    model = create_model(name, num_classes={"identity": CLASSES}, global_pool="max")
    ours = jax.jit(model.apply, compiler_options=QUICK_COMPILE)(converted(name), random_images(image_size))
    expected = timm_outputs(name, image_size, "max")[1]
    assert relative(ours["features"], expected["features"]) <= 1e-4
    assert relative(ours["identity"], expected["logits"]) <= 1e-4


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "tf_efficientnet_b0" else [pytest.mark.slow]) for name in PARAMETERS],
)
def test_the_last_step_is_the_pooling_asked_for(name):
    _, variables = template(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    backbone = create_model(name, global_pool="max").backbone
    own = {kind: leaves["backbone"] for kind, leaves in variables.items() if leaves}
    assert jax.make_jaxpr(backbone.apply)(own, images).eqns[-1].primitive.name == "reduce_max"


def check_gradients(model, variables, image_size):
    """Train mode: the loss reaches every leaf, and BatchNorm keeps 0.9 of its old statistics."""
    images = jnp.asarray(random_images(image_size))

    def loss(params):
        outputs, updated = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(outputs["identity"])), updated["batch_stats"]

    gradients, updated = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK_COMPILE)(variables["params"])
    silent = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradients) if not np.any(leaf)]
    assert not silent, f"no gradient: {silent}"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    return images, updated


@pytest.fixture
def short_efficientnet():
    """Variables of EfficientNet's stem, one block of each kind and the head."""
    with unittest.mock.patch.object(efficientnet, "STAGES", ((1, 3, 1, 1, 16), (1, 5, 2, 6, 24))):
        yield init_variables(create_model("tf_efficientnet_b0", num_classes={"identity": CLASSES}), 0, 33)


def test_bfloat16_is_close_and_features_stay_float32(short_efficientnet):
    images = jnp.asarray(random_images(33))

    def features(dtype):
        model = create_model("tf_efficientnet_b0", num_classes={"identity": CLASSES}, dtype=dtype)
        return jax.jit(model.apply, compiler_options=QUICK_COMPILE)(short_efficientnet, images)["features"]

    half, reference = features(jnp.bfloat16), features(jnp.float32)
    assert half.dtype == jnp.float32
    assert 1e-4 < relative(half, np.asarray(reference)) < 0.05


def test_gradients_and_batch_stats_of_a_short_efficientnet(short_efficientnet):
    model = create_model("tf_efficientnet_b0", num_classes={"identity": CLASSES}, depthwise="conv")
    images, updated = check_gradients(model, short_efficientnet, 33)
    # The first BatchNorm's batch mean, recomputed from its input.
    kernel = jnp.asarray(short_efficientnet["params"]["backbone"]["conv_stem"]["kernel"])
    stem = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = 0.1 * np.asarray(stem).mean((0, 1, 2))
    np.testing.assert_allclose(updated["backbone"]["bn1"]["mean"], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {"mobilenet_v1", "vgg16"}))
def test_every_parameter_gets_a_gradient(name):
    check_gradients(template(name)[0], converted(name), 107)
