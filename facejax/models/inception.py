"""Inception-v3 as in torchvision and timm (``inception_v3``), without the auxiliary classifier.

Source: Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.models.depthwise import Implementation
from facejax.models.layers import Backbone, ConvNormAct, Dtype, global_pool, max_pool
from facejax.models.pretrained import PretrainedCfg, imagenet_cfg
from facejax.models.registry import register_model
from facejax.preprocessing import Preprocessing

BN_EPSILON = 1e-3
SMALLEST = 75


class Step(NamedTuple):
    """A convolution of a branch. Stride 1 preserves the size; stride 2 uses no padding."""

    suffix: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


# Name and sequential steps. Two steps in a tuple run in parallel on the same input.
Branch = tuple[str, tuple[Step | tuple[Step, Step], ...]]

_SQUARE3, _SQUARE5, _TALL3, _WIDE3, _TALL7, _WIDE7 = (3, 3), (5, 5), (3, 1), (1, 3), (7, 1), (1, 7)


def _mixed_a(pool: int) -> tuple[Branch, ...]:
    return (
        ("branch1x1", (Step("", 64),)),
        ("branch5x5", (Step("_1", 48), Step("_2", 64, _SQUARE5))),
        ("branch3x3dbl", (Step("_1", 64), Step("_2", 96, _SQUARE3), Step("_3", 96, _SQUARE3))),
        ("branch_pool", (Step("", pool),)),
    )


def _mixed_c(inner: int) -> tuple[Branch, ...]:
    return (
        ("branch1x1", (Step("", 192),)),
        ("branch7x7", (Step("_1", inner), Step("_2", inner, _WIDE7), Step("_3", 192, _TALL7))),
        (
            "branch7x7dbl",
            (
                Step("_1", inner),
                Step("_2", inner, _TALL7),
                Step("_3", inner, _WIDE7),
                Step("_4", inner, _TALL7),
                Step("_5", 192, _WIDE7),
            ),
        ),
        ("branch_pool", (Step("", 192),)),
    )


_MIXED_B: tuple[Branch, ...] = (
    ("branch3x3", (Step("", 384, _SQUARE3, 2),)),
    ("branch3x3dbl", (Step("_1", 64), Step("_2", 96, _SQUARE3), Step("_3", 96, _SQUARE3, 2))),
)
_MIXED_D: tuple[Branch, ...] = (
    ("branch3x3", (Step("_1", 192), Step("_2", 320, _SQUARE3, 2))),
    ("branch7x7x3", (Step("_1", 192), Step("_2", 192, _WIDE7), Step("_3", 192, _TALL7), Step("_4", 192, _SQUARE3, 2))),
)
_MIXED_E: tuple[Branch, ...] = (
    ("branch1x1", (Step("", 320),)),
    ("branch3x3", (Step("_1", 384), (Step("_2a", 384, _WIDE3), Step("_2b", 384, _TALL3)))),
    (
        "branch3x3dbl",
        (Step("_1", 448), Step("_2", 384, _SQUARE3), (Step("_3a", 384, _WIDE3), Step("_3b", 384, _TALL3))),
    ),
    ("branch_pool", (Step("", 192),)),
)

STAGES: tuple[tuple[str, tuple[Branch, ...]], ...] = (
    ("5b", _mixed_a(32)),
    ("5c", _mixed_a(64)),
    ("5d", _mixed_a(64)),
    ("6a", _MIXED_B),
    ("6b", _mixed_c(128)),
    ("6c", _mixed_c(160)),
    ("6d", _mixed_c(160)),
    ("6e", _mixed_c(192)),
    ("7a", _MIXED_D),
    ("7b", _MIXED_E),
    ("7c", _MIXED_E),
)


class Mixed(nn.Module):
    """Parallel branches. Blocks without a ``branch_pool`` halve the size and add a plain max-pooling branch.

    Attributes:
        branches: See `Branch`.
        implementation: See `Conv`.
        dtype: Compute type.
    """

    branches: tuple[Branch, ...]
    implementation: Implementation
    dtype: Dtype

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"], use_running_average: bool
    ) -> Float[Array, "batch out_height out_width outputs"]:
        """Concatenated outputs of the branches."""

        def apply(step: Step, branch: str, y: jax.Array) -> jax.Array:
            return ConvNormAct(
                step.channels,
                step.kernel,
                step.stride,
                (step.kernel[0] // 2, step.kernel[1] // 2) if step.stride == 1 else 0,
                epsilon=BN_EPSILON,
                implementation=self.implementation,
                dtype=self.dtype,
                name=branch + step.suffix,
            )(y, use_running_average)

        outputs = []
        for branch, steps in self.branches:
            y = nn.avg_pool(x, (3, 3), (1, 1), "SAME") if branch == "branch_pool" else x
            for step in steps:
                if isinstance(step, Step):
                    y = apply(step, branch, y)
                else:
                    y = jnp.concatenate([apply(part, branch, y) for part in step], axis=-1)
            outputs.append(y)
        if self.branches[-1][0] != "branch_pool":
            outputs.append(max_pool(x, 3, 2))
        return jnp.concatenate(outputs, axis=-1)


class InceptionV3(Backbone):
    """Inception-v3."""

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return 2048

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last block.

        Raises:
            ValueError: If the photos are smaller than 75 px: the feature maps would be empty.
        """
        if min(images.shape[1:3]) < SMALLEST:
            raise ValueError(f"inception_v3 needs images of at least {SMALLEST} px, got {images.shape[1:3]}")

        def conv(y, name, channels, size, stride=1, padding=0):
            return ConvNormAct(
                channels,
                size,
                stride,
                padding,
                epsilon=BN_EPSILON,
                implementation=self.depthwise,
                dtype=self.dtype,
                name=f"Conv2d_{name}",
            )(y, use_running_average)

        x = conv(images, "1a_3x3", 32, 3, 2)
        x = conv(x, "2a_3x3", 32, 3)
        x = conv(x, "2b_3x3", 64, 3, padding=1)
        x = max_pool(x, 3, 2)
        x = conv(x, "3b_1x1", 80, 1)
        x = conv(x, "4a_3x3", 192, 3)
        x = max_pool(x, 3, 2)
        for name, branches in STAGES:
            x = Mixed(branches, self.depthwise, self.dtype, name=f"Mixed_{name}")(x, use_running_average)
        return global_pool(x, self.global_pool)


_PREPROCESSING = Preprocessing(299, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_PLAIN = PretrainedCfg("inception_v3", preprocessing=_PREPROCESSING, num_features=2048)


@register_model(_PLAIN, imagenet_cfg(_PLAIN, "tf_in1k", "Apache-2.0"))
def inception_v3(**kwargs) -> InceptionV3:
    """Inception-v3: 299 px, 2048 features, 21.8 M parameters."""
    return InceptionV3(**kwargs)
