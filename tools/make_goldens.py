"""Writes tests/models/golden/NAME.npz: outputs of reference implementations for reproducible random weights.

    python tools/make_goldens.py [NAME ...]

The weights themselves are not stored: `random_tensors` draws each from its own random stream, seeded by its name, so
that the tests draw the same ones. Needs timm and torch, and Keras for mobilenet_v1 (an environment with TensorFlow but
without JAX is sufficient). Keep the files when only facejax changes: it is tested against them.
"""

import argparse
import dataclasses
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "tests" / "models" / "golden"
CLASSES = 7


@dataclasses.dataclass(frozen=True)
class Reference:
    """The reference implementation of a network.

    Attributes:
        model: Its name in timm; empty for Keras.
        classifier: Name of its last layer.
        image_sizes: Sides of the inputs: small and odd ones, so that the default tests are fast and cover both kinds
            of SAME padding.
        gain: Variance of a convolution's output relative to its input. 2 suits ReLU; residual networks without small
            scales need a smaller gain, as otherwise they amplify the signal and with it the rounding errors.
    """

    model: str
    classifier: str
    image_sizes: tuple[int, ...]
    gain: float = 2.0


REFERENCES = {
    "inception_v3": Reference("inception_v3", "fc", (107,)),
    "mobilenet_v1": Reference("", "", (96, 75)),
    "nfnet_f0": Reference("dm_nfnet_f0", "head.fc", (75,)),
    "resnet18": Reference("resnet18", "fc", (75,), gain=1.0),
    "rexnet_150": Reference("rexnet_150", "head.fc", (75,)),
    "senet50": Reference("legacy_seresnet50", "last_linear", (75, 64), gain=0.7),
    "tf_efficientnet_b0": Reference("tf_efficientnet_b0", "classifier", (96, 75)),
    "tf_efficientnet_b2": Reference("tf_efficientnet_b2", "classifier", (65,)),
    "vgg16": Reference("vgg16", "head.fc", (224,)),
}


def random_tensors(shapes: Mapping[str, tuple[int, ...]], gain: float) -> dict[str, np.ndarray]:
    """Random float32 tensors by name, with BatchNorm statistics and biases far from their initial values.

    Args:
        shapes: Shapes by PyTorch or Keras name, in the corresponding layout.
        gain: See `Reference`.
    """
    tensors = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith(("running_var", "moving_variance", "gain", "gamma")) or (
            len(shape) == 1 and name.endswith("weight")
        ):
            tensor = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            tensor = rng.normal(0, 0.1, shape)
        else:
            keras = "/" in name
            inputs = np.prod(shape[:2] if "conv_dw" in name else shape[:3]) if keras else np.prod(shape[1:])
            tensor = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(gain / inputs))
        tensors[name] = np.asarray(tensor, np.float32)
    return tensors


def random_images(image_size: int) -> np.ndarray:
    """Two normalised photos (2, image_size, image_size, 3): coarse plus fine noise, of unit variance in total."""
    rng = np.random.default_rng(image_size)
    side = -(-image_size // 8)
    coarse = rng.standard_normal((2, side, side, 3)).repeat(8, 1).repeat(8, 2)[:, :image_size, :image_size]
    return (0.8 * coarse + 0.6 * rng.standard_normal(coarse.shape)).astype(np.float32)


def timm_outputs(
    name: str, image_size: int, global_pool: str = "avg"
) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Shapes of timm's state dict; pooled features and logits of timm's model in eval mode with random weights."""
    import torch

    from tests.models.torchvision_stub import import_timm

    model: Any = import_timm().create_model(REFERENCES[name].model, num_classes=CLASSES, global_pool=global_pool).eval()
    state = model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    weights = {key: torch.from_numpy(value) for key, value in random_tensors(shapes, REFERENCES[name].gain).items()}
    model.load_state_dict({**state, **weights})
    model.double()  # so that only facejax's rounding errors matter, not PyTorch's
    with torch.no_grad():
        maps = model.forward_features(torch.from_numpy(random_images(image_size).transpose(0, 3, 1, 2)).double())
        features = model.forward_head(maps, pre_logits=True)
        logits = model.forward_head(maps)
    return shapes, {"features": features.float().numpy(), "logits": logits.float().numpy()}


def keras_outputs(image_size: int) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Shapes by Keras name, and pooled features of Keras's MobileNet with random weights."""
    import keras

    model = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=(image_size, image_size, 3)
    )
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    weights = random_tensors(shapes, REFERENCES["mobilenet_v1"].gain)
    for weight in model.weights:
        weight.assign(weights[weight.path])
    return shapes, {"features": np.asarray(model(random_images(image_size), training=False))}


def main(names: list[str]) -> None:
    """Writes the golden files of `names`."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in names:
        arrays = {}
        for size in REFERENCES[name].image_sizes:
            _, outputs = timm_outputs(name, size) if REFERENCES[name].model else keras_outputs(size)
            arrays |= {f"{key}_{size}": value for key, value in outputs.items()}
            one, other = outputs["features"]
            print(
                f"{name} at {size}: features {np.std(one):.3g}, difference between the photos {np.std(one - other):.3g}"
            )
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(REFERENCES), metavar="NAME")
    main(parser.parse_args().names)
