"""Converts the MobileNet-v1 of the author's repository HSE_FaceRec_tf, a frozen TensorFlow graph, to Flax variables.

The graph predicts age and gender; its backbone was trained on VGGFace2's identities. BatchNorm is folded into the
convolutions (into a scale and a shift after depthwise ones), and large tensors are quantised to 8 bits.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from facejax.models.mobilenet import BLOCKS, BN_EPSILON
from facejax.weights.graphdef import Node, read_graph

_CONSTANT = re.compile(r"^(?P<name>.+?)(/read)?/_\d+__cf__\d+$")
_HEADS = {"feats": ("head_shared",), "age_pred": ("head_age", "logits"), "gender_pred": ("head_gender", "logits")}


def load_frozen_graph(path: pathlib.Path | str) -> dict[str, np.ndarray]:
    """Float32 weights of a frozen graph by Keras name (``conv_dw_1/depthwise_kernel``); 8-bit ones are dequantised."""
    nodes = read_graph(path)
    tensors = {}
    for node in nodes.values():
        match = _CONSTANT.match(node.name)
        if match and (value := _value(node, nodes)) is not None and value.ndim:
            tensors[match["name"]] = value
    return tensors


def from_frozen_graph(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Flax variables of ``mobilenet_v1.vggface2_age_gender``: backbone, shared hidden layer, age and gender.

    Folded BatchNorms become layers with mean 0 and variance 1 - epsilon, which give the same values with their running
    statistics (and only with those).

    Args:
        tensors: Tensors returned by `load_frozen_graph`; every one is used.

    Raises:
        ValueError: If a tensor is missing or unused.
    """
    left = {name: np.asarray(array, np.float32) for name, array in tensors.items()}

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise ValueError(f"the graph has no {name!r}; it has {', '.join(sorted(tensors))}")
        return left.pop(name)

    leaves: dict[tuple[str, ...], np.ndarray] = {}

    def norm(layer: str, has_scale: bool) -> None:
        shift = take(f"{layer}_bn/batchnorm_1/sub")
        at = ("backbone", f"{layer}_bn")
        leaves["params", *at, "bias"] = shift
        leaves["params", *at, "scale"] = take(f"{layer}_bn/batchnorm_1/mul") if has_scale else np.ones_like(shift)
        leaves["batch_stats", *at, "mean"] = np.zeros_like(shift)
        leaves["batch_stats", *at, "var"] = np.full_like(shift, 1 - BN_EPSILON)

    leaves["params", "backbone", "conv1", "kernel"] = take("conv1/kernel")
    norm("conv1", has_scale=False)
    for block in range(1, len(BLOCKS) + 1):
        kernel = take(f"conv_dw_{block}/depthwise_kernel")
        leaves["params", "backbone", f"conv_dw_{block}", "kernel"] = kernel.transpose(0, 1, 3, 2)
        norm(f"conv_dw_{block}", has_scale=True)
        leaves["params", "backbone", f"conv_pw_{block}", "kernel"] = take(f"conv_pw_{block}/kernel")
        norm(f"conv_pw_{block}", has_scale=False)
    for layer, path in _HEADS.items():
        for leaf in ("kernel", "bias"):
            leaves["params", *path, leaf] = take(f"{layer}/{leaf}")
    if left:
        raise ValueError(f"the graph has weights that this network does not have: {', '.join(sorted(left))}")
    return unflatten_dict(leaves)


def _value(node: Node, nodes: Mapping[str, Node]) -> np.ndarray | None:
    """Value of a constant, including those quantised to 8 bits with a range.

    TensorFlow's mode MIN_FIRST shifts the range by less than one step, so that 0 is representable. The arithmetic
    replicates TensorFlow's, in float32: the network amplifies the last bits of its weights.
    """
    if node.op != "Dequantize":
        return node.value
    if node.texts.get("mode") != "MIN_FIRST":
        raise ValueError(f"{node.name}: expected 8-bit weights of mode MIN_FIRST, not {node.texts.get('mode')!r}")
    codes, low, high = (np.asarray(nodes[name].value, np.float32) for name in node.inputs)
    step = (high - low) / np.float32(255)
    return np.round(low / step) * step + codes * step
