"""VGG-16 as in torchvision and timm (``vgg16``).

Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014 (table 1,
column D). The paper times it (table 3) and compares with DEX, which is a VGG-16 (table 6). The two large dense layers
are convolutions here, as in timm; the dropout between them is left to the head (`FaceModel.dropout_rate`).
"""

import flax.linen as nn
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, Conv, Dtype, global_pool, max_pool
from facejax.models.pretrained import PretrainedCfg, imagenet_cfg
from facejax.models.registry import register_model

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MIN_IMAGE_SIZE = 7 * 2 ** len(STAGES)


class PreLogits(nn.Module):
    """The two dense layers of 4096, as convolutions over the last 7 x 7 maps.

    Attributes:
        dtype: Compute type.
        implementation: See `Conv`.
    """

    dtype: Dtype
    implementation: Implementation

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 512"]) -> Float[Array, "batch out_height out_width 4096"]:
        """Features at each position of a 7 x 7 window."""
        options = {"use_bias": True, "implementation": self.implementation, "dtype": self.dtype}
        x = nn.relu(Conv(4096, 7, padding=0, name="fc1", **options)(x))
        return nn.relu(Conv(4096, 1, padding=0, name="fc2", **options)(x))


class VGG(Backbone):
    """VGG-16."""

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 4096

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos of at least 224 px: the output of the second dense layer, after its ReLU."""
        if min(images.shape[1:3]) < MIN_IMAGE_SIZE:
            raise ValueError(f"vgg16 needs images of at least {MIN_IMAGE_SIZE} px, got {images.shape[1:3]}")
        options = {"use_bias": True, "implementation": self.depthwise, "dtype": self.dtype}
        x, index = images, 0
        for stage in STAGES:
            for channels in stage:
                x = nn.relu(Conv(channels, 3, name=f"features_{index}", **options)(x))
                index += 2  # timm counts the ReLU as a layer
            x = max_pool(x, 2, 2)
            index += 1  # and the pooling too
        return global_pool(PreLogits(self.dtype, self.depthwise, name="pre_logits")(x), self.global_pool)


_PLAIN = PretrainedCfg("vgg16", num_features=4096)


@register_model(_PLAIN, imagenet_cfg(_PLAIN, "tv_in1k", "BSD-3-Clause", interpolation="bilinear"))
def vgg16(**kwargs) -> VGG:
    """VGG-16: 224 px, 4096 features, 134.3 M parameters."""
    return VGG(**kwargs)
