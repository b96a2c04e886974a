"""Converts the paper's published EfficientNets (HSEmotion, EmotiEffLib) to Flax variables.

They are published as ONNX files, which contain arrays and a graph, and as pickles of whole PyTorch models, which
contain code.
"""

import functools
import math
import pathlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from facejax.models import abstract_variables, create_model, pretrained_cfg
from facejax.models.efficientnet import BN_EPSILON, STAGES
from facejax.models.layers import GlobalPool
from facejax.tasks import TASKS

# The layers of a block in execution order, with the BatchNorm that follows each: with and without expansion.
_EXPANDED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_reduce", ""), ("conv_expand", ""), ("conv_pwl", "bn3"))
_PLAIN = (("conv_dw", "bn1"), ("conv_reduce", ""), ("conv_expand", ""), ("conv_pw", "bn2"))
_MAXIMA = ("GlobalMaxPool", "ReduceMax")


def load_onnx(path: pathlib.Path | str) -> tuple[list[dict[str, Any]], GlobalPool]:
    """Weights of an ONNX file's convolutions and dense layers, in execution order, and its global pooling.

    Returns:
        For each layer ``{"weight": (out, in, height, width) or (out, in), "bias": (out,)}``. Convolutions also have
        ``strides`` and ``pads`` in ONNX's format; the latter include those of a preceding Pad, and are None if they
        depend on the image's size. A BatchNorm that is a separate node adds ``scale``, ``shift``, ``mean``, ``var`` and
        ``epsilon`` to the preceding convolution. The second value is the pooling before the last dense layer, which
        cannot be told from the weights.

    Raises:
        ImportError: onnx is missing; the message gives the command that installs it.
        ValueError: If the graph has a max operation other than that pooling.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"ONNX files need {error.name}: pip install 'facejax[convert]'") from error
    graph = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            arrays[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]]
    layers: list[dict[str, Any]] = []
    pool: GlobalPool = "avg"
    for node in graph.node:
        attributes = _attributes(node)
        is_late = pool == "max" or (layers and layers[-1]["weight"].ndim == 2)  # after the pooling, or the last layer
        if (
            node.op_type == "MaxPool"
            or (node.op_type in _MAXIMA and is_late)
            or (node.op_type == "Conv" and pool == "max")
        ):
            raise ValueError(f"the network of {path} has a max operation besides its pooling; EfficientNet has none")
        if node.op_type in _MAXIMA:
            pool = "max"
        elif node.op_type in ("Conv", "Gemm"):
            layers.append(dict(zip(("weight", "bias"), (arrays[name] for name in node.input[1:]), strict=False)))
            if node.op_type == "Conv":
                layers[-1]["strides"] = attributes.get("strides", [1, 1])
                layers[-1]["pads"] = _pads(node, makers.get(node.input[0]), arrays)
            elif not attributes.get("transB", 0):
                layers[-1]["weight"] = layers[-1]["weight"].T
        elif node.op_type == "BatchNormalization":
            names = ("scale", "shift", "mean", "var")
            layers[-1] |= dict(zip(names, (arrays[name] for name in node.input[1:]), strict=True))
            layers[-1]["epsilon"] = attributes.get("epsilon", 1e-5)
    return layers, pool


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _pads(conv: Any, before: Any, arrays: Mapping[str, np.ndarray]) -> list[int] | None:
    """Top, left, bottom and right padding of a convolution after another node; None if it depends on the image size."""
    attributes = _attributes(conv)
    if attributes.get("auto_pad") == b"SAME_UPPER":
        return None
    pads = attributes.get("pads", [0, 0, 0, 0])
    if before is None or before.op_type != "Pad":
        return pads
    # Before opset 11 they are an attribute.
    padded = arrays.get(before.input[1]) if len(before.input) > 1 else _attributes(before)["pads"]
    if padded is None:  # computed from the image's size, as in timm's SAME padding
        return None
    return [own + int(padded[place]) for own, place in zip(pads, (2, 3, 6, 7), strict=True)]


def from_onnx(architecture: str, layers: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> dict[str, Any]:
    """Flax variables of an exported EfficientNet.

    Exporters fold BatchNorm into convolutions. A folded one becomes a layer with mean 0 and variance 1 - epsilon, which
    gives the same values with its running statistics (and only with those).

    Args:
        architecture: ``tf_efficientnet_b0`` or ``tf_efficientnet_b2``.
        layers: The layers returned by `load_onnx`; every one is used.
        tasks: Heads that the last layer's outputs are divided among, in order.

    Raises:
        ValueError: If the number of layers, or a layer's shape, stride, padding or epsilon, is not that of the network.
    """
    if not architecture.startswith("tf_efficientnet"):
        raise ValueError(f"HSEmotion's files contain EfficientNets, not {architecture}")
    expected = _layers(architecture)
    if len(layers) != len(expected) + 1:
        raise ValueError(f"{architecture} has {len(expected) + 1} convolutions and dense layers, got {len(layers)}")
    leaves: dict[tuple[str, ...], np.ndarray] = {}
    size = pretrained_cfg(architecture).preprocessing.image_size
    for layer, (path, norm, shape, has_bias) in zip(layers[:-1], expected, strict=True):
        kernel = np.asarray(layer["weight"]).transpose(2, 3, 1, 0)
        if kernel.shape != shape:
            raise ValueError(f"{'/'.join(path)}: expected a kernel {shape}, got {kernel.shape}")
        stride = _stride(path)
        sides = jax.lax.padtype_to_pads((size, size), shape[:2], (stride, stride), "SAME")
        pads = [before for before, _ in sides] + [after for _, after in sides]
        for name, wanted in (("strides", [stride, stride]), ("pads", pads), ("epsilon", BN_EPSILON)):
            if layer.get(name) is not None and not np.allclose(layer[name], wanted, rtol=1e-5):
                raise ValueError(
                    f"{'/'.join(path)}: expected {name} {wanted}, got {layer[name]}: this is a different network from "
                    f"{architecture}, or one for photos of a different size"
                )
        size = -(-size // stride)
        leaves["params", *path, "kernel"] = kernel
        bias = layer.get("bias", np.zeros(shape[-1], np.float32))
        if has_bias:
            leaves["params", *path, "bias"] = bias
        if norm:
            # A bias before a separate BatchNorm shifts the mean; if the BatchNorm is folded, the bias is its remainder.
            mean = layer["mean"] - bias if "mean" in layer else np.zeros(shape[-1], np.float32)
            leaves["params", *norm, "scale"] = layer.get("scale", np.ones(shape[-1], np.float32))
            leaves["params", *norm, "bias"] = layer.get("shift", bias)
            leaves["batch_stats", *norm, "mean"] = mean
            leaves["batch_stats", *norm, "var"] = layer.get("var", np.full(shape[-1], 1 - BN_EPSILON, np.float32))
    return merge_heads(unflatten_dict(leaves), layers[-1]["weight"], layers[-1]["bias"], tasks)


def merge_heads(
    variables: dict[str, Any], weight: np.ndarray, bias: np.ndarray, tasks: Sequence[str]
) -> dict[str, Any]:
    """`variables` with the outputs of one dense layer, weight (outputs, features), divided among heads in order.

    Raises:
        ValueError: If the number of outputs of the layer is not the total of the tasks.
    """
    sizes = [TASKS[task].num_outputs for task in tasks]
    if sum(sizes) != len(weight):
        raise ValueError(
            f"the last layer has {len(weight)} outputs, but the heads {', '.join(tasks)} have {sum(sizes)}"
        )
    params = dict(variables["params"])
    ends = np.cumsum(sizes)
    for task, size, end in zip(tasks, sizes, ends, strict=True):
        part = slice(end - size, end)
        params[f"head_{task}"] = {"logits": {"kernel": weight[part].T, "bias": bias[part]}}
    return {**variables, "params": params}


def load_pickle(path: pathlib.Path | str, *, run_its_code: bool) -> tuple[dict[str, np.ndarray], GlobalPool]:
    """State dict of a pickled PyTorch model, and its global pooling. Loading a pickle RUNS CODE chosen by its author.

    Args:
        path: A ``.pt`` file of HSEmotion. It requires a compatible version of timm: prefer the ONNX files.
        run_its_code: Must be True, to confirm that the caller trusts the file as they would a program.

    Raises:
        PermissionError: If `run_its_code` is False.
        ImportError: torch or timm is missing.
        ValueError: If its code fails, the pooling is neither mean nor maximum, or the BatchNorms have another epsilon.
        UnpicklingError: The file is damaged.
    """
    if not run_its_code:
        raise PermissionError(
            f"{path} is a pickle: either of a state dict, which the format timm reads, or of a whole model, which runs "
            "whatever code its author put there when it is loaded. Use the ONNX file of the same model, or pass "
            "--unsafe_pickle if you trust the file as you would a program"
        )
    try:
        import torch

        model = torch.load(path, map_location="cpu", weights_only=False)
    except ImportError as error:
        raise ImportError(f"pickles of HSEmotion's models need {error.name}: pip install torch timm") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever its code raises
        if not zipfile.is_zipfile(path):
            raise pickle.UnpicklingError(str(error)) from error
        raise ValueError(
            f"the code that it needs fails: {error}. Install a timm that has its classes and the torchvision that was "
            "built for the installed PyTorch, or use the ONNX file of the same model"
        ) from error
    if isinstance(model, Mapping):
        raise ValueError("it contains a state dict, not a model: use the format timm")
    # The pooling and the epsilon are not in the state dict.
    pool = model.global_pool.pool_type
    if pool not in get_args(GlobalPool):
        raise ValueError(
            f"the network of {path} pools by {pool!r}: only {' and '.join(get_args(GlobalPool))} are supported"
        )
    if not math.isclose(model.bn1.eps, BN_EPSILON):
        raise ValueError(
            f"the BatchNorms of {path} have an epsilon of {model.bn1.eps}, but tf_efficientnet needs {BN_EPSILON}"
        )
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}, pool


def _stride(path: tuple[str, ...]) -> int:
    """Stride of the convolution at a path."""
    if path[-1] == "conv_stem":
        return 2
    _, *place = path[1].split("_")
    return STAGES[int(place[0])][2] if path[-1] == "conv_dw" and place[1] == "0" else 1


@functools.cache
def _layers(architecture: str) -> list[tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...], bool]]:
    """(path, path of the BatchNorm after it, kernel shape, has a bias) of each convolution, in execution order."""
    variables = abstract_variables(create_model(architecture), pretrained_cfg(architecture).preprocessing.image_size)
    leaves: dict[tuple[str, ...], Any] = flatten_dict(variables["params"])
    blocks = {path[1] for path in leaves if path[1].startswith("blocks_")}
    order: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(("backbone", "conv_stem"), ("backbone", "bn1"))]
    for block in sorted(blocks, key=lambda name: [int(number) for number in name.split("_")[1:]]):
        expanded = ("backbone", block, "conv_pwl", "kernel") in leaves
        for conv, norm in _EXPANDED if expanded else _PLAIN:
            inside = ("se", conv) if conv in ("conv_reduce", "conv_expand") else (conv,)
            order.append((("backbone", block, *inside), ("backbone", block, norm) if norm else ()))
    order.append((("backbone", "conv_head"), ("backbone", "bn2")))
    return [(path, norm, tuple(leaves[*path, "kernel"].shape), (*path, "bias") in leaves) for path, norm in order]
