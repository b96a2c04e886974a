"""MTCNN's three networks (Zhang et al. 2016) as Flax modules, equal to the Caffe originals.

Pixels come in as (value - 127.5) / 128, RGB. Channels stand last but in the input: there they stand first, as planes,
because the first convolution is written as multiply-adds of shifted planes. XLA's CPU convolution takes five to eight
times as long with three channels, which is half of MTCNN's work (`_shifted_convolution`).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Stands for "no pixel here" before a maximum. Finite, so that cells which nobody reads hold no NaN.
_MASKED = -1e9


def _prelu(x: Array, slope: Array) -> Array:
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


class ConvPReLU(nn.Module):
    """VALID convolution of square kernels, then PReLU with a slope for each channel."""

    features: int
    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w features"]:
        """Maps NHWC to NHWC."""
        kernel, bias, slope = _parameters(self, (self.size, self.size, x.shape[-1], self.features))
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return _prelu(x + bias.reshape(1, 1, 1, -1), slope.reshape(1, 1, 1, -1))


class DensePReLU(nn.Module):
    """Fully connected layer, then PReLU with a slope for each unit."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch features"]:
        """Maps rows to rows."""
        kernel, bias, slope = _parameters(self, (x.shape[-1], self.features))
        return _prelu(x @ kernel + bias.reshape(1, -1), slope.reshape(1, -1))


class PhaseStem(nn.Module):
    """P-Net's first layer: 3x3 convolution, PReLU, 2x2 maximum, computed for the four pixels of each 2x2 cell apart.

    Split into phases, no stage strides over pixels, which is what makes it quick on a CPU's vector units.
    """

    features: int

    @nn.compact
    def __call__(
        self, phases: Float[Array, "3 2 2 batch rows columns"], valid: Bool[Array, "2 2 batch rows columns"]
    ) -> Float[Array, "batch rows-1 columns-1 features"]:
        """Maps phases [channel, y % 2, x % 2, image, y // 2, x // 2] to the NHWC maps behind the maximum.

        Args:
            phases: Pixels.
            valid: Which outputs of the convolution take part in the maximum.
        """
        kernel, bias, slope = _parameters(self, (3, 3, 3, self.features))
        rows, columns = phases.shape[-2] - 1, phases.shape[-1] - 1
        best = None
        for p, q in ((0, 0), (0, 1), (1, 0), (1, 1)):

            def shifted(c: int, i: int, j: int, p: int = p, q: int = q) -> Array:
                y, x = (p + i) // 2, (q + j) // 2
                return phases[c, (p + i) % 2, (q + j) % 2, :, y : y + rows, x : x + columns]

            output = _shifted_convolution(shifted, kernel, bias, slope)
            output = jnp.where(valid[None, p, q, :, :rows, :columns], output, _MASKED)
            best = output if best is None else jnp.maximum(best, output)
        return jnp.transpose(best, (1, 2, 3, 0))


class CropStem(nn.Module):
    """First layer of R- and O-Net: 3x3 convolution, PReLU, 3x3 maximum with stride 2."""

    features: int

    @nn.compact
    def __call__(self, planes: Float[Array, "3 height width batch"]) -> Float[Array, "batch h w features"]:
        """Maps planes with the batch last (so that vector units run over the batch) to NHWC."""
        kernel, bias, slope = _parameters(self, (3, 3, 3, self.features))
        height, width = planes.shape[1] - 2, planes.shape[2] - 2
        x = _shifted_convolution(lambda c, i, j: planes[c, i : i + height, j : j + width], kernel, bias, slope)
        x = _max_pool(x, 3, 2, axes=(1, 2))
        # Fused into the maximum, XLA's transposition is a scalar loop and costs more than the whole layer.
        return jnp.transpose(jax.lax.optimization_barrier(x), (3, 1, 2, 0))


class PNet(nn.Module):
    """Proposal network: a fully convolutional 12-pixel window with stride 2."""

    @nn.compact
    def __call__(
        self, phases: Float[Array, "3 2 2 batch rows columns"], valid: Bool[Array, "2 2 batch rows columns"]
    ) -> tuple[Float[Array, "batch r c"], Float[Array, "batch r c 4"]]:
        """Probability of a face and box offsets for each window; r = rows - 5, c = columns - 5."""
        x = PhaseStem(10, name="conv1")(phases, valid)
        x = ConvPReLU(16, 3, name="conv2")(x)
        x = ConvPReLU(32, 3, name="conv3")(x)
        return _face_probability(nn.Dense(2, name="scores")(x)), nn.Dense(4, name="offsets")(x)


class RNet(nn.Module):
    """Refinement network on crops of 24 pixels."""

    @nn.compact
    def __call__(self, planes: Float[Array, "3 24 24 batch"]) -> tuple[Float[Array, " batch"], Float[Array, "batch 4"]]:
        """Probability of a face and box offsets of each crop."""
        x = CropStem(28, name="conv1")(planes)
        x = _max_pool(ConvPReLU(48, 3, name="conv2")(x), 3, 2, axes=(1, 2))
        x = ConvPReLU(64, 2, name="conv3")(x)
        x = DensePReLU(128, name="dense")(_flatten(x))
        return _face_probability(nn.Dense(2, name="scores")(x)), nn.Dense(4, name="offsets")(x)


class ONet(nn.Module):
    """Output network on crops of 48 pixels."""

    @nn.compact
    def __call__(
        self, planes: Float[Array, "3 48 48 batch"]
    ) -> tuple[Float[Array, " batch"], Float[Array, "batch 4"], Float[Array, "batch 10"]]:
        """Probability of a face, box offsets, and landmarks (five x, five y; parts of the crop) of each crop."""
        x = CropStem(32, name="conv1")(planes)
        x = _max_pool(ConvPReLU(64, 3, name="conv2")(x), 3, 2, axes=(1, 2))
        x = _max_pool(ConvPReLU(64, 3, name="conv3")(x), 2, 2, axes=(1, 2))
        x = ConvPReLU(128, 2, name="conv4")(x)
        x = DensePReLU(256, name="dense")(_flatten(x))
        return (
            _face_probability(nn.Dense(2, name="scores")(x)),
            nn.Dense(4, name="offsets")(x),
            nn.Dense(10, name="landmarks")(x),
        )


def _parameters(module: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """A layer's kernel, bias and PReLU slopes."""
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = module.param("bias", nn.initializers.zeros, shape[-1:])
    slope = module.param("slope", nn.initializers.constant(0.25), shape[-1:])
    return kernel, bias, slope


def _shifted_convolution(shifted: Callable[[int, int, int], Array], kernel: Array, bias: Array, slope: Array) -> Array:
    """Convolution and PReLU as a sum over kernel[i, j, c] * shifted(c, i, j); features stand first."""
    shape = (-1,) + (1,) * shifted(0, 0, 0).ndim
    total = bias.reshape(shape)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            for c in range(kernel.shape[2]):
                total = total + kernel[i, j, c].reshape(shape) * shifted(c, i, j)[None]
    return _prelu(total, slope.reshape(shape))


def _max_pool(x: Array, size: int, stride: int, axes: tuple[int, int]) -> Array:
    """Maximum over windows; the last window may hang over the edge (Caffe rounds the output's size up)."""
    window, strides, padding = [1] * x.ndim, [1] * x.ndim, [(0, 0)] * x.ndim
    for axis in axes:
        overhang = -(x.shape[axis] - size) % stride
        window[axis], strides[axis], padding[axis] = size, stride, (0, overhang)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, tuple(window), tuple(strides), padding)


def _flatten(x: Array) -> Array:
    """Rows in Caffe's order as trained in Matlab: width, height, channels."""
    return jnp.transpose(x, (0, 2, 1, 3)).reshape(x.shape[0], -1)


def _face_probability(logits: Array) -> Array:
    """Softmax over (no face, face), the second."""
    return jax.nn.sigmoid(logits[..., 1] - logits[..., 0])
