"""NFNet-F0 compatible with DeepMind's weights: timm's ``dm_nfnet_f0``.

Source: Brock et al., "High-performance large-scale image recognition without normalization", 2021 (table 1, appendix).
There is no BatchNorm: weights are standardised at every use, and scale factors preserve the variance of the signal.
Differences from DeepMind's code are those of timm: the exact GELU, and the order of operations in the standardisation.
There is no stochastic depth, and the dropout before the classifier is left to the heads (`FaceModel.dropout_rate`).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, Dtype, SqueezeExcite, global_pool, kernel_init
from facejax.models.pretrained import PretrainedCfg, imagenet_cfg
from facejax.models.registry import register_model
from facejax.preprocessing import Preprocessing

STEM = ((16, 2), (32, 1), (64, 1), (128, 2))  # (channels, stride)
CHANNELS, DEPTHS, GROUP_SIZE = (256, 512, 1536, 1536), (1, 2, 6, 3), 128
ALPHA = 0.2  # weight of a block's residual branch
ATTENTION_GAIN = 2.0  # compensates for the mean of a sigmoid
GELU_GAIN = 1.7015043497085571  # gives output variance 1 for a normal input of variance 1 (source: appendix D)
STANDARDIZATION_EPSILON = 1e-5


def scaled_gelu(x: jax.Array) -> jax.Array:
    """GELU that preserves the variance of a standard normal input."""
    return GELU_GAIN * nn.gelu(x, approximate=False)


class StandardizedConv(nn.Module):
    """Convolution whose filters are standardised (mean 0, variance 1 / fan-in) and scaled by a learned ``gain``.

    Attributes:
        features: Number of output channels.
        kernel_size: Side of the filters.
        stride: Stride along both sides; padding is TensorFlow's SAME.
        groups: Number of channel groups.
        dtype: Compute type; the standardisation runs in float32.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Convolves feature maps."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", kernel_init, shape, jnp.float32)
        gain = self.param("gain", nn.initializers.ones, (self.features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        mean = jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = jnp.var(kernel, axis=(0, 1, 2), keepdims=True)
        scale = gain[None, None, None] / math.sqrt(math.prod(shape[:3]))
        kernel = (kernel - mean) * lax.rsqrt(variance + STANDARDIZATION_EPSILON) * scale
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return y + bias.astype(self.dtype)[None, None, None]


class Stem(nn.Module):
    """Four convolutions with activations between them; reduces height and width by a factor of 4.

    Attributes:
        dtype: Compute type.
    """

    dtype: Dtype

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch out_height out_width 128"]:
        """Feature maps of 128 channels."""
        for index, (channels, stride) in enumerate(STEM):
            x = scaled_gelu(x) if index else x
            x = StandardizedConv(channels, 3, stride, dtype=self.dtype, name=f"conv{index + 1}")(x)
        return x


class Downsample(nn.Module):
    """Average pooling if the block has a stride, then a 1 x 1 convolution.

    Attributes:
        features: Number of output channels.
        stride: 1 or 2.
        dtype: Compute type.
    """

    features: int
    stride: int
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """The shortcut of a block that changes the shape."""
        if self.stride > 1:
            x = nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
        return StandardizedConv(self.features, dtype=self.dtype, name="conv")(x)


class NormFreeBlock(nn.Module):
    """Pre-activation bottleneck with two grouped 3 x 3 convolutions and squeeze-and-excitation.

    Attributes:
        features: Number of output channels.
        stride: Stride of the first 3 x 3 convolution.
        variance: Expected variance of the input, which the block divides out.
        implementation: See `Conv`.
        dtype: Compute type.
    """

    features: int
    stride: int
    variance: float
    implementation: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Applies the block."""
        width = self.features // 2
        groups = width // GROUP_SIZE
        y = scaled_gelu(x) / math.sqrt(self.variance)
        shortcut = x
        if self.stride > 1 or x.shape[-1] != self.features:
            shortcut = Downsample(self.features, self.stride, self.dtype, name="downsample")(y)
        y = StandardizedConv(width, dtype=self.dtype, name="conv1")(y)
        y = StandardizedConv(width, 3, self.stride, groups, self.dtype, name="conv2")(scaled_gelu(y))
        y = StandardizedConv(width, 3, 1, groups, self.dtype, name="conv2b")(scaled_gelu(y))
        y = StandardizedConv(self.features, dtype=self.dtype, name="conv3")(scaled_gelu(y))
        y = SqueezeExcite(self.features // 2, implementation=self.implementation, dtype=self.dtype, name="attn_last")(y)
        gain = self.param("skipinit_gain", nn.initializers.zeros, (), jnp.float32).astype(self.dtype)
        return shortcut + ALPHA * ATTENTION_GAIN * gain * y


class NFNet(Backbone):
    """NFNet-F0."""

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 2 * CHANNELS[-1]

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last convolution, after its activation."""
        x = Stem(self.dtype, name="stem")(images)
        variance = 1.0
        for stage, (channels, depth) in enumerate(zip(CHANNELS, DEPTHS, strict=True)):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                x = NormFreeBlock(
                    channels, stride, variance, self.depthwise, self.dtype, name=f"stages_{stage}_{block}"
                )(x)
                # The shortcut of a stage's first block is normalised, so the expected variance is reset to 1.
                variance = (1.0 if block == 0 else variance) + ALPHA**2
        x = StandardizedConv(self.num_features, dtype=self.dtype, name="final_conv")(x)
        return global_pool(scaled_gelu(x), self.global_pool)


_PLAIN = PretrainedCfg("nfnet_f0", preprocessing=Preprocessing(192), num_features=3072)


@register_model(_PLAIN, imagenet_cfg(_PLAIN, "dm_in1k", "Apache-2.0", timm_name="dm_nfnet_f0"))
def nfnet_f0(**kwargs) -> NFNet:
    """NFNet-F0: 192 px, 3072 features, 68.4 M parameters."""
    return NFNet(**kwargs)
