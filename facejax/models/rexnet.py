"""RexNet-150 as timm's ``rexnet_150``.

Source: Han et al., "ReXNet: diminishing representational bottleneck on convolutional neural network", 2020 (section 4:
channels grow by the same number in every block). timm's dropout of 0.2 before the classifier is left to the heads
(`FaceModel.dropout_rate`).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, Conv, ConvNormAct, Dtype, gated, global_pool, mean_of_pixels
from facejax.models.normalization import BatchNorm
from facejax.models.pretrained import PretrainedCfg, imagenet_cfg
from facejax.models.registry import register_model

BN_EPSILON = 1e-5
# (repeats, stride of the first block, expansion, squeeze-and-excitation) of each stage.
STAGES = ((1, 1, 1, False), (2, 2, 6, False), (2, 2, 6, True), (3, 2, 6, True), (3, 1, 6, True), (5, 2, 6, True))
FIRST_CHANNELS, ADDED_CHANNELS, SQUEEZE_RATIO = 16, 180, 12


class SqueezeExciteNorm(nn.Module):
    """Squeeze-and-excitation with BatchNorm between its two 1 x 1 convolutions.

    Attributes:
        reduced: Number of channels between them.
        implementation: See `Conv`.
        dtype: Compute type.
    """

    reduced: int
    implementation: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], use_running_average: bool
    ) -> Float[Array, "batch height width channels"]:
        """Scales feature maps."""
        options = {"use_bias": True, "implementation": self.implementation, "dtype": self.dtype}
        y = Conv(self.reduced, name="fc1", **options)(mean_of_pixels(x))
        y = BatchNorm(use_running_average, BN_EPSILON, nn.relu, self.dtype, name="bn")(y)
        return gated(x, Conv(x.shape[-1], name="fc2", **options)(y))


class LinearBottleneck(nn.Module):
    """Inverted residual whose shortcut is added to the first channels only, since every block adds channels.

    Attributes:
        features: Number of output channels.
        stride: Stride of the depthwise convolution.
        expansion: Ratio of the width of the depthwise convolution to that of the input; 1 for no expansion convolution.
        squeeze: Whether to use squeeze-and-excitation.
        depthwise: See `Backbone`.
        dtype: Compute type.
    """

    features: int
    stride: int
    expansion: int
    squeeze: bool
    depthwise: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Applies the block."""
        options = {"implementation": self.depthwise, "dtype": self.dtype}
        inputs, y = x.shape[-1], x
        width = inputs * self.expansion
        if self.expansion > 1:
            y = ConvNormAct(width, activation=nn.silu, name="conv_exp", **options)(y, use_running_average)
        y = ConvNormAct(width, 3, self.stride, 1, depthwise=True, activation=None, name="conv_dw", **options)(
            y, use_running_average
        )
        if self.squeeze:
            y = SqueezeExciteNorm(width // SQUEEZE_RATIO, name="se", **options)(y, use_running_average)
        y = ConvNormAct(self.features, activation=None, name="conv_pwl", **options)(nn.relu6(y), use_running_average)
        if self.stride == 1 and inputs <= self.features:
            first, rest = jnp.split(y, [inputs], axis=-1)
            y = jnp.concatenate([first + x, rest], axis=-1)
        return y


class RexNet(Backbone):
    """RexNet at a given width.

    Attributes:
        width: Factor on the channels of RexNet-100.
    """

    width: float = 1.0

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return int(1280 * self.width)

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last convolution, after its activation."""
        options = {"implementation": self.depthwise, "dtype": self.dtype}
        x = ConvNormAct(round(32 * self.width), 3, 2, 1, activation=nn.silu, name="stem", **options)(
            images, use_running_average
        )
        depth, block = sum(repeats for repeats, *_ in STAGES), 0
        for repeats, stride, expansion, squeeze in STAGES:
            for repeat in range(repeats):
                channels = round((FIRST_CHANNELS + block * ADDED_CHANNELS / depth) * self.width)
                x = LinearBottleneck(
                    channels,
                    stride if repeat == 0 else 1,
                    expansion,
                    squeeze,
                    self.depthwise,
                    self.dtype,
                    name=f"features_{block}",
                )(x, use_running_average)
                block += 1
        x = ConvNormAct(self.num_features, activation=nn.silu, name=f"features_{block}", **options)(
            x, use_running_average
        )
        return global_pool(x, self.global_pool)


_PLAIN = PretrainedCfg("rexnet_150", num_features=1920)


@register_model(_PLAIN, imagenet_cfg(_PLAIN, "nav_in1k", "MIT"))
def rexnet_150(**kwargs) -> RexNet:
    """RexNet-150: 224 px, 1920 features, 7.8 M parameters."""
    return RexNet(width=1.5, **kwargs)
