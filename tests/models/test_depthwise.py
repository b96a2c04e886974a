"""Depthwise convolution: both formulations equal XLA's grouped convolution, values and gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.models.depthwise import DepthwiseConv, depthwise_conv, resolve, same_padding

SHAPES = [(7, 7), (9, 6), (14, 11), (17, 15), (5, 22)]  # below, at, between and above multiples of a block of rows


def grouped(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("explicit", [False, True])
def test_shift_equals_grouped_convolution_with_its_gradients(k, stride, explicit):
    rng = np.random.default_rng(k)
    with jax.enable_x64(True):
        for shape in SHAPES:
            x = jnp.asarray(rng.standard_normal((2, *shape, 3)))
            kernel = jnp.asarray(rng.standard_normal((k, k, 1, 3)))
            padding = tuple((1, 2) if explicit else same_padding(side, k, stride) for side in shape)
            expected, expected_vjp = jax.vjp(lambda a, b, p=padding: grouped(a, b, stride, p), x, kernel)
            actual, vjp = jax.vjp(lambda a, b, p=padding: depthwise_conv(a, b, stride, p, "shift"), x, kernel)
            np.testing.assert_allclose(actual, expected, atol=1e-12)
            dy = jnp.asarray(rng.standard_normal(expected.shape))
            for ours, theirs in zip(vjp(dy), expected_vjp(dy), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [(130, 2), (131, 2), (33, 1), (8, 2)])
def test_same_padding_is_tensorflows(size, stride):
    """XLA implements TensorFlow's rule as "SAME"."""
    (before, after), (above, below) = jax.lax.padtype_to_pads((size, size), (5, 3), (stride, stride), "SAME")
    assert same_padding(size, 5, stride) == (before, after)
    assert same_padding(size, 3, stride) == (above, below)


def test_layer_has_one_parameter_for_every_formulation():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 9, 9, 4)), jnp.float32)
    variables = DepthwiseConv(3, 2).init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"kernel": (3, 3, 1, 4)}}
    outputs = {i: DepthwiseConv(3, 2, implementation=i).apply(variables, x) for i in ("auto", "conv", "shift")}
    np.testing.assert_allclose(outputs["conv"], outputs["shift"], atol=1e-6)
    np.testing.assert_array_equal(outputs["auto"], outputs[resolve("auto")])


def test_bfloat16_sums_in_float32():
    """A sum of 25 bfloat16 products errs by far more than one rounding of the result."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((1, 12, 12, 8)), jnp.bfloat16)
    kernel = jnp.asarray(rng.standard_normal((5, 5, 1, 8)), jnp.float32)
    padding = ((2, 2), (2, 2))
    exact = grouped(x.astype(jnp.float32), kernel, 1, padding)
    actual = depthwise_conv(x, kernel, 1, padding, "shift")
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, exact.astype(jnp.bfloat16))
