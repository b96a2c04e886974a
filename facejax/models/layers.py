"""Building blocks shared by the networks: convolution, squeeze-and-excitation, pooling.

Parameters and BatchNorm statistics are always float32; `dtype` is the type in which convolutions and products are
computed. Names of modules and leaves follow timm, so that a single rule maps third-party weights
(`facejax.weights.timm`).
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from facejax.models.depthwise import DepthwiseConv, Implementation, resolve
from facejax.models.normalization import Activation, BatchNorm

# Where depthwise convolutions run as shifts, convolutions of up to this many input channels run as patch products.
PATCH_INPUTS = 4

Dtype = Any
GlobalPool = Literal["avg", "max"]


def kernel_std(shape: tuple[int, ...]) -> float:
    """Standard deviation of randomly initialised weights, from the shape of the kernel.

    He initialisation for convolutions (by fan-out, as in TensorFlow's EfficientNet and timm; k * k for a depthwise
    filter, which has one input per group), LeCun initialisation for dense layers.
    """
    if len(shape) == 2:
        return math.sqrt(1 / shape[0])
    area, inputs, outputs = math.prod(shape[:-2]), shape[-2], shape[-1]
    return math.sqrt(2 / (area if inputs == 1 else area * outputs))


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """Flax initialiser: normal with `kernel_std`."""
    return kernel_std(tuple(shape)) * jax.random.normal(key, shape, dtype)


class Backbone(nn.Module):
    """Base class of the registered networks: takes normalised photos, returns pooled penultimate features.

    Subclasses define ``num_features`` and ``__call__(images, use_running_average) -> features``.

    Attributes:
        dtype: Compute type (float32 or bfloat16); the features are float32 either way.
        depthwise: Formulation of depthwise and 1 x 1 convolutions (`facejax.models.depthwise.resolve`). Export to ONNX
            and LiteRT needs ``conv``. Networks without such layers ignore it.
        global_pool: Global pooling of the last feature maps over the pixels: mean or maximum.
    """

    dtype: Dtype = jnp.float32
    depthwise: Implementation = "auto"
    global_pool: GlobalPool = "avg"

    @property
    def num_features(self) -> int:
        """Width of the features."""
        raise NotImplementedError

    def starts_at_zero(self, path: tuple[str, ...]) -> bool:
        """Whether the scale at `path` (within the backbone) is initialised to 0: the last one of residual branches.

        Residual blocks then start as the identity, so that a deep network learns from its first steps (Goyal et al.
        2017, section 5.1). This only affects networks that are trained from random weights. By default no scale is.
        """
        del path
        return False

    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Pooled penultimate features of normalised photos (see `PretrainedCfg.preprocessing`).

        Args:
            images: Normalised photos.
            use_running_average: Whether BatchNorm uses its running statistics, or the batch's (and updates them).
        """
        raise NotImplementedError


@jax.custom_vjp
def product(x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*batch outputs"]:
    """Matrix product over the channels of every pixel, with a kernel gradient that transposes the narrower array.

    For a product over pixels, XLA on CPU writes the first operand to memory transposed. In the gradient that JAX
    derives the first operand is dy: on 112 x 112 pixels, 16 -> 96 channels, that took five times as long.
    """
    return jnp.dot(x, kernel)


def _product_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    pixels = tuple(range(x.ndim - 1))

    def over_pixels(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.dot_general(a, b, ((pixels, pixels), ((), ())))

    dkernel = over_pixels(x, dy) if x.shape[-1] < dy.shape[-1] else over_pixels(dy, x).T
    return lax.dot_general(dy, kernel, (((x.ndim - 1,), (1,)), ((), ()))), dkernel


product.defvjp(lambda x, kernel: (jnp.dot(x, kernel), (x, kernel)), _product_backward)


class Conv(nn.Module):
    """Convolution; parameters ``kernel`` (k, k, in, out) and, with `use_bias`, ``bias`` (out,).

    A 1 x 1 convolution runs as a matrix product, with the same parameters, where depthwise convolutions run as shifts
    (it is faster on CPU), and on maps of a single pixel everywhere. (On a GPU, products over the pixels of odd-sided
    maps would be padded for the gradient of the kernel.)

    Attributes:
        features: Number of output channels.
        kernel_size: Side of the filters, or (height, width).
        stride: Stride along both sides.
        padding: ``same`` (TensorFlow's rule), zeros on every side, or zeros for (top and bottom, left and right).
        use_bias: Whether there is a bias.
        groups: Number of channel groups (not for depthwise convolutions: see `DepthwiseConv`).
        implementation: See `facejax.models.depthwise.resolve`.
        dtype: Compute type.
    """

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int = 1
    padding: Literal["same"] | int | tuple[int, int] = "same"
    use_bias: bool = False
    groups: int = 1
    implementation: Implementation = "auto"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Convolves feature maps."""
        size = (self.kernel_size, self.kernel_size) if isinstance(self.kernel_size, int) else self.kernel_size
        kernel = self.param("kernel", kernel_init, (*size, x.shape[-1] // self.groups, self.features), jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        is_product = size == (1, 1) and self.groups == 1 and self.padding in ("same", 0)
        is_vector = x.shape[1:3] == (1, 1) and self.implementation == "auto"
        if is_product and (is_vector or resolve(self.implementation) == "shift"):
            y = product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        elif x.shape[-1] <= PATCH_INPUTS and self.groups == 1 and resolve(self.implementation) == "shift":
            y = self._as_patches(x, kernel)
        else:
            y = lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                self._sides(x, size),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=self.groups,
            )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y

    def _sides(self, x: jax.Array, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Zero padding before and after each side."""
        if self.padding == "same":
            return lax.padtype_to_pads(x.shape[1:3], size, (self.stride, self.stride), "SAME")
        both = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        return [(zeros, zeros) for zeros in both]

    def _as_patches(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolution of a photo, which has few channels, as a single matrix product over its patches.

        On CPU, XLA computes the gradient of such a kernel in a naive loop: it took 8 % of EfficientNet-B2's training
        step.
        """
        height, width, _, _ = kernel.shape
        sides = self._sides(x, (height, width))
        rows, columns = (
            (n + sum(zeros) - k) // self.stride + 1
            for n, k, zeros in zip(x.shape[1:3], (height, width), sides, strict=True)
        )
        padded = jnp.pad(x, ((0, 0), *sides, (0, 0)))
        taps = [
            padded[:, i : i + (rows - 1) * self.stride + 1 : self.stride][
                :, :, j : j + (columns - 1) * self.stride + 1 : self.stride
            ]
            for i in range(height)
            for j in range(width)
        ]
        return product(jnp.concatenate(taps, axis=-1), kernel.reshape(-1, kernel.shape[-1]))


class ConvNormAct(nn.Module):
    """Convolution without bias (``conv``), BatchNorm (``bn``), activation.

    Attributes:
        features: Number of output channels; ignored by a depthwise convolution, which keeps the number of channels.
        kernel_size: See `Conv`.
        stride: See `Conv`.
        padding: See `Conv`.
        depthwise: Whether the convolution is depthwise (then `kernel_size` and `padding` must be integers).
        epsilon: Epsilon of the BatchNorm.
        activation: Activation after the BatchNorm; None for none.
        implementation: See `Conv`.
        dtype: Compute type.
    """

    features: int
    kernel_size: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] = 0
    depthwise: bool = False
    epsilon: float = 1e-5
    activation: Activation | None = nn.relu
    implementation: Implementation = "auto"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Applies the three steps."""
        options = {"implementation": self.implementation, "dtype": self.dtype, "name": "conv"}
        if self.depthwise:
            assert isinstance(self.kernel_size, int)
            assert isinstance(self.padding, int)
            x = DepthwiseConv(self.kernel_size, self.stride, self.padding, **options)(x)
        else:
            x = Conv(self.features, self.kernel_size, self.stride, self.padding, **options)(x)
        return BatchNorm(use_running_average, self.epsilon, self.activation, self.dtype, name="bn")(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channels scaled by a gate, mean -> 1x1 -> activation -> 1x1 -> sigmoid.

    Attributes:
        reduced: Number of channels between the two 1 x 1 convolutions.
        activation: Activation between them.
        names: Names of the two convolutions (timm's names differ between families).
        implementation: See `Conv`.
        dtype: Compute type.
    """

    reduced: int
    activation: Activation = nn.relu
    names: tuple[str, str] = ("fc1", "fc2")
    implementation: Implementation = "auto"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
        """Scales feature maps."""

        def conv(features: int, name: str) -> Conv:
            return Conv(features, 1, use_bias=True, implementation=self.implementation, dtype=self.dtype, name=name)

        squeezed = mean_of_pixels(x)
        hidden = self.activation(conv(self.reduced, self.names[0])(squeezed))
        return gated(x, conv(x.shape[-1], self.names[1])(hidden))


@jax.custom_vjp
def gated(
    x: Float[Array, "batch height width channels"], logits: Float[Array, "batch 1 1 channels"]
) -> Float[Array, "batch height width channels"]:
    """The product of x and sigmoid(logits), with a gradient that needs the product instead of x.

    The following convolution keeps the product until the backward pass anyway; x, the largest map of its block, can be
    freed once it is read. With y = x sigmoid(l): dl = sum(dy x) sigmoid(l) (1 - sigmoid(l)) = sum(dy y)
    (1 - sigmoid(l)).
    """
    return x * nn.sigmoid(logits)


def _gated_forward(x, logits):
    gate = nn.sigmoid(logits)
    if jax.default_backend() == "cpu":
        # Computed as rows of channels, the shape that the following product needs: given a map, XLA would compute and
        # keep both shapes. The barrier stops XLA from undoing the reshape. (On a GPU x would be kept as well.)
        rows = lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
        y = (rows * jnp.broadcast_to(gate, x.shape).reshape(rows.shape)).reshape(x.shape)
    else:
        y = x * gate
    return y, (y, gate)


def _gated_backward(residuals, dy):
    y, gate = residuals
    total = jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), axis=(1, 2), keepdims=True)
    return dy * gate, ((1 - gate.astype(jnp.float32)) * total).astype(gate.dtype)


gated.defvjp(_gated_forward, _gated_backward)


def max_pool(
    x: Float[Array, "batch height width channels"],
    size: int,
    stride: int,
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
) -> Float[Array, "batch out_height out_width channels"]:
    """Max pooling; the `padding` ((top, bottom), (left, right)) never wins."""
    pairs: Any = padding  # Flax's annotation only allows padding names.
    return nn.max_pool(x, (size, size), (stride, stride), pairs)


@jax.jit
def mean_of_pixels(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch 1 1 channels"]:
    """Mean over the pixels; a separate function so that `facejax.export.onnx_layers` can recognise it by its name."""
    return jnp.mean(x, axis=(1, 2), keepdims=True)


def global_pool(x: Float[Array, "batch height width channels"], kind: GlobalPool) -> Float[Array, "batch channels"]:
    """Mean or maximum over the pixels, in float32."""
    x = x.astype(jnp.float32)
    return jnp.squeeze(mean_of_pixels(x), axis=(1, 2)) if kind == "avg" else jnp.max(x, axis=(1, 2))
