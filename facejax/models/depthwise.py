"""Depthwise convolution with one parameter layout and two formulations, chosen by platform in one place.

XLA's grouped convolution is fast on GPU and TPU and maps directly to ONNX and LiteRT, but on CPU it is a naive loop
whose gradient is many times slower. There the convolution is a sum of shifted, scaled copies of its input instead, with
a custom gradient: that of the input is computed by output phase (without multiplying by the zeros of a dilation), that
of the weights in blocks of rows. The many small terms use `lax`, which traces several times as fast as `jnp`.
"""

import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Implementation = Literal["auto", "conv", "shift"]
Padding = tuple[tuple[int, int], tuple[int, int]]

# Rows of a map that the weight gradient sums at a time.
MOST_ROWS = 8


def resolve(implementation: Implementation) -> Literal["conv", "shift"]:
    """Resolves ``auto`` to the formulation that is used: ``shift`` on CPU and ``conv`` everywhere else.

    The choice depends on JAX's default backend at trace time.
    """
    if implementation == "auto":
        return "shift" if jax.default_backend() == "cpu" else "conv"
    return implementation


def depthwise_conv(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "k k 1 channels"],
    stride: int,
    padding: Padding,
    implementation: Implementation = "auto",
) -> Float[Array, "batch out_height out_width channels"]:
    """Each channel convolved (cross-correlated) with its own k x k filter.

    Args:
        x: Images or feature maps.
        kernel: One filter per channel, in the HWIO layout of `lax.conv_general_dilated` with one input per group.
        stride: Stride along both sides.
        padding: Zero padding ((top, bottom), (left, right)).
        implementation: See `resolve`. Both give the same values and gradients up to rounding.
    """
    if resolve(implementation) == "shift":
        return shift_conv(x, kernel, stride, padding)
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shift_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """`depthwise_conv` as shifted multiply-adds; sums run in the wider of float32 and the input's type."""
    return _shift_conv_forward(x, kernel, stride, padding)[0]


def _shift_conv_forward(x, kernel, stride, padding):
    k = kernel.shape[0]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    out_height, out_width = ((n + sum(p) - k) // stride + 1 for n, p in zip(x.shape[1:3], padding, strict=True))
    # Without the barrier XLA reads x itself for the middle tap, and materialises it in addition to the padded array.
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *padding, (0, 0))))
    taps = kernel.astype(wide).reshape(k * k, -1)

    def term(i, j):
        source = lax.convert_element_type(_rows(padded, i, j, out_height, out_width, stride), wide)
        tap = lax.index_in_dim(taps, i * k + j, keepdims=False)
        return lax.mul(source, lax.broadcast_in_dim(tap, source.shape, (3,)))

    y = functools.reduce(lax.add, (term(i, j) for i in range(k) for j in range(k))).astype(x.dtype)
    # The gradient keeps the padded input, which is written for the sum above anyway; x itself need not be kept.
    return y, (padded, kernel)


def _shift_conv_backward(stride, padding, residuals, dy):
    padded, kernel = residuals
    shape = tuple(n - sum(zeros) for n, zeros in zip(padded.shape, ((0, 0), *padding, (0, 0)), strict=True))
    dx = _input_gradient(dy, kernel, stride, padding, shape)
    return dx, _kernel_gradient(padded, dy, kernel, stride)


shift_conv.defvjp(_shift_conv_forward, _shift_conv_backward)


def _rows(x, top, left, height, width, step):
    """x[:, top::step, left::step], `height` rows of `width` pixels."""
    batch, _, _, channels = x.shape
    limits = (batch, top + (height - 1) * step + 1, left + (width - 1) * step + 1, channels)
    return lax.slice(x, (0, top, left, 0), limits, (1, step, step, 1))


def _input_gradient(dy, kernel, stride, padding, shape):
    """Gradient of the input, without multiplications by the zeros of a dilated dy.

    Row p of the padded input contributes to output row o through tap i if p = stride o + i, so the rows with p = a (mod
    stride), phase a, are a plain convolution of dy with the taps a, a + stride, ... All phases form one array
    (batch, rows, stride, columns, stride, channels), whose axes are already in the order of the input's pixels. Phases
    with fewer taps than others are filled with zeros.
    """
    k = kernel.shape[0]
    wide = jnp.promote_types(dy.dtype, jnp.float32)
    batch, out_height, out_width, channels = dy.shape
    rows, columns = (-(-(n + sum(p)) // stride) for n, p in zip(shape[1:3], padding, strict=True))
    count = -(-k // stride)
    filled = jnp.pad(kernel[:, :, 0].astype(wide), ((0, count * stride - k), (0, count * stride - k), (0, 0)))
    taps = filled.reshape(count, stride, count, stride, channels)
    before = count - 1
    padded = jnp.pad(dy, ((0, 0), (before, max(rows - out_height, 0)), (before, max(columns - out_width, 0)), (0, 0)))

    shape_of_phases = (batch, rows, stride, columns, stride, channels)

    def term(i, j):
        source = lax.convert_element_type(_rows(padded, before - i, before - j, rows, columns, 1), wide)
        tap = lax.index_in_dim(lax.index_in_dim(taps, i, 0, keepdims=False), j, 1, keepdims=False)
        spread = lax.broadcast_in_dim(source, shape_of_phases, (0, 1, 3, 5))
        return lax.mul(spread, lax.broadcast_in_dim(tap, shape_of_phases, (2, 4, 5)))

    phases = functools.reduce(lax.add, (term(i, j) for i in range(count) for j in range(count)))
    dx = phases.reshape(batch, rows * stride, columns * stride, channels)
    (top, _), (left, _) = padding
    return _rows(dx, top, left, shape[1], shape[2], 1).astype(dy.dtype)


def _kernel_gradient(padded, dy, kernel, stride):
    """Gradient of the weights: for each tap the sum over photos and pixels of (shifted padded input * dy).

    If the photos are spread over several devices they are split into as many parts, so that each device loops over its
    own.
    """
    sums = functools.partial(_tap_sums, k=kernel.shape[0], stride=stride)
    parts = math.gcd(padded.shape[0], jax.device_count())
    if parts == 1:
        total = sums(padded, dy)
    else:
        total = jax.vmap(sums)(*(a.reshape(parts, -1, *a.shape[1:]) for a in (padded, dy))).sum(axis=0)
    return total.reshape(kernel.shape).astype(kernel.dtype)


@functools.partial(jax.jit, static_argnames=("k", "stride"))  # Traced once for all layers of the same shape.
def _tap_sums(padded, dy, k, stride):
    """(k * k, channels) sums over photos and pixels of (shifted padded input * dy).

    A plain reduction for each tap would read both arrays from memory k * k times, and XLA on CPU does not vectorise
    reductions over products. Instead a loop takes one block of rows at a time, which stays in the cache for all taps,
    and adds it row by row to one row of sums per tap. Rows are gathered, k * k of them at once: this takes one kernel
    per layer, where slices would take one per tap.
    """
    wide = jnp.promote_types(dy.dtype, jnp.float32)
    photos, out_height, out_width, channels = dy.shape
    rows = _rows_of_a_block(out_height)
    blocks = -(-out_height // rows)
    is_even = blocks * rows == out_height
    tap_row, tap_column = (jnp.asarray(index.ravel()) for index in np.indices((k, k)))
    numbers = lax.GatherDimensionNumbers((1, 2), collapsed_slice_dims=(0, 1), start_index_map=(0, 1, 2))

    def rows_of(a, photo, row, column, width, beyond):
        """One row for each tap: (k * k, width, channels); `beyond` is the gather mode for rows below the map."""
        starts = jnp.stack([jnp.broadcast_to(at, (k * k,)) for at in (photo, row, column)], axis=1)
        mode = "promise_in_bounds" if is_even else beyond
        values = lax.gather(a, starts, numbers, (1, 1, width, channels), mode=mode, fill_value=0)
        return lax.convert_element_type(values, wide)

    def add_block(sums, start):
        photo, first = start
        for n in range(rows):
            row = first + n
            span = (out_width - 1) * stride + 1
            x_rows = rows_of(padded, photo, row * stride + tap_row, tap_column, span, "clip")
            sums = sums + x_rows[:, ::stride] * rows_of(dy, photo, row, 0, out_width, "fill")
        return sums, None

    sums = jnp.zeros((k * k, out_width, channels), wide)
    photo, block = np.divmod(np.arange(photos * blocks, dtype=np.int32), blocks)
    return lax.scan(add_block, sums, (photo, block * np.int32(rows)))[0].sum(axis=1)


def _rows_of_a_block(height: int) -> int:
    """How many rows of a map are summed at a time: at most 8, and a divisor of the map's height if possible."""
    divisor = max(n for n in range(1, MOST_ROWS + 1) if height % n == 0)
    return divisor if divisor > 2 else -(-height // -(-height // MOST_ROWS))


class DepthwiseConv(nn.Module):
    """Depthwise convolution layer without bias; parameter ``kernel`` of shape (k, k, 1, channels).

    Attributes:
        kernel_size: Side k of the filters.
        stride: Stride along both sides.
        padding: ``same`` (TensorFlow's rule) or the number of zeros on every side.
        implementation: See `resolve`; the parameters do not depend on it.
        dtype: Compute type; the parameters are float32.
    """

    kernel_size: int
    stride: int = 1
    padding: Literal["same"] | int = "same"
    implementation: Implementation = "auto"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Convolves feature maps."""
        k = self.kernel_size
        # He initialisation: every filter has k * k inputs, which is the fan_in of this layout.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = jnp.asarray(self.param("kernel", init, (k, k, 1, x.shape[-1]), jnp.float32))
        if self.padding == "same":
            padding: Any = tuple(lax.padtype_to_pads(x.shape[1:3], (k, k), (self.stride, self.stride), "SAME"))
        else:
            padding = ((self.padding, self.padding), (self.padding, self.padding))
        return depthwise_conv(x.astype(self.dtype), kernel, self.stride, padding, self.implementation)
