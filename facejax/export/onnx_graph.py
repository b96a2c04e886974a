"""An ONNX graph under construction: values, constants, nodes, and the layout of each value.

Networks here compute in NHWC, but ONNX convolutions use NCHW. Every value therefore records its layout and keeps it,
so that transposes are needed only at the ends of a network and not around each of its layers.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Permutations of axes: NHWC -> NCHW and back.
TO_NCHW = (0, 3, 1, 2)
FROM_NCHW = (0, 2, 3, 1)
# Position of each logical axis (N, H, W, C) in an NCHW tensor.
PLACE_IN_NCHW = (0, 2, 3, 1)


@dataclasses.dataclass(frozen=True)
class Value:
    """A constant or a tensor of the graph.

    Attributes:
        shape: Logical shape; dimensions that are known only at run time are symbols (`jax.export.symbolic_shape`).
        dtype: Type of its elements.
        data: A constant's values. Broadcast axes may have length 1 here, as ONNX broadcasts them again.
        name: A tensor's name; None for a constant.
        stored: The tensor's actual shape, with 1 for axes still to be broadcast; in NHWC order even if `nchw`.
        nchw: Whether the tensor is in NCHW layout.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype
    data: np.ndarray | None = None
    name: str | None = None
    stored: tuple[Any, ...] = ()
    nchw: bool = False

    @property
    def is_constant(self) -> bool:
        """Whether its values are known at conversion time."""
        return self.data is not None

    @property
    def extent(self) -> tuple[Any, ...]:
        """Stored shape, before broadcasting; in NHWC order."""
        return self.data.shape if self.data is not None else self.stored

    def whole(self) -> np.ndarray:
        """A constant's values, broadcast to its logical shape."""
        assert self.data is not None
        return np.broadcast_to(self.data, self.shape)


def constant(array: np.ndarray, shape: tuple[Any, ...] | None = None) -> Value:
    """A constant, broadcast to `shape` if given."""
    array = np.asarray(array)
    return Value(array.shape if shape is None else shape, array.dtype, data=array)


@dataclasses.dataclass
class _Convolution:
    """Weights of a convolution and the tensor names that its node uses; in float64, rounded once at the end."""

    weights: str
    shift: str
    kernel: np.ndarray
    bias: np.ndarray


class Graph:
    """The nodes and constants added so far."""

    def __init__(self):
        """Creates an empty graph."""
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[tuple, onnx.TensorProto] = {}
        self._convolutions: dict[str, _Convolution] = {}
        self._count = 0

    def node(self, op: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of names if `outputs` is greater than 1."""
        names = [self._name(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"n{len(self.nodes)}_{op}", **attributes))
        return names[0] if outputs == 1 else names

    def tensor(self, name: str, shape: tuple, dtype: np.dtype, *, nchw: bool = False, stored: tuple = ()) -> Value:
        """A node's output as a value."""
        return Value(shape, np.dtype(dtype), name=name, stored=stored or shape, nchw=nchw)

    def initializer(self, array: np.ndarray) -> str:
        """Name of a constant tensor; equal ones are stored once."""
        array = np.asarray(array, order="C")  # keeps scalars scalar, as Clip and Gather require
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._initializers:
            self._initializers[key] = numpy_helper.from_array(array, self._name("c"))
        return self._initializers[key].name

    def integers(self, *values: int | np.integer) -> str:
        """Name of a constant int64 vector."""
        return self.initializer(np.array(values, np.int64))

    def plain(self, value: Value) -> Value:
        """The value in its logical axis order."""
        if not value.nchw:
            return value
        name = self.node("Transpose", [self.name_of(value)], perm=FROM_NCHW)
        return dataclasses.replace(value, name=name, nchw=False)

    def channels_first(self, value: Value) -> Value:
        """The value in NCHW layout."""
        if value.nchw:
            return value
        name = self.node("Transpose", [self.name_of(value)], perm=TO_NCHW)
        return dataclasses.replace(value, name=name, data=None, stored=value.extent, nchw=True)

    def full(self, value: Value) -> Value:
        """The value, explicitly broadcast to its logical shape."""
        if value.is_constant:
            return constant(value.whole())
        if value.stored == value.shape:
            return value
        value = self.plain(value)
        if not all(isinstance(side, int) for side in value.shape):
            raise NotImplementedError(f"broadcasting from {value.stored} to {value.shape} is not supported here")
        name = self.node("Expand", [self.name_of(value), self.integers(*value.shape)])
        return dataclasses.replace(value, name=name, stored=value.shape)

    def name_of(self, value: Value) -> str:
        """The tensor's name; constants become initializers of their stored shape."""
        if value.data is not None:
            return self.initializer(value.data)
        assert value.name is not None
        return value.name

    def convolution(self, image: str, kernel: np.ndarray, **attributes: Any) -> str:
        """Adds a convolution with bias 0; returns the name of its output.

        Its weights are written at the end, so that `fold` can merge scales and shifts into them.

        Args:
            image: Name of an NCHW tensor.
            kernel: OIHW.
            **attributes: Attributes of ONNX's Conv.
        """
        weights, bias = self._name("kernel"), self._name("bias")
        output = self.node("Conv", [image, weights, bias], **attributes)
        self._convolutions[output] = _Convolution(weights, bias, kernel.astype(np.float64), np.zeros(len(kernel)))
        return output

    def fold(self, op: str, value: Value, factor: Value) -> bool:
        """Folds ``value op factor`` into the convolution that produced `value`; returns whether that was possible.

        Batch normalisation, a scale and shift per channel, is folded so. The caller must make sure that nothing else
        reads `value`.
        """
        if value.name not in self._convolutions or factor.data is None or any(side != 1 for side in factor.extent[:-1]):
            return False
        convolution = self._convolutions[value.name]
        if factor.data.size > convolution.bias.size:  # would broadcast one channel to many
            return False
        by_channel = np.broadcast_to(factor.data.reshape(-1), convolution.bias.shape).astype(np.float64)
        if op in ("Mul", "Div"):
            scale = by_channel if op == "Mul" else 1 / by_channel
            convolution.kernel *= scale.reshape(-1, 1, 1, 1)
            convolution.bias *= scale
        else:
            convolution.bias += by_channel if op == "Add" else -by_channel
        return True

    def output(self, name: str, value: Value) -> None:
        """Makes a value an output of the network, under this name."""
        value = self.plain(self.full(value))
        self.nodes.append(helper.make_node("Identity", [self.name_of(value)], [name], name=f"output_{name}"))

    def finish(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        """The graph with all its constants."""
        constants = list(self._initializers.values())
        for convolution in self._convolutions.values():
            for tensor, array in ((convolution.weights, convolution.kernel), (convolution.shift, convolution.bias)):
                constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), tensor))
        return helper.make_graph(self.nodes, name, inputs, outputs, constants)

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem.lower()}_{self._count}"
