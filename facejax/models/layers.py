"""Building blocks that the networks share: convolution, squeeze-and-excitation, pooling.

Parameters and BatchNorm statistics are float32 throughout; `dtype` is the type that the products run in. Names of
modules and leaves follow timm's, so that foreign weights map by one rule (`facejax.weights.timm`).
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

# Up to this many input channels a convolution runs as a product of patches where depthwise ones run as shifts.
PATCH_INPUTS = 4

Dtype = Any
GlobalPool = Literal["avg", "max"]


def kernel_std(shape: tuple[int, ...]) -> float:
    """Standard deviation of freshly drawn weights, from the shape of the kernel.

    He's for convolutions (by outputs, as TensorFlow's EfficientNet and timm draw them; a depthwise filter, one input a
    group, has k * k of them), LeCun's for dense layers.
    """
    if len(shape) == 2:
        return math.sqrt(1 / shape[0])
    area, inputs, outputs = math.prod(shape[:-2]), shape[-2], shape[-1]
    return math.sqrt(2 / (area if inputs == 1 else area * outputs))


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    """Flax initialiser: normal with `kernel_std`."""
    return kernel_std(tuple(shape)) * jax.random.normal(key, shape, dtype)


class Backbone(nn.Module):
    """What every network of the registry is: normalised photos in, pooled penultimate features out.

    Subclasses define ``num_features`` and ``__call__(images, use_running_average) -> features``.

    Attributes:
        dtype: Compute type (float32 or bfloat16); the features are float32 either way.
        depthwise: Formulation of depthwise and 1 x 1 convolutions (`facejax.models.depthwise.resolve`). ``conv`` is
            what export to ONNX and LiteRT wants. Networks without such layers ignore it.
        global_pool: How the last feature maps become features: their mean or their maximum over the pixels.
    """

    dtype: Dtype = jnp.float32
    depthwise: Implementation = "auto"
    global_pool: GlobalPool = "avg"

    @property
    def num_features(self) -> int:
        """Width of the features."""
        raise NotImplementedError

    def starts_at_zero(self, path: tuple[str, ...]) -> bool:
        """Whether a scale (its path within the backbone) is 0 in a new network: the last one of residual branches.

        Such a branch starts as the identity, so that a deep network learns from its first steps (Goyal et al. 2017,
        section 5.1). Only networks that are trained from random weights notice; none by default.
        """
        del path
        return False

    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Pooled penultimate features of normalised photos (see `PretrainedCfg.preprocessing`).

        Args:
            images: Normalised photos.
            use_running_average: Whether BatchNorm reads its running statistics, or the batch's (and updates them).
        """
        raise NotImplementedError


@jax.custom_vjp
def product(x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*batch outputs"]:
    """Matrix product of every pixel's channels, with a gradient of the kernel that transposes the narrower array.

    For a product over pixels XLA on CPU writes its first operand to memory transposed. JAX derives the gradient with dy
    as the first: on 112 x 112 pixels, 16 -> 96 channels, that took five times as long.
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

    A 1 x 1 convolution runs as a matrix product where depthwise convolutions run as shifts (on CPU it is faster), and
    for maps of one pixel everywhere, with the same parameters. (On a GPU products over the pixels of odd-sided maps
    would be padded for the gradient of the kernel.)

    Attributes:
        features: Number of output channels.
        kernel_size: Side of the filters, or (height, width).
        stride: Same for both sides.
        padding: ``same`` (TensorFlow's rule), zeros on every side, or zeros for (top and bottom, left and right).
        use_bias: Whether there is a bias.
        groups: Number of groups of channels (not for depthwise: see `DepthwiseConv`).
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
            padding = "SAME" if self.padding == "same" else self._sides(x, size)
            y = lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=self.groups,
            )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None, None, None]
        return y

    def _sides(self, x: jax.Array, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Zeros before and after each side."""
        if self.padding == "same":
            return lax.padtype_to_pads(x.shape[1:3], size, (self.stride, self.stride), "SAME")
        both = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        return [(zeros, zeros) for zeros in both]

    def _as_patches(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The convolution of a photo's few channels as one matrix product over its patches.

        XLA's gradient of such a kernel on CPU is a naive loop: it took 8 % of EfficientNet-B2's training step.
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
        features: Number of output channels; ignored by a depthwise convolution, which keeps its input's.
        kernel_size: See `Conv`.
        stride: See `Conv`.
        padding: See `Conv`.
        depthwise: Whether the convolution is a depthwise one (then `kernel_size` and `padding` are numbers).
        epsilon: Of the BatchNorm.
        activation: Last step; None for none.
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
    """Channels scaled by a gate that sees their means: mean -> 1x1 -> activation -> 1x1 -> sigmoid.

    Attributes:
        reduced: Number of channels between the two 1 x 1 convolutions.
        activation: Between them.
        names: Names of the two convolutions (timm calls them differently in different families).
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
    """The product of x and sigmoid(logits), with a gradient that needs this product and not x.

    The convolution behind keeps the product until the backward pass anyway; x, the largest map of its block, is free as
    soon as it is read. With y = x sigmoid(l): dl = sum(dy x) sigmoid(l) (1 - sigmoid(l)) = sum(dy y) (1 - sigmoid(l)).
    """
    return x * nn.sigmoid(logits)


def _gated_forward(x, logits):
    gate = nn.sigmoid(logits)
    if jax.default_backend() == "cpu":
        # As rows of channels, which the product behind it wants: of a map XLA would form both, and keep both. The
        # barrier holds it from taking the rows' shape off again. (On a GPU x would be kept as well.)
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
    """Largest value in each window; `padding` ((top, bottom), (left, right)) never wins."""
    pairs: Any = padding  # Flax's annotation knows names only.
    return nn.max_pool(x, (size, size), (stride, stride), pairs)


@jax.jit
def mean_of_pixels(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch 1 1 channels"]:
    """Mean over the pixels; a function of its own, so that `facejax.export.onnx_layers` knows it by its name."""
    return jnp.mean(x, axis=(1, 2), keepdims=True)


def global_pool(x: Float[Array, "batch height width channels"], kind: GlobalPool) -> Float[Array, "batch channels"]:
    """Mean or maximum over the pixels, in float32."""
    x = x.astype(jnp.float32)
    return jnp.squeeze(mean_of_pixels(x), axis=(1, 2)) if kind == "avg" else jnp.max(x, axis=(1, 2))
