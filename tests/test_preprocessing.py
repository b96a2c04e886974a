import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.models import list_models, pretrained_cfg
from facejax.preprocessing import INTERPOLATIONS, Preprocessing

SIZES = {
    "inception_v3": 299,
    "mobilenet_v1": 224,
    "nfnet_f0": 192,
    "resnet18": 224,
    "rexnet_150": 224,
    "senet50": 224,
    "tf_efficientnet_b0": 224,
    "tf_efficientnet_b2": 260,
    "vgg16": 224,
}
# Published preprocessing of the networks that do not use RGB / 255 normalised by ImageNet's mean and deviation.
KERAS_CAFFE = (103.939, 116.779, 123.68)  # keras.applications.imagenet_utils, mode "caffe": BGR
VGGFACE2 = (91.4953, 103.8827, 131.0912)  # VGGFace2's own mean: BGR


def as_published(name, image):
    """One image, in float64 and channel by channel."""
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    if name in ("mobilenet_v1", "mobilenet_v1.vggface2_age_gender", "senet50"):
        means = VGGFACE2 if name == "senet50" else KERAS_CAFFE
        return np.stack([channel - mean for channel, mean in zip((blue, green, red), means, strict=True)], axis=-1)
    if name in ("inception_v3", "inception_v3.tf_in1k", "mobilenet_v1.keras_in1k"):
        return np.stack([red, green, blue], axis=-1) / 127.5 - 1
    channels = zip((red, green, blue), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    return np.stack([(channel / 255 - mean) / std for channel, mean, std in channels], axis=-1)


NAMES = [*list_models(), "mobilenet_v1.keras_in1k", "mobilenet_v1.vggface2_age_gender", "inception_v3.tf_in1k"]


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_fed_as_it_was_published(name):
    preprocessing = pretrained_cfg(name).preprocessing
    assert (preprocessing.image_size, preprocessing.margin) == (SIZES[name.split(".")[0]], 0)
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    expected = as_published(name, image)
    found = preprocessing.normalize(image)
    assert (type(found), found.dtype) == (np.ndarray, np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    jitted = jax.jit(preprocessing.normalize)(jnp.asarray(image[None], jnp.float32))
    np.testing.assert_allclose(jitted[0], expected, rtol=1e-5, atol=2e-5)


def test_crops_are_stretched_by_the_named_kernel():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    pairs = image.reshape(8, 2, 8, 3, 3).astype(float)
    area = Preprocessing(8, interpolation="area").resize(image)
    np.testing.assert_allclose(area, pairs.mean(axis=(1, 3)), atol=1)
    nearest = Preprocessing(32, interpolation="nearest").resize(image[:, :16])
    np.testing.assert_array_equal(nearest, image[:, :16].repeat(2, axis=0).repeat(2, axis=1))
    bilinear = Preprocessing(20).resize(image)
    assert (bilinear.shape, bilinear.dtype) == ((20, 20, 3), np.uint8)
    expected = jax.image.scale_and_translate(
        jnp.asarray(image, jnp.float32),
        (20, 20, 3),
        (0, 1),
        jnp.array([20 / 16, 20 / 24]),
        jnp.zeros(2),
        method="linear",
        antialias=False,
    )
    np.testing.assert_allclose(bilinear, expected, atol=1)
    made = {name: Preprocessing(20, interpolation=name).resize(image).tobytes() for name in INTERPOLATIONS}
    assert len(set(made.values())) == len(INTERPOLATIONS)
    same = Preprocessing(16).resize(image[:, :16])
    np.testing.assert_array_equal(same, image[:, :16])


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_only_rgb_images_are_resized(image):
    with pytest.raises(ValueError, match=r"uint8 RGB image \(height, width, 3\)"):
        Preprocessing(8).resize(image)
