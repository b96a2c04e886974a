"""Converts state dicts of timm (and of torchvision, where timm keeps its names) to Flax variables.

The modules of `facejax.models` use timm's names, so one rule maps all families: a number at the end of a name or
before ``_`` is an index (``blocks_1_0`` is ``blocks.1.0``), and leaves are transposed according to their kind.
"""

import functools
import logging
import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from facejax.models import abstract_variables, create_model, pretrained_cfg
from facejax.weights.merge import check_tensors

logger = logging.getLogger(__name__)

CLASSIFIERS = ("classifier", "head.fc", "fc", "last_linear")
"""Names of the last layer in timm."""

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_INDEX = re.compile(r"_(\d+)(?=_|$)")


def torch_name(path: tuple[str, ...]) -> str:
    """Name in timm of a leaf of a backbone: ("blocks_1_0", "bn1", "scale") is ``blocks.1.0.bn1.weight``."""
    *modules, leaf = path
    # The numbers of Inception's branches ("branch5x5_1") are part of their names.
    names = [module if module.startswith("branch") else _INDEX.sub(r".\1", module) for module in modules]
    return ".".join([*names, _LEAVES.get(leaf, leaf)])


@functools.cache
def expected_tensors(architecture: str) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """(path of the Flax leaf, shape in PyTorch's layout) by timm's name, for the backbone without the classifier."""
    cfg = pretrained_cfg(architecture)
    variables = abstract_variables(create_model(architecture), cfg.preprocessing.image_size)
    leaves: dict[tuple[str, ...], Any] = flatten_dict(variables)
    return {torch_name(path[2:]): (path, _torch_shape(path[-1], tuple(leaf.shape))) for path, leaf in leaves.items()}


def from_timm(architecture: str, state_dict: Mapping[str, np.ndarray], head: str | None = None) -> dict[str, Any]:
    """Flax variables of a timm state dict; every tensor is used, with two exceptions.

    These are the counters ``num_batches_tracked``, and the classifier if `head` is None, which logs a warning.

    Args:
        architecture: Name in the registry, without tag.
        state_dict: Arrays by timm name.
        head: Task whose head the classifier becomes (``identity`` for ImageNet's 1000 classes as well).

    Returns:
        ``{"params": {"backbone": ..., ["head_<head>": ...]}, "batch_stats": {"backbone": ...}}``.

    Raises:
        ValueError: If a tensor is missing, unexpected or of the wrong shape, or if there is no classifier with a bias
            for `head`.
    """
    counters = "num_batches_tracked"
    tensors = {name: np.asarray(array) for name, array in state_dict.items() if not name.endswith(counters)}
    classifier = next((name for name in CLASSIFIERS if f"{name}.weight" in tensors), None)
    weight, bias = (tensors.pop(f"{classifier}.{key}", None) for key in ("weight", "bias"))
    expected = expected_tensors(architecture)
    check_tensors(f"timm's {architecture}", {name: shape for name, (_, shape) in expected.items()}, tensors)
    leaves = {path: _to_flax(path[-1], tensors[name]) for name, (path, _) in expected.items()}
    if head is not None:
        if weight is None:
            raise ValueError(f"head={head!r} was requested, but there is no classifier ({', '.join(CLASSIFIERS)})")
        if bias is None:
            raise ValueError(f"head={head!r} was requested, but the classifier {classifier!r} has no bias")
        leaves["params", f"head_{head}", "logits", "kernel"] = weight.T
        leaves["params", f"head_{head}", "logits", "bias"] = bias
    elif weight is not None:
        logger.warning("classifier with %d outputs left out: %s is converted without heads", len(weight), architecture)
    return {"batch_stats": {}, **unflatten_dict(leaves)}


def load_state_dict(path: pathlib.Path | str) -> dict[str, np.ndarray]:
    """Tensors of a ``.safetensors`` file, or of a ``.pth``/``.pt``/``.bin`` file that contains only tensors.

    Tensors of the latter are converted to float32.

    Raises:
        ImportError: A package is missing; the message gives the command that installs it.
        ValueError: The file is of another kind, or contains anything else, such as a pickled model.
        Exception: The file is damaged; safetensors and PyTorch raise errors of several kinds.
    """
    path = pathlib.Path(path)
    if path.suffix == ".safetensors":
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise ImportError("safetensors files need safetensors: pip install 'facejax[convert]'") from error
        return load_file(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        try:
            import torch
        except ImportError as error:
            raise ImportError(f"{path.suffix} files need {error.name}: pip install torch") from error
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            if code := re.search(r"GLOBAL (\S+)", str(error)):
                raise ValueError(
                    f"{path.name} is a pickle of code ({code[1]}), not a state dict: save one with "
                    "torch.save(model.state_dict(), FILE). If it is a file of HSEmotion and you trust its source, use "
                    "the format hsemotion with --unsafe_pickle"
                ) from error
            if "weights_only" in str(error):  # PyTorch's page on how to turn the check off
                raise pickle.UnpicklingError("PyTorch did not write this file") from error
            raise
        state = state.get("state_dict", state) if isinstance(state, Mapping) else {type(state).__name__: state}
        others = [str(name) for name, tensor in state.items() if not isinstance(tensor, torch.Tensor)]
        if others:
            raise ValueError(
                f"{path.name} contains {', '.join(others)} in addition to or instead of named tensors: save the state "
                "dict alone, or under 'state_dict'"
            )
        return {name: tensor.float().numpy() for name, tensor in state.items()}
    raise ValueError(f"expected a .safetensors, .pth, .pt or .bin file, got {path.name!r}")


def _to_flax(leaf: str, array: np.ndarray) -> np.ndarray:
    """Converts an array to Flax's layout: PyTorch's (out, in, height, width) becomes (height, width, in, out)."""
    if leaf == "kernel":
        return array.transpose(2, 3, 1, 0)
    return array.reshape(-1) if leaf == "gain" else array


def _torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in PyTorch's layout of a Flax leaf: the inverse of `_to_flax`."""
    if leaf == "kernel":
        return shape[3], shape[2], shape[0], shape[1]
    return (*shape, 1, 1, 1) if leaf == "gain" else shape
