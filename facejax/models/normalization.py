"""Batch normalisation fused with the activation that follows it, with a custom gradient.

It computes the same values as Flax's layer and the gradient that JAX derives from it. The derived gradient takes three
reductions over the feature maps and keeps three maps per layer (the input, the normalised map, the slope of the
activation). The custom gradient takes two reductions and keeps only the input: recomputing the intermediate values
costs less than the memory traffic.
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
# Rows per partial sum on a GPU. XLA splits more than 4096 again, which took 1.8 times as long (H100, maps of 112 px).
FEWEST_ROWS, MOST_ROWS = 256, 4096


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, then an activation.

    Parameters ``scale`` and ``bias``, statistics ``mean`` and ``var`` (channels,), as in `flax.linen.BatchNorm`.
    The running statistics keep 0.9 of the old value (``momentum`` 0.1 in PyTorch).
    Difference: PyTorch's running variance is unbiased, that of Flax and this layer is biased (n / (n - 1)).

    Attributes:
        use_running_average: Whether to use the running statistics, or those of the batch (and update them).
        epsilon: Added to the variance.
        activation: Activation after the normalisation; None for none.
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

    All float32. The variance is E[x^2] - E[x]^2, as in Flax, so that both take a single pass over x.
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
    """The gradients of x, scale and bias.

    With x' the normalised input and dy the gradient before the activation,
    dx = scale / std (dy - mean(dy) - x' mean(dy x')) (Ioffe and Szegedy 2015, section 3), plus the contributions of
    mean and var. The means are over all axes but the last.
    """
    x, mean, inverse_std, scale, bias = residuals
    # Without the barrier XLA would reuse what the forward pass computed from x, and keep it in memory until here.
    x = lax.optimization_barrier(x)
    dy, dmean, dvar = cotangents
    # Both sums and dx are written in terms of x, as the variance is: XLA would write x - mean to memory for its two
    # uses.
    wide = x.astype(jnp.float32)
    places = x.size // x.shape[-1]
    slope = scale * inverse_std
    if jax.default_backend() == "gpu":
        # dy costs less to compute than to write and read. It is computed once for the sums and once for dx, in another
        # form: otherwise XLA would merge the two.
        summed = _before(activation, _normalize(x, mean, inverse_std, scale, bias), dy)
        dbias, dot = _two_sums(summed, summed * wide)
        dy = _before(activation, _by_channel(slope, x) * wide + _by_channel(bias - mean * slope, x), dy)
    else:
        # Rounded like every other gradient between layers: it is read twice, and XLA stores it in this type.
        dy = _before(activation, _normalize(x, mean, inverse_std, scale, bias), dy).astype(x.dtype).astype(jnp.float32)
        dbias, dot = _two_sums(dy, dy * wide)
    dscale = (dot - mean * dbias) * inverse_std
    constant = (dmean - slope * dbias) / places
    linear = (2 * dvar - slope * inverse_std * dscale) / places
    dx = _by_channel(slope, x) * dy + _by_channel(linear, x) * wide + _by_channel(constant - linear * mean, x)
    return dx.astype(x.dtype), dscale, dbias


def _two_sums(a, b):
    """The sums of both over all axes but the last.

    On a GPU they are computed as one complex sum. If an expensive value goes into two sums, XLA writes it to memory
    (its cost model counts it twice); for a single sum it does not. On a CPU complex numbers are slow.
    """
    if jax.default_backend() == "gpu":
        of_parts = jnp.sum(lax.complex(a, b).reshape(-1, _rows_of_a_part(a.shape), a.shape[-1]), axis=1)
        # Taking the real and imaginary parts in between stops XLA from merging the two steps into one sum.
        return of_parts.real.sum(axis=0), of_parts.imag.sum(axis=0)
    axes = tuple(range(a.ndim - 1))
    return jnp.sum(a, axes), jnp.sum(b, axes)


def _rows_of_a_part(shape: tuple[int, ...]) -> int:
    """Number of rows of channels that one GPU block sums.

    These are the pixels of one photo, so that whatever they share is read once; of several photos if each has few
    pixels; or some of the rows of a photo if it has many.
    """
    photos, height, *_ = (*shape[:-1], 1, 1)
    pixels = math.prod(shape[1:-1])
    if pixels > MOST_ROWS:
        parts = (n for n in range(1, height) if height % n == 0 and pixels // n <= MOST_ROWS)
        return pixels // next(parts, height)
    photos //= math.gcd(photos, jax.device_count())  # no part spans two devices
    return pixels * max(n for n in range(1, photos + 1) if photos % n == 0 and (n == 1 or pixels * n <= FEWEST_ROWS))


def _before(activation, y, dy):
    """The gradient with respect to the activation's input y, from that of its output."""
    return jax.vjp(activation, y)[1](dy)[0] if activation else dy


normalize_batch.defvjp(_forward, _backward)
