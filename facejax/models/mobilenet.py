"""MobileNet-v1, width 1.0, in the layout of ``keras.applications.MobileNet``.

Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017 (table
1). Layer names are those of Keras. Differences from timm's ``mobilenetv1_100``: ReLU6, BatchNorm's epsilon of 1e-3, and
depthwise convolutions of stride 2 are padded with zeros only at the bottom and on the right. Difference from Keras: in
training the running statistics of BatchNorm keep 0.9 of their old values, as in the other networks here, not 0.99.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from facejax.models.depthwise import DepthwiseConv
from facejax.models.layers import Backbone, Conv, global_pool
from facejax.models.normalization import BatchNorm
from facejax.models.pretrained import PretrainedCfg
from facejax.models.registry import register_model
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS

BN_EPSILON = 1e-3
STEM_CHANNELS = 32
# (channels, stride) of each depthwise-separable block.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)


class MobileNetV1(Backbone):
    """MobileNet-v1."""

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return BLOCKS[-1][0]

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], use_running_average: bool = True
    ) -> Float[Array, "batch features"]:
        """Features of normalised photos: the pooled output of the last convolution, after its activation."""

        def norm(y, name):
            return BatchNorm(use_running_average, BN_EPSILON, nn.relu6, self.dtype, name=f"{name}_bn")(y)

        x = Conv(STEM_CHANNELS, 3, 2, implementation=self.depthwise, dtype=self.dtype, name="conv1")(images)
        x = norm(x, "conv1")
        for index, (channels, stride) in enumerate(BLOCKS, start=1):
            x = DepthwiseConv(
                3,
                stride,
                "same" if stride == 1 else 0,
                implementation=self.depthwise,
                dtype=self.dtype,
                name=f"conv_dw_{index}",
            )(x if stride == 1 else _pad_below_and_right(x))
            x = norm(x, f"conv_dw_{index}")
            x = Conv(channels, implementation=self.depthwise, dtype=self.dtype, name=f"conv_pw_{index}")(x)
            x = norm(x, f"conv_pw_{index}")
        return global_pool(x, self.global_pool)


def _pad_below_and_right(x):
    return jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))


# Keras's "caffe" mode, the preprocessing of the paper's published MobileNets.
_PREPROCESSING = Preprocessing(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), scale=1.0, channel_order="bgr")
_PLAIN = PretrainedCfg("mobilenet_v1", preprocessing=_PREPROCESSING, num_features=1024)
_IMAGENET = PretrainedCfg(
    "mobilenet_v1",
    tag="keras_in1k",
    preprocessing=Preprocessing(mean=(1.0, 1.0, 1.0), std=(1.0, 1.0, 1.0), scale=1 / 127.5),
    num_features=1024,
    source="https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_1_0_224_tf_no_top.h5",
    licence="Apache-2.0",
    training_data=("imagenet_1k",),
    notes="ImageNet-1k, without the classifier. The paper's code feeds these weights in caffe mode when it fine-tunes.",
)
# The file's name has its epoch and validation accuracies (age class, gender): 1 epoch, 14 and 92 %. The network of the
# paper's section 3 had 3 epochs, 13 and 97 %.
_VGGFACE2 = PretrainedCfg(
    "mobilenet_v1",
    tag="vggface2_age_gender",
    preprocessing=_PREPROCESSING,
    tasks=("age", "gender"),
    labels={"age": TASKS["age"].labels, "gender": TASKS["gender"].labels},
    shared_hidden=("age", "gender"),
    num_features=1024,
    source="https://github.com/HSE-asavchenko/HSE_FaceRec_tf/raw/master/age_gender_identity/"
    "age_gender_tf2_new-01-0.14-0.92_quantized.pb",
    sha256="2a917c62e3a6cdd2d1556a86ae564dacb3704243048659d5d4d217933239dee3",
    licence="Apache-2.0",
    training_data=("imagenet_1k", "vggface2", "imdb_wiki", "adience"),
    notes="An earlier network of the paper's author, for photo albums, not the one that the paper reports on: base "
    "trained on VGGFace2 identities, age and gender on IMDB-Wiki and Adience. "
    "8-bit weights, BatchNorm folded into them: its layers here have mean 0 and variance 1 - epsilon, so fine-tuning "
    "must keep BatchNorm on its running statistics. VGGFace2 and IMDB-Wiki are photos from the web, for research only.",
)


@register_model(_PLAIN, _IMAGENET, _VGGFACE2)
def mobilenet_v1(**kwargs) -> MobileNetV1:
    """MobileNet-v1: 224 px, 1024 features, 3.2 M parameters."""
    return MobileNetV1(**kwargs)
