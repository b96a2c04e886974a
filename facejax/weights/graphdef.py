"""Constants of a frozen TensorFlow graph, read without TensorFlow.

A frozen graph is a protocol buffer (``tensorflow.GraphDef``) whose weights are nodes of the operation ``Const``. Only
what that needs is decoded here: names, operations and inputs of nodes, and their tensors. Field numbers are those of
TensorFlow's ``graph.proto``, ``node_def.proto``, ``attr_value.proto``, ``tensor.proto`` and ``tensor_shape.proto``.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 11: np.int8,
           12: np.uint8, 13: np.int32, 19: np.float16}  # fmt: skip
_VALUE_FIELDS = {5: "<f4", 6: "<f8"}


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        name: Its name.
        op: Its operation.
        inputs: Names of the nodes that it reads.
        value: The tensor of a ``Const``; None for other operations.
        texts: Attributes that are text (``mode``, ``padding``), by name.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    value: np.ndarray | None
    texts: dict[str, str]


def read_graph(path: pathlib.Path | str) -> dict[str, Node]:
    """Nodes of the frozen graph in a ``.pb`` file, by name and in its order.

    Raises:
        ValueError: If the file is not a graph.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        nodes = [_node(body) for field, body in _fields(memoryview(data)) if field == 1]
    except (IndexError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a frozen TensorFlow graph: {error}") from error
    if not nodes:
        raise ValueError(f"{path} is not a frozen TensorFlow graph: it has no nodes")
    return {node.name: node for node in nodes}


def _node(data: memoryview) -> Node:
    name, op, inputs, value, texts = "", "", [], None, {}
    for field, body in _fields(data):
        if field == 1:
            name = bytes(body).decode()
        elif field == 2:
            op = bytes(body).decode()
        elif field == 3:
            inputs.append(bytes(body).decode())
        elif field == 5:
            entry = dict(_fields(body))
            for kind, attribute in _fields(entry[2]):
                if kind == 8 and bytes(entry[1]) == b"value":
                    value = _tensor(attribute)
                elif kind == 2:
                    texts[bytes(entry[1]).decode()] = bytes(attribute).decode(errors="replace")
    return Node(name, op, tuple(inputs), value, texts)


def _tensor(data: memoryview) -> np.ndarray | None:
    """A ``TensorProto``; None for types that no weights have (text)."""
    dtype, shape, content, values = 0, (), b"", []
    for field, body in _fields(data):
        if field == 1:
            dtype = body
        elif field == 2:
            shape = tuple(dict(_fields(dim)).get(1, 0) for kind, dim in _fields(body) if kind == 2)
        elif field == 4:
            content = bytes(body)
        elif field in _VALUE_FIELDS:
            values.extend(np.frombuffer(body, _VALUE_FIELDS[field]))
        elif field in (7, 10, 13):
            values.extend([body] if isinstance(body, int) else _varints(body))
    if dtype not in _DTYPES:
        return None
    if content:
        return np.frombuffer(content, np.dtype(_DTYPES[dtype]).newbyteorder("<")).reshape(shape)
    # A short list of values means that the last one fills the rest.
    array = np.zeros(int(np.prod(shape)), _DTYPES[dtype])
    if values:
        if dtype == 19:  # half_val holds their bits
            values = np.array(values, np.uint16).view(np.float16)
        values = [value - (1 << 64) if isinstance(value, int) and value >= 1 << 63 else value for value in values]
        array[: len(values)], array[len(values) :] = values, values[-1]
    return array.reshape(shape)


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message: an int for a varint, the bytes of everything else."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(data, position)
        else:
            if wire == 2:
                size, position = _varint(data, position)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ValueError(f"wire type {wire} at byte {position}")
            if position + size > len(data):
                raise ValueError(f"a field of {size} bytes at byte {position} runs over the end")
            value, position = data[position : position + size], position + size
        yield key >> 3, value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError(f"varint of more than ten bytes at byte {position}")


def _varints(data: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value)
    return values
