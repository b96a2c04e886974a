"""Makes tests/models/golden/NAME.npz: what a reference implementation computes from weights that a seed draws.

    python tools/make_goldens.py [NAME ...]

The weights themselves are not stored: `random_state_dict` draws each tensor from a stream of its own, seeded by the
tensor's name, so a test draws the same ones. Needs timm and torch. Keep the files when only facejax changes: they are
what it is measured against.
"""

import argparse
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from facejax.models import abstract_variables, create_model, pretrained_cfg
from facejax.weights.timm import torch_name, torch_shape

GOLDEN = pathlib.Path(__file__).parents[1] / "tests" / "models" / "golden"

# Small and odd sizes, so that the default tests stay quick and see both kinds of SAME padding.
IMAGE_SIZES = {"tf_efficientnet_b0": (96, 75), "tf_efficientnet_b2": (65,)}
CLASSES = 7


def random_state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random float32 tensors by name, with BatchNorm statistics and biases far from their initial values.

    Args:
        shapes: Shapes by name, in PyTorch's layout and under timm's names.
    """
    tensors = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var"):
            tensor = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            tensor = rng.normal(0, 0.1, shape)
        elif (name.endswith(("gain", "weight")) and len(shape) in (0, 1)) or name.endswith("gain"):
            tensor = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            tensor = rng.normal(0, 0.1, shape)
        else:
            tensor = rng.normal(0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
        tensors[name] = tensor.astype(np.float32)
    return tensors


def random_images(image_size: int, batch: int = 2) -> np.ndarray:
    """Normalised photos (batch, image_size, image_size, 3): smooth noise of unit variance, like a photo's."""
    rng = np.random.default_rng(image_size)
    coarse = rng.standard_normal((batch, -(-image_size // 8), -(-image_size // 8), 3))
    smooth = coarse.repeat(8, 1).repeat(8, 2)[:, :image_size, :image_size]
    return (0.8 * smooth + 0.6 * rng.standard_normal(smooth.shape)).astype(np.float32)


def timm_shapes(name: str, classifier: str = "classifier") -> dict[str, tuple[int, ...]]:
    """Shapes of timm's state dict by name, as `facejax.weights.timm` expects it, with a classifier of `CLASSES`."""
    cfg = pretrained_cfg(name)
    variables = abstract_variables(create_model(name), cfg.preprocessing.image_size)
    leaves: dict[tuple[str, ...], Any] = flatten_dict(variables)
    shapes = {torch_name(path[2:]): torch_shape(path[-1], leaf.shape) for path, leaf in leaves.items()}
    return {**shapes, f"{classifier}.weight": (CLASSES, cfg.num_features), f"{classifier}.bias": (CLASSES,)}


def timm_outputs(name: str, image_size: int) -> tuple[dict[str, tuple[int, ...]], np.ndarray, np.ndarray]:
    """Shapes of timm's state dict, pooled features and logits of timm's model in eval mode on random weights."""
    import torch

    from tests.models.torchvision_stub import import_timm

    model: Any = import_timm().create_model(name, num_classes=CLASSES).eval()
    state = model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    weights = {key: torch.from_numpy(value) for key, value in random_state_dict(shapes).items()}
    model.load_state_dict({**state, **weights})
    with torch.no_grad():
        maps = model.forward_features(torch.from_numpy(random_images(image_size).transpose(0, 3, 1, 2)))
        features = model.forward_head(maps, pre_logits=True)
        logits = model.forward_head(maps)
    return shapes, features.numpy(), logits.numpy()


def main(names: list[str]) -> None:
    """Writes the golden files of `names`."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in names:
        arrays = {}
        for image_size in IMAGE_SIZES[name]:
            _, features, logits = timm_outputs(name, image_size)
            arrays |= {f"features_{image_size}": features, f"logits_{image_size}": logits}
            print(f"{name} at {image_size}: features std {features.std():.3g}, logits std {logits.std():.3g}")
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(IMAGE_SIZES), metavar="NAME")
    main(parser.parse_args().names)
