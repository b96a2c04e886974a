"""SENet-50 of VGGFace2: ResNet-50 with squeeze-and-excitation in Caffe's layout.

Source: Hu et al., "Squeeze-and-excitation networks", 2017; Cao et al., "VGGFace2", 2017. Caffe's layout differs from
torchvision's in the position of the stride (the first 1 x 1 convolution of a block) and in the stem's max pooling
(windows may extend past the right and bottom edges, no padding). Names as in timm's ``legacy_seresnet50``.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, Conv, Dtype, SqueezeExcite, global_pool, max_pool
from facejax.models.normalization import BatchNorm
from facejax.models.pretrained import PretrainedCfg
from facejax.models.registry import register_model
from facejax.preprocessing import Preprocessing

BN_EPSILON = 1e-5
EXPANSION, REDUCTION = 4, 16
DEPTHS = (3, 4, 6, 3)


class Stem(nn.Module):
    """7 x 7 convolution with stride 2 and BatchNorm with ReLU.

    Attributes:
        implementation: See `Conv`.
        dtype: Compute type.
    """

    implementation: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width 64"]:
        """Feature maps of 64 channels."""
        x = Conv(64, 7, 2, 3, implementation=self.implementation, dtype=self.dtype, name="conv1")(x)
        return BatchNorm(use_running_average, BN_EPSILON, nn.relu, self.dtype, name="bn1")(x)


class Bottleneck(nn.Module):
    """Residual block of 1 x 1, 3 x 3, 1 x 1 convolutions and squeeze-and-excitation.

    Attributes:
        planes: Channels of the inner convolutions; the block outputs four times as many.
        stride: Stride of the first convolution and of the shortcut.
        projection: Whether the shortcut is a 1 x 1 convolution.
        implementation: See `Conv`.
        dtype: Compute type.
    """

    planes: int
    stride: int
    projection: bool
    implementation: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Applies the block."""

        def conv_norm(y, features, size, stride, names, activation=None):
            y = Conv(
                features, size, stride, size // 2, implementation=self.implementation, dtype=self.dtype, name=names[0]
            )(y)
            return BatchNorm(use_running_average, BN_EPSILON, activation, self.dtype, name=names[1])(y)

        outputs = self.planes * EXPANSION
        y = conv_norm(x, self.planes, 1, self.stride, ("conv1", "bn1"), nn.relu)
        y = conv_norm(y, self.planes, 3, 1, ("conv2", "bn2"), nn.relu)
        y = conv_norm(y, outputs, 1, 1, ("conv3", "bn3"))
        y = SqueezeExcite(outputs // REDUCTION, implementation=self.implementation, dtype=self.dtype, name="se_module")(
            y
        )
        if self.projection:
            x = conv_norm(x, outputs, 1, self.stride, ("downsample_0", "downsample_1"))
        return nn.relu(x + y)


class SENet(Backbone):
    """SENet-50."""

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 512 * EXPANSION

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last stage."""
        x = Stem(self.depthwise, self.dtype, name="layer0")(images, use_running_average)
        # Caffe rounds the size of the pooled maps up, so an even side needs one more row or column.
        x = max_pool(x, 3, 2, ((0, 1 - x.shape[1] % 2), (0, 1 - x.shape[2] % 2)))
        for stage, depth in enumerate(DEPTHS):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                x = Bottleneck(
                    64 * 2**stage, stride, block == 0, self.depthwise, self.dtype, name=f"layer{stage + 1}_{block}"
                )(x, use_running_average)
        return global_pool(x, self.global_pool)


# VGGFace2's own mean, for BGR pixels in 0-255.
_PREPROCESSING = Preprocessing(mean=(91.4953, 103.8827, 131.0912), std=(1.0, 1.0, 1.0), scale=1.0, channel_order="bgr")


@register_model(PretrainedCfg("senet50", preprocessing=_PREPROCESSING, num_features=2048))
def senet50(**kwargs) -> SENet:
    """SENet-50: 224 px, 2048 features, 26.0 M parameters."""
    return SENet(**kwargs)
