"""Batch normalisation with the activation after it, and a gradient of its own.

Flax's layer and the gradient that JAX derives from it compute the same values. Derived, the gradient reads the feature
maps in three reductions and keeps three maps a layer (the input, the normalised map, the activation's slope); here it
is two reductions, and the input alone is kept: what lies between is computed again, which costs less than memory does.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Activation = Callable[[jax.Array], jax.Array]
MOMENTUM = 0.9
# Of a part of a sum on a GPU. XLA cuts more than 4096 once more, and took 1.8 times as long (H100, maps of 112 px).
FEWEST_ROWS, MOST_ROWS = 256, 4096


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, then an activation.

    Parameters ``scale`` and ``bias``, statistics ``mean`` and ``var`` (channels,), as of `flax.linen.BatchNorm`.
    The running statistics keep 0.9 of the old value (``momentum`` 0.1 in PyTorch).
    Difference: PyTorch keeps the unbiased variance of a batch, Flax and this layer the biased one (n / (n - 1)).

    Attributes:
        use_running_average: Whether it reads its running statistics, or the batch's (and updates them).
        epsilon: Added to the variance.
        activation: What follows; None for nothing.
        dtype: Type of the result; statistics and products are float32.
    """

    use_running_average: bool
    epsilon: float
    activation: Activation | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
        """Normalises feature maps."""
        channels = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = jnp.asarray(self.param("scale", nn.initializers.ones, channels, jnp.float32))
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, channels, jnp.float32))
        if self.use_running_average:
            y = _normalize(x, mean.value, lax.rsqrt(var.value + self.epsilon), scale, bias)
            return (self.activation(y) if self.activation else y).astype(self.dtype)
        normalized: Any = normalize_batch(x, scale, bias, self.epsilon, self.activation)
        y, batch_mean, batch_var = normalized
        if not self.is_initializing():
            mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * batch_mean
            var.value = MOMENTUM * var.value + (1 - MOMENTUM) * batch_var
        return y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_batch(
    x: Float[Array, "*batch channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    epsilon: float,
    activation: Activation | None,
) -> tuple[Float[Array, "*batch channels"], Float[Array, " channels"], Float[Array, " channels"]]:
    """(activation(scale (x - mean) / sqrt(var + epsilon) + bias), mean, var) with the batch's mean and biased variance.

    All float32. The variance is E[x^2] - E[x]^2, as Flax's, so that one pass over x gives both.
    """
    return _forward(x, scale, bias, epsilon, activation)[0]


def _normalize(x, mean, inverse_std, scale, bias):
    mean, slope, bias = (_by_channel(v, x) for v in (mean, inverse_std * scale, bias))
    return (x.astype(jnp.float32) - mean) * slope + bias


def _by_channel(values, x):
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _forward(x, scale, bias, epsilon, activation):
    wide = x.astype(jnp.float32)
    places = x.size // x.shape[-1]
    total, total_of_squares = _two_sums(wide, jnp.square(wide))
    mean = total / places
    var = jnp.maximum(total_of_squares / places - jnp.square(mean), 0)
    inverse_std = lax.rsqrt(var + epsilon)
    y = _normalize(x, mean, inverse_std, scale, bias)
    return (activation(y) if activation else y, mean, var), (x, mean, inverse_std, scale, bias)


def _backward(epsilon, activation, residuals, cotangents):
    """With n the batch's number of places, x' the normalised input and dy the gradient before the activation,
    dx = scale / std (dy - mean(dy) - x' mean(dy x')) (Ioffe and Szegedy 2015, section 3), and what mean and var give.
    """
    x, mean, inverse_std, scale, bias = residuals
    # Or XLA would find again what the forward pass computed of x, and keep it in memory until here.
    x = lax.optimization_barrier(x)
    dy, dmean, dvar = cotangents
    # Both sums and dx are in terms of x, as the variance is: XLA would write x - mean to memory for its two uses.
    wide = x.astype(jnp.float32)
    places = x.size // x.shape[-1]
    slope = scale * inverse_std
    if jax.default_backend() == "gpu":
        # dy costs less to compute than to write and read: once for the sums, and once for dx in another form, or XLA
        # would see that they are the same.
        summed = _before(activation, _normalize(x, mean, inverse_std, scale, bias), dy)
        dbias, dot = _two_sums(summed, summed * wide)
        dy = _before(activation, _by_channel(slope, x) * wide + _by_channel(bias - mean * slope, x), dy)
    else:
        # Rounded like every other gradient between layers: it is read twice, and XLA keeps it in memory as it is.
        dy = _before(activation, _normalize(x, mean, inverse_std, scale, bias), dy).astype(x.dtype).astype(jnp.float32)
        dbias, dot = _two_sums(dy, dy * wide)
    dscale = (dot - mean * dbias) * inverse_std
    constant = (dmean - slope * dbias) / places
    linear = (2 * dvar - slope * inverse_std * dscale) / places
    dx = _by_channel(slope, x) * dy + _by_channel(linear, x) * wide + _by_channel(constant - linear * mean, x)
    return dx.astype(x.dtype), dscale, dbias


def _two_sums(a, b):
    """The sums of both over all axes but the last.

    On a GPU as one complex sum: for two sums of what is dear to compute XLA writes it to memory (its cost model counts
    it twice), for one it does not. On a CPU complex numbers are slow.
    """
    if jax.default_backend() == "gpu":
        of_parts = jnp.sum(lax.complex(a, b).reshape(-1, _rows_of_a_part(a.shape), a.shape[-1]), axis=1)
        # Taking the parts in between keeps XLA from making it one sum again.
        return of_parts.real.sum(axis=0), of_parts.imag.sum(axis=0)
    axes = tuple(range(a.ndim - 1))
    return jnp.sum(a, axes), jnp.sum(b, axes)


def _rows_of_a_part(shape: tuple[int, ...]) -> int:
    """Rows of channels that one block of a GPU sums: the pixels of one photo, so that what is the same for all of them
    is read once; of several where they are few; some rows of one where they are many.
    """
    photos, height, *_ = (*shape[:-1], 1, 1)
    pixels = math.prod(shape[1:-1])
    if pixels > MOST_ROWS:
        parts = (n for n in range(1, height) if height % n == 0 and pixels // n <= MOST_ROWS)
        return pixels // next(parts, height)
    photos //= math.gcd(photos, jax.device_count())  # no part lies on two devices
    return pixels * max(n for n in range(1, photos + 1) if photos % n == 0 and (n == 1 or pixels * n <= FEWEST_ROWS))


def _before(activation, y, dy):
    """The gradient before the activation of y, from that behind it."""
    return jax.vjp(activation, y)[1](dy)[0] if activation else dy


normalize_batch.defvjp(_forward, _backward)
