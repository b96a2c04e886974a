"""Conversion rules for elementwise operations: arithmetic, comparison, activations, casts."""

import dataclasses
from typing import Any

import numpy as np
from onnx import helper

from facejax.export.onnx_graph import TO_NCHW, Graph, Value
from facejax.export.onnx_registry import RULES, Rule, rule_for, rule_for_function

BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "gt": "Greater",
}
_UNARY = {"neg": "Neg", "exp": "Exp", "logistic": "Sigmoid"}


def binary(graph: Graph, op: str, operands: list[Value], aval: Any, alone: list[bool]) -> Value:
    """A binary operation on values of the same logical shape, broadcast by ONNX.

    Not a `Rule`: whether it can be folded into the preceding convolution depends on the other uses of its operands.

    Args:
        graph: The graph that its node is added to.
        op: Its ONNX name, one of `BINARY`.
        operands: The two values.
        aval: Abstract value of the output.
        alone: For each operand, whether nothing else reads its tensor.
    """
    for index in (0, 1):
        value, factor = operands[index], operands[1 - index]
        order_matters = op in ("Sub", "Div") and index == 1
        if op in ("Add", "Sub", "Mul", "Div") and not order_matters and alone[index] and graph.fold(op, value, factor):
            return value
    names, stored, nchw = _together(graph, operands)
    return graph.tensor(graph.node(op, names), aval.shape, aval.dtype, nchw=nchw, stored=stored)


def _together(graph: Graph, operands: list[Value]) -> tuple[list[str], tuple, bool]:
    """Names of the operands of an elementwise operation in a common layout, their joint stored shape, and if NCHW."""
    nchw = any(value.nchw for value in operands)
    names = []
    for value in operands:
        if nchw and value.data is not None and value.data.ndim == 4:
            names.append(graph.initializer(value.data.transpose(TO_NCHW)))
        elif nchw and value.data is None:
            names.append(graph.name_of(graph.channels_first(value)))
        else:
            names.append(graph.name_of(value))
    extents = [value.extent for value in operands if len(value.extent)]
    stored = tuple(next((side for side in sides if side != 1), 1) for sides in zip(*extents, strict=True))
    return names, stored, nchw


def _computed(value: Value, name: str, aval: Any) -> Value:
    """The output of a node that computes it elementwise from `value`, in the same layout."""
    return dataclasses.replace(value, name=name, data=None, stored=value.extent, dtype=np.dtype(aval.dtype))


def _unary(op: str) -> Rule:
    def rule(graph, operands, aval, params):
        (value,) = operands
        return _computed(value, graph.node(op, [graph.name_of(value)]), aval)

    return rule


RULES.update({name: _unary(op) for name, op in _UNARY.items()})


@rule_for("copy", "stop_gradient", "optimization_barrier")
def _identity(graph, operands, aval, params):
    return list(operands)


@rule_for("rsqrt")
def _rsqrt(graph, operands, aval, params):
    return _unary("Reciprocal")(graph, [_unary("Sqrt")(graph, operands, aval, params)], aval, params)


@rule_for("square")
def _square(graph, operands, aval, params):
    name = graph.name_of(operands[0])
    return _computed(operands[0], graph.node("Mul", [name, name]), aval)


@rule_for("erfc")
def _erfc(graph, operands, aval, params):
    erf = _unary("Erf")(graph, operands, aval, params)
    one = graph.initializer(np.ones((), aval.dtype))
    return _computed(erf, graph.node("Sub", [one, graph.name_of(erf)]), aval)


@rule_for("convert_element_type")
def _cast(graph, operands, aval, params):
    target = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
    return _computed(operands[0], graph.node("Cast", [graph.name_of(operands[0])], to=target), aval)


@rule_for("select_n")
def _select(graph, operands, aval, params):
    names, stored, nchw = _together(graph, operands)
    which, if_false, if_true = names
    return graph.tensor(
        graph.node("Where", [which, if_true, if_false]), aval.shape, aval.dtype, nchw=nchw, stored=stored
    )


@rule_for_function("relu6")
def _relu6(graph: Graph, operands: list[Value], aval: Any) -> Value:
    """A node for both bounds, which onnxruntime fuses into the preceding convolution, unlike other forms."""
    bounds = [graph.initializer(np.asarray(bound, aval.dtype)) for bound in (0, 6)]
    return _computed(operands[0], graph.node("Clip", [graph.name_of(operands[0]), *bounds]), aval)


@rule_for_function("relu")
def _relu(graph: Graph, operands: list[Value], aval: Any) -> Value:
    return _computed(operands[0], graph.node("Relu", [graph.name_of(operands[0])]), aval)
