"""Depthwise convolution with one parameter shape and two formulations, chosen by platform in one place.

XLA's grouped convolution is fast on GPU and TPU and is what ONNX and LiteRT understand, but on CPU it is a naive loop,
many times slower in its gradient. There the convolution is a sum of shifted, scaled copies of its input instead, with a
gradient of its own: the gradient of the input by output phase (no multiplications by the zeros of a dilation), the
gradient of the weights in blocks of rows.
"""

import functools
import operator
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Implementation = Literal["auto", "conv", "shift"]
Padding = tuple[tuple[int, int], tuple[int, int]]

ROWS_PER_BLOCK = 7


def resolve(implementation: Implementation) -> Literal["conv", "shift"]:
    """The formulation that runs: ``auto`` is ``shift`` on CPU and ``conv`` everywhere else.

    The choice is made when the function is traced, from JAX's default backend.
    """
    if implementation == "auto":
        return "shift" if jax.default_backend() == "cpu" else "conv"
    return implementation


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side of `size` pixels under TensorFlow's SAME rule (the odd one goes after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


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
        kernel: One filter a channel, in the layout of `lax.conv_general_dilated` with HWIO and one input a group.
        stride: Same for both sides.
        padding: Zeros ((top, bottom), (left, right)).
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
    k = kernel.shape[0]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    out_height, out_width = ((n + sum(p) - k) // stride + 1 for n, p in zip(x.shape[1:3], padding, strict=True))
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    total = None
    for i in range(k):
        for j in range(k):
            term = _rows(padded, i, j, out_height, out_width, stride).astype(wide) * _tap(kernel, i, j, wide)
            total = term if total is None else total + term
    assert total is not None
    return total.astype(x.dtype)


def _shift_conv_forward(x, kernel, stride, padding):
    return shift_conv(x, kernel, stride, padding), (x, kernel)


def _shift_conv_backward(stride, padding, residuals, dy):
    x, kernel = residuals
    return _input_gradient(dy, kernel, stride, padding, x.shape), _kernel_gradient(x, dy, kernel, stride, padding)


shift_conv.defvjp(_shift_conv_forward, _shift_conv_backward)


def _tap(kernel, i, j, dtype):
    return kernel[i, j].astype(dtype)[None, None]


def _rows(x, top, left, height, width, step, column_step=None):
    """x[:, top::step, left::column_step], `height` rows of `width` pixels."""
    column_step = step if column_step is None else column_step
    batch, _, _, channels = x.shape
    limits = (batch, top + (height - 1) * step + 1, left + (width - 1) * column_step + 1, channels)
    return lax.slice(x, (0, top, left, 0), limits, (1, step, column_step, 1))


def _input_gradient(dy, kernel, stride, padding, shape):
    """Gradient of the input, one output phase at a time.

    Row p of the padded input meets output row o through tap i when p = stride o + i, so the rows with p = a (mod
    stride) are a plain convolution of dy with the taps a, a + stride, ... The phases are interleaved at the end.
    """
    k = kernel.shape[0]
    wide = jnp.promote_types(dy.dtype, jnp.float32)
    batch, out_height, out_width, channels = dy.shape
    rows, columns = (-(-(n + sum(p)) // stride) for n, p in zip(shape[1:3], padding, strict=True))
    before = (k - 1) // stride
    padded = jnp.pad(dy, ((0, 0), (before, max(rows - out_height, 0)), (before, max(columns - out_width, 0)), (0, 0)))
    phases = []
    for a in range(stride):
        for b in range(stride):
            total = jnp.zeros((batch, rows, columns, channels), wide)
            for row, i in enumerate(range(a, k, stride)):
                for column, j in enumerate(range(b, k, stride)):
                    source = _rows(padded, before - row, before - column, rows, columns, 1)
                    total = total + source.astype(wide) * _tap(kernel, i, j, wide)
            phases.append(total)
    if stride == 1:
        interleaved = phases[0]
    else:
        by_row = [jnp.stack(phases[a * stride : (a + 1) * stride], axis=3) for a in range(stride)]
        interleaved = jnp.stack(by_row, axis=2).reshape(batch, rows * stride, columns * stride, channels)
    (top, _), (left, _) = padding
    return _rows(interleaved, top, left, shape[1], shape[2], 1).astype(dy.dtype)


def _kernel_gradient(x, dy, kernel, stride, padding):
    """Gradient of the weights: for each tap the sum over photos and pixels of (shifted input * dy).

    A plain reduction for each tap reads both arrays from memory k * k times. Two ways to do better, each where it is
    the faster one: 5 x 5 and larger filters reduce all taps in a single pass; 3 x 3 filters add `ROWS_PER_BLOCK` rows
    in registers before each reduction. Rows that do not fill a block are a block of their own, so that every image
    size is fast.
    """
    k = kernel.shape[0]
    wide = jnp.promote_types(dy.dtype, jnp.float32)
    _, out_height, out_width, _ = dy.shape
    # Or XLA would compute the layers on both sides anew for each of the many slices below.
    x, dy = lax.optimization_barrier((x, dy))
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    taps = [(i, j) for i in range(k) for j in range(k)]

    def product(i, j, top, count, rows):
        """Shifted input * dy over `count` output rows: top, top + rows, ..."""
        a = _rows(padded, top * stride + i, j, count, out_width, rows * stride, stride)
        return a.astype(wide) * _rows(dy, top, 0, count, out_width, rows, 1).astype(wide)

    if k >= 5:
        products = tuple(product(i, j, 0, out_height, 1) for i, j in taps)
        zeros = (jnp.zeros((), wide),) * len(taps)
        add = lambda a, b: tuple(map(operator.add, a, b))  # noqa: E731
        sums = lax.reduce(products, zeros, add, (0, 1, 2))
    else:
        blocks, rest = divmod(out_height, ROWS_PER_BLOCK)
        parts = [(0, ROWS_PER_BLOCK, blocks)] if blocks else []
        parts += [(blocks * ROWS_PER_BLOCK, rest, 1)] if rest else []

        def tap_sum(i, j):
            in_registers = [
                functools.reduce(operator.add, (product(i, j, first + row, count, rows) for row in range(rows)))
                for first, rows, count in parts
            ]
            return functools.reduce(operator.add, (jnp.sum(part, axis=(0, 1, 2)) for part in in_registers))

        sums = [tap_sum(i, j) for i, j in taps]
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


class DepthwiseConv(nn.Module):
    """Depthwise convolution layer without bias; parameter ``kernel`` of shape (k, k, 1, channels).

    Attributes:
        kernel_size: Side k of the filters.
        stride: Same for both sides.
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
        # He's: every filter sees k * k inputs, which is what fan_in counts in this layout.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = jnp.asarray(self.param("kernel", init, (k, k, 1, x.shape[-1]), jnp.float32))
        if self.padding == "same":
            padding = (same_padding(x.shape[1], k, self.stride), same_padding(x.shape[2], k, self.stride))
        else:
            padding = ((self.padding, self.padding), (self.padding, self.padding))
        return depthwise_conv(x.astype(self.dtype), kernel, self.stride, padding, self.implementation)
