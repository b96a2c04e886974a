"""Squeeze-and-excitation's gate against the gradient that JAX derives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from facejax.models.layers import SqueezeExcite, gated


def test_gradients_of_the_gate_are_those_of_the_plain_product():
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(3, 4, 5, 6)), jnp.float32) for _ in range(2))
    # Some are so low that the gate is 0 in float32, so dividing by it is not allowed.
    logits = jnp.asarray(rng.choice([-200.0, -2.0, 0.5, 40.0], (3, 1, 1, 6)), jnp.float32)
    y, pull = jax.vjp(gated, x, logits)
    expected, expected_pull = jax.vjp(lambda x, logits: x * nn.sigmoid(logits), x, logits)
    np.testing.assert_array_equal(y, expected)
    for got, want in zip(pull(dy), expected_pull(dy), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_squeeze_and_excitation_is_the_formula_of_the_paper():
    """Hu et al. 2018, equations 2 to 4, in NumPy."""
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 8)).astype(np.float32)
    module = SqueezeExcite(4)
    variables = module.init(jax.random.key(0), jnp.asarray(x))
    first, second = (variables["params"][name] for name in ("fc1", "fc2"))
    hidden = np.maximum(x.mean((1, 2)) @ np.asarray(first["kernel"])[0, 0] + np.asarray(first["bias"])[None], 0)
    gate = 1 / (1 + np.exp(-(hidden @ np.asarray(second["kernel"])[0, 0] + np.asarray(second["bias"])[None])))
    np.testing.assert_allclose(module.apply(variables, jnp.asarray(x)), x * gate[:, None, None], rtol=1e-5, atol=1e-6)
