"""EfficientNet-B0 and B2 as timm's ``tf_efficientnet_b0`` and ``tf_efficientnet_b2``.

Source: Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", 2019 (table 1 and
section 3.3); layer names, TensorFlow's SAME padding and BatchNorm's epsilon of 1e-3 as in timm's ``tf_`` models, whose
weights the paper starts from. Differences: no stochastic depth (timm's default rate for it is 0 as well).
"""

import dataclasses
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from facejax.models.depthwise import DepthwiseConv, Implementation
from facejax.models.layers import Backbone, Conv, Dtype, SqueezeExcite, global_pool
from facejax.models.normalization import Activation, BatchNorm
from facejax.models.pretrained import PretrainedCfg, imagenet_cfg
from facejax.models.registry import register_model
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS

BN_EPSILON = 1e-3
_PUBLISHED = "https://github.com/HSE-asavchenko/face-emotion-recognition/raw/main/models"
STEM_CHANNELS, HEAD_CHANNELS = 32, 1280

# (repeats, kernel, stride of the first block, expansion, output channels) of each stage of B0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, and never below 90 % of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation and projection, with a shortcut where shapes allow it.

    Attributes:
        features: Number of output channels.
        kernel_size: Side of the depthwise filters.
        stride: Stride of the depthwise convolution.
        expansion: Ratio of the width of the depthwise convolution to that of the input; at 1 there is no expansion
            convolution (timm's ``DepthwiseSeparableConv``, whose layer names differ).
        depthwise: See `Backbone`.
        dtype: Compute type.
    """

    features: int
    kernel_size: int
    stride: int
    expansion: int
    depthwise: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Applies the block."""

        def pointwise(features: int, name: str) -> Conv:
            return Conv(features, 1, implementation=self.depthwise, dtype=self.dtype, name=name)

        def norm(y: jax.Array, name: str, activation: Activation | None = nn.silu) -> jax.Array:
            return BatchNorm(use_running_average, BN_EPSILON, activation, self.dtype, name=name)(y)

        inputs, y = x.shape[-1], x
        norms = iter(("bn1", "bn2", "bn3"))
        if self.expansion > 1:
            y = norm(pointwise(inputs * self.expansion, "conv_pw")(y), next(norms))
        y = DepthwiseConv(
            self.kernel_size, self.stride, implementation=self.depthwise, dtype=self.dtype, name="conv_dw"
        )(y)
        y = norm(y, next(norms))
        y = SqueezeExcite(
            inputs // 4,
            nn.silu,
            names=("conv_reduce", "conv_expand"),
            implementation=self.depthwise,
            dtype=self.dtype,
            name="se",
        )(y)
        y = norm(pointwise(self.features, "conv_pwl" if self.expansion > 1 else "conv_pw")(y), next(norms), None)
        return x + y if self.stride == 1 and inputs == self.features else y


class EfficientNet(Backbone):
    """EfficientNet at a given width and depth.

    Attributes:
        width: Factor on B0's channels, rounded to multiples of 8.
        depth: Factor on B0's number of blocks per stage, rounded up.
    """

    width: float = 1.0
    depth: float = 1.0

    @property
    def num_features(self) -> int:
        """Width of the features: 1280 for B0, 1408 for B2."""
        return round_channels(HEAD_CHANNELS * self.width)

    def starts_at_zero(self, path: tuple[str, ...]) -> bool:
        """See `Backbone`: the last BatchNorm of every block with a shortcut, all but the first of each stage."""
        block, *rest = path
        name, _, place = block.rpartition("_")
        last_norm = "bn2" if name == "blocks_0" else "bn3"
        return name.startswith("blocks_") and place != "0" and rest == [last_norm, "scale"]

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last convolution, after its activation."""
        stem = round_channels(STEM_CHANNELS * self.width)
        x = Conv(stem, 3, stride=2, implementation=self.depthwise, dtype=self.dtype, name="conv_stem")(images)
        x = BatchNorm(use_running_average, BN_EPSILON, nn.silu, self.dtype, name="bn1")(x)
        for stage, (repeats, kernel_size, stride, expansion, channels) in enumerate(STAGES):
            for block in range(math.ceil(repeats * self.depth)):
                x = InvertedResidual(
                    round_channels(channels * self.width),
                    kernel_size,
                    stride if block == 0 else 1,
                    expansion,
                    self.depthwise,
                    self.dtype,
                    name=f"blocks_{stage}_{block}",
                )(x, use_running_average)
        x = Conv(self.num_features, 1, implementation=self.depthwise, dtype=self.dtype, name="conv_head")(x)
        x = BatchNorm(use_running_average, BN_EPSILON, nn.silu, self.dtype, name="bn2")(x)
        return global_pool(x, self.global_pool)


def _cfgs(
    architecture: str, image_size: int, num_features: int, base: str, hsemotion: Mapping[str, tuple[str, ...]]
) -> tuple[PretrainedCfg, ...]:
    """The configurations: untagged, the ImageNet weights that the paper starts from, and the paper's own weights.

    Args:
        architecture: Name in the registry.
        image_size: Side of the input in pixels.
        num_features: Width of the features.
        base: Name of the file with the paper's VGGFace2 backbone, which its AffectNet training starts from.
        hsemotion: Heads of each of the weights that the paper's authors publish, by name of the weights.
    """
    plain = PretrainedCfg(architecture, preprocessing=Preprocessing(image_size), num_features=num_features)
    imagenet = dataclasses.replace(
        imagenet_cfg(plain, "ns_jft_in1k", "Apache-2.0"),
        training_data=("jft_300m", "imagenet_1k"),
        notes="Noisy Student on JFT-300M and ImageNet-1k; the classifier's 1000 outputs are ImageNet's classes.",
    )
    vggface2 = dataclasses.replace(
        plain,
        tag="vggface2",
        source=f"{_PUBLISHED}/pretrained_faces/{base}",
        licence="Apache-2.0",
        training_data=("jft_300m", "imagenet_1k", "vggface2"),
        notes="HSEmotion's base: VGGFace2 identities, photos from the web, for research only; without the classifier.",
    )
    published = [
        dataclasses.replace(
            plain,
            tag=tag,
            tasks=tasks,
            labels={task: TASKS[task].labels for task in tasks},
            source=f"{_PUBLISHED}/affectnet_emotions/onnx/{tag}.onnx",
            licence="Apache-2.0",
            training_data=("jft_300m", "imagenet_1k", "vggface2", "affectnet"),
            global_pool="max" if tag in _POOLED_BY_MAXIMUM else "avg",
            notes="HSEmotion: VGGFace2 identities, then AffectNet, both photos from the web, for research only. "
            "BatchNorm may be folded: fine-tuning must keep it on its running statistics.",
        )
        for tag, tasks in hsemotion.items()
    ]
    return plain, imagenet, vggface2, *published


_B0 = {
    "enet_b0_8_best_vgaf": ("emotion8",),
    "enet_b0_8_best_afew": ("emotion8",),
    "enet_b0_8_va_mtl": ("emotion8", "valence_arousal"),
}
_B2 = {"enet_b2_8": ("emotion8",), "enet_b2_7": ("emotion7",)}
# The published code trains this one with max pooling. A conversion uses the pooling found in the file.
_POOLED_BY_MAXIMUM = frozenset({"enet_b2_7"})


@register_model(*_cfgs("tf_efficientnet_b0", 224, 1280, "state_vggface2_enet0_new.pt", _B0))
def tf_efficientnet_b0(**kwargs) -> EfficientNet:
    """EfficientNet-B0: 224 px, 1280 features, 4.0 M parameters."""
    return EfficientNet(width=1.0, depth=1.0, **kwargs)


@register_model(*_cfgs("tf_efficientnet_b2", 260, 1408, "state_vggface2_enet2.pt", _B2))
def tf_efficientnet_b2(**kwargs) -> EfficientNet:
    """EfficientNet-B2: 260 px, 1408 features, 7.7 M parameters."""
    return EfficientNet(width=1.1, depth=1.2, **kwargs)
