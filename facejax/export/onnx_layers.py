"""Conversion rules for the building blocks of layers: reductions, matrix products, convolutions and pooling."""

import dataclasses
import math
from typing import Any

import numpy as np
from onnx import TensorProto

from facejax.export.onnx_graph import PLACE_IN_NCHW, TO_NCHW, Graph, Value
from facejax.export.onnx_registry import RULES, Rule, rule_for, rule_for_function

_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"}


def _reduction(op: str) -> Rule:
    def rule(graph, operands, aval, params):
        value, axes = graph.full(operands[0]), tuple(params["axes"])
        places = [PLACE_IN_NCHW[axis] for axis in axes] if value.nchw else axes
        if value.nchw and axes != (1, 2):  # the remaining axes would change their order
            value, places = graph.plain(value), axes
        name = graph.node(op, [graph.name_of(value), graph.integers(*places)], keepdims=0)
        return graph.tensor(name, aval.shape, aval.dtype)

    return rule


RULES.update({name: _reduction(op) for name, op in _REDUCTIONS.items()})


@rule_for("top_k")
def _top_k(graph, operands, aval, params):
    value = graph.plain(graph.full(operands[0]))
    names = graph.node("TopK", [graph.name_of(value), graph.integers(params["k"])], outputs=2, axis=-1)
    best = graph.tensor(names[0], aval.shape, aval.dtype)
    indices = graph.node("Cast", [names[1]], to=TensorProto.INT32)
    return [best, graph.tensor(indices, aval.shape, np.dtype(np.int32))]


@rule_for("dot_general")
def _dot(graph, operands, aval, params):
    (left_axes, right_axes), batch_axes = params["dimension_numbers"]
    left, right = (graph.plain(graph.full(value)) for value in operands)
    if batch_axes != ((), ()) or tuple(left_axes) != (len(left.shape) - 1,) or tuple(right_axes) != (0,):
        raise NotImplementedError(f"a product over {params['dimension_numbers']}: only matrix products")
    name = graph.node("MatMul", [graph.name_of(left), graph.name_of(right)])
    return graph.tensor(name, aval.shape, aval.dtype)


@rule_for("conv_general_dilated")
def _convolution(graph, operands, aval, params):
    image, kernel = operands
    numbers = params["dimension_numbers"]
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (TO_NCHW, (3, 2, 0, 1), TO_NCHW):
        raise NotImplementedError(f"a convolution of {numbers}: only NHWC with HWIO")
    if not kernel.is_constant or set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise NotImplementedError("convolutions with variable filters, dilated inputs or batch groups are unsupported")
    image = graph.channels_first(graph.full(image))
    name = graph.convolution(
        graph.name_of(image),
        kernel.whole().transpose(3, 2, 0, 1),
        strides=params["window_strides"],
        pads=_ends(params["padding"]),
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return graph.tensor(name, aval.shape, aval.dtype, nchw=True)


@rule_for("reduce_window_max")
def _max_pool(graph, operands, aval, params):
    return _pool(graph, "MaxPool", operands, aval, params)


@rule_for("reduce_window_sum")
def _sum_pool(graph, operands, aval, params):
    mean = _pool(graph, "AveragePool", operands, aval, params, count_include_pad=1)
    area = graph.initializer(np.asarray(math.prod(params["window_dimensions"]), aval.dtype))
    return dataclasses.replace(mean, name=graph.node("Mul", [graph.name_of(mean), area]))


@rule_for_function("mean_of_pixels")
def _mean_of_pixels(graph: Graph, operands: list[Value], aval: Any) -> Value:
    value = graph.channels_first(graph.full(operands[0]))
    name = graph.node("GlobalAveragePool", [graph.name_of(value)])
    return graph.tensor(name, aval.shape, aval.dtype, nchw=True)


def _pool(graph: Graph, op: str, operands: list[Value], aval: Any, params: dict[str, Any], **attributes: Any) -> Value:
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    if (
        len(window) != 4
        or (window[0], window[3]) != (1, 1)
        or {*params["base_dilation"], *params["window_dilation"]} != {1}
    ):
        raise NotImplementedError(f"pooling over windows of {window}: only pooling over height and width")
    value = graph.channels_first(graph.full(operands[0]))
    name = graph.node(
        op,
        [graph.name_of(value)],
        kernel_shape=window[1:3],
        strides=strides[1:3],
        pads=_ends(padding[1:3]),
        **attributes,
    )
    return graph.tensor(name, aval.shape, aval.dtype, nchw=True)


def _ends(padding: Any) -> list[int]:
    """Padding in ONNX's order: all starts, then all ends."""
    return [before for before, _ in padding] + [after for _, after in padding]
