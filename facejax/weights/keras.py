"""Converts Keras's MobileNet-v1 to Flax variables.

The modules of `facejax.models.mobilenet` use Keras's layer names, so only the names of the leaves differ.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from facejax.models import abstract_variables, create_model, pretrained_cfg
from facejax.weights.merge import check_tensors

_LEAVES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance", "kernel": "kernel"}
# Keras 3 numbers the variables of a layer in ``.weights.h5``: their names in this order, by how many a layer has.
_VARIABLES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


@functools.cache
def keras_shapes(architecture: str) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """(path of the Flax leaf, shape in Keras's layout) by Keras name (``conv_dw_1/kernel``), without the classifier."""
    cfg = pretrained_cfg(architecture)
    variables = abstract_variables(create_model(architecture), cfg.preprocessing.image_size)
    leaves: dict[tuple[str, ...], Any] = flatten_dict(variables)
    shapes = {}
    for path, leaf in leaves.items():
        *_, layer, name = path
        shape = tuple(leaf.shape)
        shapes[f"{layer}/{_LEAVES[name]}"] = (path, (*shape[:2], shape[3], shape[2]) if _is_depthwise(path) else shape)
    return shapes


def from_keras(architecture: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Flax variables of the backbone; every tensor is used.

    Args:
        architecture: Name in the registry: ``mobilenet_v1``.
        tensors: Arrays by ``layer/leaf``, as returned by `load_h5`. Keras 2 calls the kernels of depthwise convolutions
            ``depthwise_kernel``, Keras 3 ``kernel``; both are accepted.

    Raises:
        ValueError: If a tensor is missing, unexpected or of the wrong shape.
    """
    tensors = {name.replace("/depthwise_kernel", "/kernel"): np.asarray(array) for name, array in tensors.items()}
    expected = keras_shapes(architecture)
    check_tensors(f"Keras's {architecture}", {name: shape for name, (_, shape) in expected.items()}, tensors)
    leaves = {
        path: tensors[name].transpose(0, 1, 3, 2) if _is_depthwise(path) else tensors[name]
        for name, (path, _) in expected.items()
    }
    return unflatten_dict(leaves)


def load_h5(path: pathlib.Path | str) -> dict[str, np.ndarray]:
    """Arrays of a Keras ``.h5`` file (weights or whole model) by ``layer/leaf``; the optimiser state is skipped.

    The layouts are those of Keras 2 and of whole models of Keras 3, ``conv1/conv1/kernel``, and that of its
    ``.weights.h5`` (``keras.src.saving.saving_lib``), ``layers/conv2d/vars/0``, where ``vars`` has the layer's name.

    Raises:
        ImportError: h5py is missing; the message gives the command that installs it.
        ValueError: The file has an array twice, or does not name its layers.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"Keras files need {error.name}: pip install 'facejax[convert]'") from error

    tensors: dict[str, np.ndarray] = {}
    twice: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith(("optimizer_weights/", "optimizer/")):
            tensor = _name(item)
            (twice if tensor in tensors else tensors)[tensor] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    if twice:
        raise ValueError(f"{path} contains duplicate arrays: {', '.join(sorted(twice))}")
    return tensors


def _name(array: Any) -> str:
    """``layer/leaf`` of an HDF5 data set."""
    layer, leaf = array.name.split("/")[-2:]
    if layer != "vars":
        return f"{layer}/{leaf.removesuffix(':0')}"
    variables = array.parent
    if "name" not in variables.attrs:
        raise ValueError(
            f"{variables.name} does not say which layer it is, as in files of the first versions of Keras 3: save the "
            "weights with Keras 3.6 or later, or the whole model with model.save('FILE.h5')"
        )
    leaves = dict(zip("0123", _VARIABLES.get(len(variables), ()), strict=False))
    return f"{variables.attrs['name']}/{leaves.get(leaf, leaf)}"


def _is_depthwise(path: tuple[str, ...]) -> bool:
    return path[-1] == "kernel" and path[-2].startswith("conv_dw_")
