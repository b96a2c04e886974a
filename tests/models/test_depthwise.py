"""Depthwise convolution: both formulations equal XLA's grouped convolution, values and gradients, in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facejax.models.depthwise import DepthwiseConv, depthwise_conv, resolve, shift_conv

QUICK_COMPILE = {"xla_backend_optimization_level": 0}

# Output heights divisible by the weight gradient's blocks of rows, and others (17, where the last block is padded).
GRID = [
    *[(k, stride, (17, 6), "same") for k in (3, 5) for stride in (1, 2)],
    (3, 1, (14, 9), "same"),
    (3, 2, (6, 15), ((1, 2), (0, 1))),
    (3, 1, (3, 4), "same"),
    (5, 2, (3, 4), "same"),
    *[
        pytest.param(k, stride, shape, padding, marks=pytest.mark.slow)
        for k in (3, 5, 7)
        for stride in (1, 2, 3)
        for shape in ((7, 7), (9, 8), (13, 22), (28, 5))
        for padding in ("same", ((1, 2), (2, 0)))
    ],
]


def grouped(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize(("k", "stride", "shape", "padding"), GRID)
@pytest.mark.parametrize("photos", [3, 4], ids=["one part", "four parts"])
def test_shift_equals_grouped_convolution_with_its_gradients(k, stride, shape, padding, photos):
    rng = np.random.default_rng(k)
    if padding == "same":
        padding = tuple(jax.lax.padtype_to_pads(shape, (k, k), (stride, stride), "SAME"))

    def run(convolve, x, kernel, dy):
        outputs, vjp = jax.vjp(lambda a, b: convolve(a, b, stride, padding), x, kernel)
        return outputs, *vjp(dy)

    with jax.enable_x64(True):
        x = jnp.asarray(rng.standard_normal((photos, *shape, 3)))
        kernel = jnp.asarray(rng.standard_normal((k, k, 1, 3)))
        dy = jnp.asarray(rng.standard_normal(jax.eval_shape(lambda: grouped(x, kernel, stride, padding)).shape))
        both = jax.jit(lambda *args: (run(shift_conv, *args), run(grouped, *args)), compiler_options=QUICK_COMPILE)
        for ours, theirs in zip(*both(x, kernel, dy), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_weight_gradient_over_devices_sends_only_its_sums():
    """Each device loops over its own photos: one all-reduce, and no photo of another device."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_photo, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))

    def gradients(x, kernel):
        return jax.grad(lambda x, kernel: jnp.square(shift_conv(x, kernel, 2, ((1, 2), (1, 2)))).sum(), (0, 1))(
            x, kernel
        )

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 9, 9, 4), (5, 5, 1, 4))]
    placed = jax.jit(gradients, in_shardings=(by_photo, everywhere), out_shardings=(by_photo, everywhere))
    program = placed.lower(*shapes).compile(QUICK_COMPILE).as_text()
    sent = re.findall(r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", program)
    assert sent == ["all-reduce"]


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
    actual = jax.jit(lambda x, kernel: depthwise_conv(x, kernel, 1, padding, "shift"))(x, kernel)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, exact.astype(jnp.bfloat16))


def test_gradients_of_bfloat16_are_summed_in_float32():
    """Sums of 9 products for a pixel and of 4096 for a weight, each rounded once."""
    rng = np.random.default_rng(2)
    x, dy = (jnp.asarray(rng.uniform(0.5, 1, (4, 32, 32, 8)), jnp.bfloat16) for _ in range(2))
    kernel = jnp.asarray(rng.uniform(0.5, 1, (3, 3, 1, 8)), jnp.float32)

    def pulled(convolve, x, dy):
        return jax.vjp(lambda a, b: convolve(a, b, 1, ((1, 1), (1, 1))), x, kernel)[1](dy)

    exact_dx, exact_dkernel = pulled(grouped, x.astype(jnp.float32), dy.astype(jnp.float32))
    dx, dkernel = jax.jit(functools.partial(pulled, shift_conv))(x, dy)
    assert (dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_array_equal(dx, exact_dx.astype(jnp.bfloat16))
    np.testing.assert_allclose(dkernel, exact_dkernel, rtol=1e-5)


def test_fresh_filters_are_those_of_he():
    """Mean 0 and variance 2 / (k * k): every channel has inputs of its own only."""
    kernel = DepthwiseConv(3).init(jax.random.key(0), jnp.zeros((1, 3, 3, 4096)))["params"]["kernel"]
    assert np.mean(kernel) == pytest.approx(0, abs=0.01)
    assert np.var(kernel) == pytest.approx(2 / 9, rel=0.05)
