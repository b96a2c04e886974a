"""Conversion rules for shape operations: broadcasting, reshaping, slicing, indexing, padding."""

import dataclasses
from typing import Any

import jax
import numpy as np

from facejax.export.onnx_graph import PLACE_IN_NCHW, TO_NCHW, Graph, Value, constant
from facejax.export.onnx_registry import rule_for


@rule_for("broadcast_in_dim")
def broadcast(graph, operands, aval, params):
    """Broadcasts a value to more or longer axes; constants stay constants."""
    value, places = operands[0], params["broadcast_dimensions"]
    sides = [1] * len(aval.shape)
    for axis, place in enumerate(places):
        sides[place] = value.extent[axis]
    if value.data is not None:
        return constant(value.data.reshape(sides), aval.shape)
    if tuple(places) == tuple(range(len(aval.shape))):  # only lengths grow, which ONNX broadcasts implicitly
        return dataclasses.replace(value, shape=aval.shape)
    value = graph.plain(value)
    new = [axis for axis in range(len(aval.shape)) if axis not in places]
    name = graph.node("Unsqueeze", [graph.name_of(value), graph.integers(*new)])
    return graph.tensor(name, aval.shape, aval.dtype, stored=tuple(sides))


@rule_for("reshape")
def _reshape(graph, operands, aval, params):
    value = graph.plain(graph.full(operands[0]))
    unknown = [side for side in aval.shape if not isinstance(side, int)]
    if len(unknown) > 1:
        raise NotImplementedError(f"a reshape to {aval.shape}: ONNX infers one dimension only")
    target = graph.integers(*(side if isinstance(side, int) else -1 for side in aval.shape))
    return graph.tensor(graph.node("Reshape", [graph.name_of(value), target]), aval.shape, aval.dtype)


@rule_for("squeeze")
def _squeeze(graph, operands, aval, params):
    value, axes = graph.full(operands[0]), params["dimensions"]
    if value.nchw and axes == (1, 2):
        axes = (2, 3)
    else:
        value = graph.plain(value)
    name = graph.node("Squeeze", [graph.name_of(value), graph.integers(*axes)])
    return graph.tensor(name, aval.shape, aval.dtype)


@rule_for("transpose")
def _transpose(graph, operands, aval, params):
    value = graph.plain(graph.full(operands[0]))
    name = graph.node("Transpose", [graph.name_of(value)], perm=params["permutation"])
    return graph.tensor(name, aval.shape, aval.dtype)


@rule_for("concatenate")
def _concatenate(graph, operands, aval, params):
    values = [graph.full(value) for value in operands]
    nchw = all(value.nchw for value in values)
    values = values if nchw else [graph.plain(value) for value in values]
    axis = PLACE_IN_NCHW[params["dimension"]] if nchw else params["dimension"]
    name = graph.node("Concat", [graph.name_of(value) for value in values], axis=axis)
    return graph.tensor(name, aval.shape, aval.dtype, nchw=nchw)


@rule_for("slice")
def _slice(graph, operands, aval, params):
    value = graph.full(operands[0])
    steps = params["strides"] or (1,) * len(aval.shape)
    triples = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    cut = [
        (axis, *triple)
        for axis, (triple, side) in enumerate(zip(triples, value.shape, strict=True))
        if triple != (0, side, 1)
    ]
    return _sliced(graph, value, aval, cut)


@rule_for("split")
def _split(graph, operands, aval, params):
    value, axis, start, parts = graph.full(operands[0]), params["axis"], 0, []
    for size in params["sizes"]:
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        parts.append(_sliced(graph, value, jax.ShapeDtypeStruct(shape, aval.dtype), [(axis, start, start + size, 1)]))
        start += size
    return parts


@rule_for("rev")
def _reverse(graph, operands, aval, params):
    value = graph.full(operands[0])
    least = np.iinfo(np.int64).min
    return _sliced(graph, value, aval, [(axis, -1, least, -1) for axis in params["dimensions"]])


def _sliced(graph: Graph, value: Value, aval: Any, cut: list[tuple]) -> Value:
    if not cut:
        return value
    axes, starts, ends, steps = zip(*cut, strict=True)
    axes = [PLACE_IN_NCHW[axis] for axis in axes] if value.nchw else axes
    inputs = [graph.name_of(value), *(graph.integers(*numbers) for numbers in (starts, ends, axes, steps))]
    return graph.tensor(graph.node("Slice", inputs), aval.shape, aval.dtype, nchw=value.nchw)


@rule_for("gather")
def _gather(graph, operands, aval, params):
    """Indexing by constants: how JAX traces ``x[..., ::-1]`` and ``x[:, 1:5]`` when a side is symbolic."""
    value, indices = graph.full(operands[0]), operands[1]
    numbers = params["dimension_numbers"]
    if indices.is_constant and len(indices.shape) == 1 and not numbers.collapsed_slice_dims:
        starts = zip(numbers.start_index_map, indices.whole().tolist(), strict=True)
        cut = [(axis, start, start + params["slice_sizes"][axis], 1) for axis, start in starts]
        return _sliced(graph, value, aval, cut)
    axes = tuple(numbers.collapsed_slice_dims)
    whole = [size for axis, size in enumerate(params["slice_sizes"]) if axis not in axes]
    others = [side for axis, side in enumerate(value.shape) if axis not in axes]
    if not (indices.is_constant and len(axes) == 1 and tuple(numbers.start_index_map) == axes and whole == others):
        raise NotImplementedError(f"indexing by {numbers}: only one axis, by constant indices")
    if len(indices.shape) != 2:
        value = graph.plain(value)
    picked = graph.initializer(indices.whole()[..., 0].astype(np.int64))
    axis = PLACE_IN_NCHW[axes[0]] if value.nchw else axes[0]
    name = graph.node("Gather", [graph.name_of(value), picked], axis=axis)
    index_places = range(axes[0], axes[0] + len(indices.shape) - 1)
    if tuple(numbers.offset_dims) != tuple(place for place in range(len(aval.shape)) if place not in index_places):
        raise NotImplementedError(f"indexing by {numbers}: the indexed axis must keep its position")
    return graph.tensor(name, aval.shape, aval.dtype, nchw=value.nchw)


@rule_for("pad")
def _pad(graph, operands, aval, params):
    value, filling = graph.full(operands[0]), operands[1]
    if any(inner or before < 0 or after < 0 for before, after, inner in params["padding_config"]):
        raise NotImplementedError(f"padding of {params['padding_config']}: only non-negative padding at the ends")
    order = TO_NCHW if value.nchw else range(len(value.shape))
    sides = [params["padding_config"][axis] for axis in order]
    pads = graph.integers(*(side[0] for side in sides), *(side[1] for side in sides))
    name = graph.node("Pad", [graph.name_of(value), pads, graph.name_of(filling)])
    return graph.tensor(name, aval.shape, aval.dtype, nchw=value.nchw)
