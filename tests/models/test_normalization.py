"""Batch normalisation against Flax's layer: values, statistics and gradients, including those of the statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.models.normalization import BatchNorm, normalize_batch

EPSILON = 1e-3
ACTIVATIONS = {"none": None, "silu": nn.silu, "relu6": nn.relu6}


class Plain(nn.Module):
    """Flax's layer and the activation after it, with the same names of variables."""

    use_running_average: bool
    activation: object
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x):
        y = nn.BatchNorm(self.use_running_average, momentum=0.9, epsilon=EPSILON, dtype=self.dtype, name="bn")(x)
        return self.activation(y) if self.activation else y  # pyright: ignore


class Ours(nn.Module):
    use_running_average: bool
    activation: object
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x):
        return BatchNorm(self.use_running_average, EPSILON, self.activation, self.dtype, name="bn")(x)  # pyright: ignore


def draw(shape, seed=0):
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    # Means that are large compared with the deviations, as after a convolution with bias.
    x = rng.normal(rng.uniform(-3, 3, channels), rng.uniform(0.2, 2, channels), shape)
    params = {"scale": rng.uniform(0.5, 2, channels), "bias": rng.normal(size=channels)}
    stats = {"mean": rng.normal(size=channels), "var": rng.uniform(0.5, 2, channels)}
    variables = {"params": {"bn": params}, "batch_stats": {"bn": stats}}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, variables))


def pulled(module, x, variables, seed=1):
    """Result, new statistics, and the gradients of a random sum of both."""

    def run(x, variables):
        y, updates = module.apply(variables, x, mutable=["batch_stats"])
        return y, updates.get("batch_stats", variables["batch_stats"])

    out, pull = jax.vjp(run, x, variables)
    rng = np.random.default_rng(seed)
    cotangent = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), out)
    return out, pull(cotangent)


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    """Both formulations of the gradient and the sums, wherever the test runs."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


# The last two have photos with more rows than one GPU block sums, and several photos per block.
@pytest.mark.parametrize("use_running_average", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(4, 5, 3, 7), (6, 2), (2, 65, 65, 3), (6, 9, 9, 4)])
@pytest.mark.usefixtures("backend")
def test_values_statistics_and_gradients_are_those_of_flax(shape, name, use_running_average):
    x, variables = draw(shape)
    expected = pulled(Plain(use_running_average, ACTIVATIONS[name]), x, variables)
    got = pulled(Ours(use_running_average, ACTIVATIONS[name]), x, variables)
    # Each entry of dx is the difference of far larger sums if photos have many rows.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * max(1, np.abs(b).max())), got, expected
    )


def test_fresh_variables_are_those_of_flax():
    x, _ = draw((2, 3, 3, 5))
    expected, got = (module(False, None).init(jax.random.key(0), x) for module in (Plain, Ours))
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.usefixtures("backend")
def test_a_variance_is_never_below_zero():
    """In maps of one value a channel the mean of the squares less the square of the mean is nothing but rounding."""
    values = jnp.asarray(np.random.default_rng(0).uniform(100, 5000, 64), jnp.float32)
    x = jnp.broadcast_to(values, (5, 7, 9, 64))
    y, _, var = normalize_batch(x, jnp.ones(64), jnp.zeros(64), 1e-5, None)
    assert (var >= 0).all()
    assert np.isfinite(y).all()


@pytest.mark.usefixtures("backend")
def test_bfloat16_maps_have_float32_statistics():
    x, variables = draw((4, 6, 6, 3))
    x = x.astype(jnp.bfloat16)
    (y, stats), (dx, _) = pulled(Ours(False, nn.silu, jnp.bfloat16), x, variables)
    (expected, expected_stats), (expected_dx, _) = pulled(Plain(False, nn.silu, jnp.bfloat16), x, variables)
    assert (y.dtype, dx.dtype) == (jnp.bfloat16, jnp.bfloat16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stats, expected_stats)
    wide = [np.asarray(value, np.float32) for value in (y, expected, dx, expected_dx)]
    np.testing.assert_allclose(wide[0], wide[1], atol=0.05)
    np.testing.assert_allclose(wide[2], wide[3], atol=0.1)
