"""Reads the constants of a frozen TensorFlow graph without TensorFlow.

A frozen graph is a protocol buffer (``tensorflow.GraphDef``) whose weights are ``Const`` nodes. tensorboardX includes
the required protobuf messages, under its own package name.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 11: np.int8,
           12: np.uint8, 13: np.int32, 19: np.float16}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        name: Its name.
        op: Its operation.
        inputs: Names of its input nodes.
        value: The tensor of a ``Const``; None for other operations.
        texts: String attributes (``mode``, ``padding``), by name.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    value: np.ndarray | None
    texts: dict[str, str]


def read_graph(path: pathlib.Path | str) -> dict[str, Node]:
    """Nodes of the frozen graph in a ``.pb`` file, by name, in the order of the file.

    Raises:
        ValueError: If the file is not a graph.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto import graph_pb2  # pulls torch in where it is installed

    messages: Any = graph_pb2  # created at import time, which type checkers cannot see
    try:
        nodes = [_node(node) for node in messages.GraphDef.FromString(pathlib.Path(path).read_bytes()).node]
    except (DecodeError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a frozen TensorFlow graph: {error}") from error
    if not nodes:
        raise ValueError(f"{path} is not a frozen TensorFlow graph: it has no nodes")
    return {node.name: node for node in nodes}


def _node(node: Any) -> Node:
    texts = {
        name: told.s.decode(errors="replace") for name, told in node.attr.items() if told.WhichOneof("value") == "s"
    }
    value = _array(node.attr["value"].tensor) if "value" in node.attr else None
    return Node(node.name, node.op, tuple(node.input), value, texts)


def _array(tensor: Any) -> np.ndarray | None:
    """Converts a ``TensorProto`` to an array; None for types that weights cannot have (text)."""
    if tensor.dtype not in _DTYPES:
        return None
    dtype, shape = np.dtype(_DTYPES[tensor.dtype]), [side.size for side in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<")).reshape(shape)
    values = [*tensor.float_val, *tensor.double_val, *tensor.int_val, *tensor.int64_val]
    if tensor.half_val:  # stored as bits
        values = np.array(tensor.half_val, np.uint16).view(np.float16)
    # A short list of values means that the last one fills the rest.
    array = np.zeros(shape, dtype)
    if len(values):
        flat = array.reshape(-1)  # not array.flat, which silently drops excess values
        flat[: len(values)], flat[len(values) :] = values, values[-1]
    return array
