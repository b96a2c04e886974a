"""MTCNN's three networks (Zhang et al. 2016) as Flax modules, equivalent to the Caffe originals.

Images are NHWC, RGB, (value - 127.5) / 128. Convolutions with few channels are half of MTCNN's work and slow in XLA on
CPU, which needs many input and output channels to be efficient. They are therefore computed over pairs and squares of
neighbouring pixels (`_convolve_cells`, `PairedConvPReLU`), which takes half the time although some products are with
zeros.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Value of missing pixels before a max pooling. Finite, so that unused cells do not become NaN.
_MASKED = np.float32(-1e9)
# Products in float32 on every device: by default a GPU rounds their factors to 10 bits and a TPU to 7, which would
# change the detections.
_PRECISION = jax.lax.Precision.HIGHEST


def _prelu(x: Array, slope: Array) -> Array:
    slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


class ConvPReLU(nn.Module):
    """VALID convolution with square kernels, then PReLU with a slope per channel."""

    features: int
    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w features"]:
        """Maps NHWC to NHWC."""
        kernel, bias, slope = _parameters(self, (self.size, self.size, x.shape[-1], self.features))
        return _prelu(_convolve(x, kernel) + bias.reshape(1, 1, 1, -1), slope)


class PairedConvPReLU(nn.Module):
    """3 x 3 `ConvPReLU` for few channels: two neighbouring outputs are computed at once, from two pairs of pixels.

    The kernel of a pair covers 3 x 4 pixels, one column of which is zero for each output.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w features"]:
        """Maps NHWC to NHWC."""
        kernel, bias, slope = _parameters(self, (3, 3, x.shape[-1], self.features))
        pair = jnp.stack([jnp.pad(kernel, ((0, 0), (q, 1 - q), (0, 0), (0, 0))) for q in (0, 1)], axis=3)
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, 0), (0, width % 2), (0, 0))).reshape(batch, height, -1, 2 * channels)
        y = _convolve(x, pair.reshape(3, 2, 2 * channels, -1)).reshape(batch, height - 2, -1, self.features)
        return _prelu(y[:, :, : width - 2] + bias.reshape(1, 1, 1, -1), slope)


class WindowStem(nn.Module):
    """P-Net's first layer: 3 x 3 convolution, PReLU, 2 x 2 max pooling."""

    features: int

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], valid: Bool[Array, "batch height width"] | None
    ) -> Float[Array, "batch height/2-1 width/2-1 features"]:
        """Maps images with even sides to the NHWC maps after the max pooling.

        Args:
            images: Pixels.
            valid: Which outputs of the convolution the max pooling includes, by their first pixel; None for all.
        """
        kernel, bias, slope = _parameters(self, (3, 3, 3, self.features))
        outputs = jnp.split(_convolve_cells(images, kernel), 4, axis=-1)
        outputs = [_prelu(y + bias.reshape(1, 1, 1, -1), slope) for y in outputs]
        if valid is not None:
            batch, height, width = valid.shape
            cells = valid.reshape(batch, height // 2, 2, width // 2, 2)[:, :-1, :, :-1, :, None]
            masks = (cells[:, :, p, :, q] for p in (0, 1) for q in (0, 1))
            outputs = [jnp.where(mask, y, _MASKED) for mask, y in zip(masks, outputs, strict=True)]
        top_left, top_right, bottom_left, bottom_right = outputs
        return jnp.maximum(jnp.maximum(top_left, top_right), jnp.maximum(bottom_left, bottom_right))


class CropStem(nn.Module):
    """First layer of R- and O-Net: 3 x 3 convolution, PReLU, 3 x 3 max pooling with stride 2."""

    features: int

    @nn.compact
    def __call__(
        self, crops: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch height/2-1 width/2-1 features"]:
        """Maps crops with even sides to the NHWC maps after the max pooling, whose last windows overhang the edge."""
        kernel, bias, slope = _parameters(self, (3, 3, 3, self.features))
        # Channels are padded to full vectors for each of the four outputs, which are all computed before the max
        # pooling reads them at nine positions.
        lanes = (0, -self.features % 16)
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), lanes))
        bias, slope = (jnp.tile(jnp.pad(values, lanes), 4) for values in (bias, slope))
        y = _prelu(_convolve_cells(crops, kernel) + bias.reshape(1, 1, 1, -1), slope)
        top_left, top_right, bottom_left, bottom_right = jnp.split(y, 4, axis=-1)

        def following(x: Array, axis: int) -> Array:
            return jax.lax.pad(x, _MASKED, [(-1, 1, 0) if i == axis else (0, 0, 0) for i in range(4)])

        top = jnp.maximum(jnp.maximum(top_left, top_right), following(top_left, 2))
        bottom = jnp.maximum(jnp.maximum(bottom_left, bottom_right), following(bottom_left, 2))
        return jnp.maximum(jnp.maximum(top, bottom), following(top, 1))[..., : self.features]


class DensePReLU(nn.Module):
    """Fully connected layer, then PReLU with a slope per unit."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch inputs"]) -> Float[Array, "batch features"]:
        """Maps rows to rows."""
        kernel, bias, slope = _parameters(self, (x.shape[-1], self.features))
        return _prelu(jnp.dot(x, kernel, precision=_PRECISION) + bias.reshape(1, -1), slope)


class PNet(nn.Module):
    """Proposal network: fully convolutional, with a window of 12 pixels and stride 2."""

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], valid: Bool[Array, "batch height width"] | None = None
    ) -> tuple[Float[Array, "batch height/2-5 width/2-5"], Float[Array, "batch height/2-5 width/2-5 4"]]:
        """Face probability and box offsets for each window; see `WindowStem` for the arguments."""
        x = WindowStem(10, name="conv1")(images, valid)
        x = PairedConvPReLU(16, name="conv2")(x)
        x = ConvPReLU(32, 3, name="conv3")(x)
        return _face_probability(_head(2, "scores")(x)), _head(4, "offsets")(x)


class RNet(nn.Module):
    """Refinement network on crops of 24 pixels."""

    @nn.compact
    def __call__(self, crops: Float[Array, "batch 24 24 3"]) -> tuple[Float[Array, " batch"], Float[Array, "batch 4"]]:
        """Face probability and box offsets for each crop."""
        x = CropStem(28, name="conv1")(crops)
        x = _max_pool(ConvPReLU(48, 3, name="conv2")(x), 3)
        x = ConvPReLU(64, 2, name="conv3")(x)
        x = DensePReLU(128, name="dense")(_flatten(x))
        return _face_probability(_head(2, "scores")(x)), _head(4, "offsets")(x)


class ONet(nn.Module):
    """Output network on crops of 48 pixels."""

    @nn.compact
    def __call__(
        self, crops: Float[Array, "batch 48 48 3"]
    ) -> tuple[Float[Array, " batch"], Float[Array, "batch 4"], Float[Array, "batch 10"]]:
        """Face probability, box offsets, and landmarks (five x, five y; as fractions of the crop) for each crop."""
        x = CropStem(32, name="conv1")(crops)
        x = _max_pool(ConvPReLU(64, 3, name="conv2")(x), 3)
        x = _max_pool(ConvPReLU(64, 3, name="conv3")(x), 2)
        x = ConvPReLU(128, 2, name="conv4")(x)
        x = DensePReLU(256, name="dense")(_flatten(x))
        return _face_probability(_head(2, "scores")(x)), _head(4, "offsets")(x), _head(10, "landmarks")(x)


def _parameters(module: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """A layer's kernel, bias and PReLU slopes."""
    kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
    bias = module.param("bias", nn.initializers.zeros, shape[-1:])
    slope = module.param("slope", nn.initializers.constant(0.25), shape[-1:])
    return kernel, bias, slope


def _convolve(x: Array, kernel: Array, strides: tuple[int, int] = (1, 1)) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=layout, precision=_PRECISION)


def _convolve_cells(images: Array, kernel: Array) -> Array:
    """3 x 3 convolution of RGB images, with the four outputs of each 2 x 2 cell concatenated along the channels."""
    kernels = [jnp.pad(kernel, ((p, 1 - p), (q, 1 - q), (0, 0), (0, 0))) for p in (0, 1) for q in (0, 1)]
    batch, height, width, _ = images.shape
    pairs = images.reshape(batch, height, width // 2, 6)
    return _convolve(pairs, jnp.stack(kernels, axis=3).reshape(4, 2, 6, -1), strides=(2, 1))


def _head(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, precision=_PRECISION, name=name)


def _max_pool(x: Array, size: int) -> Array:
    """Max pooling with stride 2; the last window may overhang the edge (Caffe rounds the output's size up)."""
    overhangs = ((0, 0), *((0, -(side - size) % 2) for side in x.shape[1:3]), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, 2, 2, 1), overhangs)


def _flatten(x: Array) -> Array:
    """Flattens in the order of the Caffe models, which were trained in Matlab: width, height, channels."""
    return jnp.transpose(x, (0, 2, 1, 3)).reshape(x.shape[0], -1)


def _face_probability(logits: Array) -> Array:
    """Probability of the second class of a softmax over (no face, face)."""
    return jax.nn.sigmoid(logits[..., 1] - logits[..., 0])
