"""ResNet-18 as in torchvision and timm (``resnet18``).

Source: He et al., "Deep residual learning for image recognition", 2015 (table 1). The paper times it (table 3).
"""

import flax.linen as nn
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, Conv, Dtype, global_pool, max_pool
from facejax.models.normalization import BatchNorm
from facejax.models.pretrained import PretrainedCfg, imagenet_cfg
from facejax.models.registry import register_model

BN_EPSILON = 1e-5
DEPTHS = (2, 2, 2, 2)  # blocks of each stage; the stages have 64, 128, 256 and 512 channels


class BasicBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions; the shortcut is a 1 x 1 convolution if the shape changes.

    Attributes:
        features: Number of output channels.
        stride: Stride of the first convolution and of the shortcut.
        implementation: See `Conv`.
        dtype: Compute type.
    """

    features: int
    stride: int
    implementation: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Applies the block."""

        def conv(y, size, stride, name):
            padding = size // 2
            return Conv(
                self.features, size, stride, padding, implementation=self.implementation, dtype=self.dtype, name=name
            )(y)

        def norm(y, name, activation=None):
            return BatchNorm(use_running_average, BN_EPSILON, activation, self.dtype, name=name)(y)

        y = norm(conv(x, 3, self.stride, "conv1"), "bn1", nn.relu)
        y = norm(conv(y, 3, 1, "conv2"), "bn2")
        if self.stride > 1 or x.shape[-1] != self.features:
            x = norm(conv(x, 1, self.stride, "downsample_0"), "downsample_1")
        return nn.relu(x + y)


class ResNet(Backbone):
    """ResNet-18."""

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 512

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last stage."""
        x = Conv(64, 7, 2, 3, implementation=self.depthwise, dtype=self.dtype, name="conv1")(images)
        x = BatchNorm(use_running_average, BN_EPSILON, nn.relu, self.dtype, name="bn1")(x)
        x = max_pool(x, 3, 2, ((1, 1), (1, 1)))
        for stage, depth in enumerate(DEPTHS):
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                x = BasicBlock(64 * 2**stage, stride, self.depthwise, self.dtype, name=name)(x, use_running_average)
        return global_pool(x, self.global_pool)


_PLAIN = PretrainedCfg("resnet18", num_features=512)


@register_model(_PLAIN, imagenet_cfg(_PLAIN, "a1_in1k", "Apache-2.0"))
def resnet18(**kwargs) -> ResNet:
    """ResNet-18: 224 px, 512 features, 11.2 M parameters."""
    return ResNet(**kwargs)
