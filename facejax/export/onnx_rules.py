"""What each JAX primitive is in ONNX.

A function is traced to a jaxpr with symbolic batch size, whatever depends on weights alone is computed at once, and the
rest is written down node by node. Only what networks of this package use has a rule; another primitive is an error that
names it, never a wrong file.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var
from onnx import TensorProto, helper

from facejax.export.onnx_graph import PLACE_IN_NCHW, TO_NCHW, Graph, Value, constant

# Graph, operands, abstract value of the (first) output, parameters -> the output, or a list of outputs.
Rule = Callable[[Graph, list[Value], Any, dict[str, Any]], Any]
_RULES: dict[str, Rule] = {}

_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "gt": "Greater",
    "lt": "Less",
    "ge": "GreaterOrEqual",
    "le": "LessOrEqual",
    "eq": "Equal",
}
_UNARY = {
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "erf": "Erf",
    "floor": "Floor",
    "sign": "Sign",
    "not": "Not",
}
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_IDENTITIES = ("copy", "copy_p", "stop_gradient", "optimization_barrier")
_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


def _known(function: Callable[..., np.ndarray]) -> Callable[[list[Value], Any, dict[str, Any]], Value]:
    def evaluate(operands: list[Value], aval: Any, params: dict[str, Any]) -> Value:
        return constant(np.asarray(function(*(value.data for value in operands)), aval.dtype), aval.shape)

    return evaluate


# What batch normalisation does to its own statistics, hundreds of times in a network: JAX would compile each shape.
_NUMPY: dict[str, Callable[[list[Value], Any, dict[str, Any]], Any]] = {
    "add": _known(np.add),
    "sub": _known(np.subtract),
    "mul": _known(np.multiply),
    "div": _known(np.divide),
    "rsqrt": _known(lambda x: 1 / np.sqrt(x)),
    "broadcast_in_dim": lambda operands, aval, params: _broadcast(Graph(), operands, aval, params),
    "reshape": lambda operands, aval, params: constant(operands[0].whole().reshape(aval.shape)),
}


def lower(graph: Graph, jaxpr: Any, constants: list[Value], inputs: list[Value]) -> list[Value]:
    """Adds the nodes of a jaxpr to the graph; returns its outputs.

    Raises:
        NotImplementedError: The jaxpr holds a primitive, or a form of one, that has no rule here.
    """
    values: dict[Var, Value] = {**dict(zip(jaxpr.constvars, constants, strict=True))}
    values |= dict(zip(jaxpr.invars, inputs, strict=True))
    readers = _count_readers(jaxpr)

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return constant(np.asarray(atom.val, aval.dtype))
        return values[atom]

    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, [read(atom) for atom in eqn.invars]
        avals: list[Any] = [var.aval for var in eqn.outvars]
        if name in _CALLS:
            inner = _inner_jaxpr(eqn.params)
            form = _FUNCTIONS.get(eqn.params.get("name", ""))
            known = form(graph, operands, avals[0]) if form and not operands[0].is_constant else None
            outputs = (
                [known]
                if known
                else lower(graph, inner.jaxpr, [constant(np.asarray(c)) for c in inner.consts], operands)
            )
        elif all(value.is_constant for value in operands) and _is_static(avals):
            outputs = _evaluate(eqn, operands)
        elif name in _BINARY:
            alone = [not isinstance(atom, Literal) and readers[atom] == 1 for atom in eqn.invars]
            outputs = [_binary(graph, _BINARY[name], operands, avals[0], alone)]
        elif name in _RULES:
            result = _RULES[name](graph, operands, avals[0], eqn.params)
            outputs = result if isinstance(result, list) else [result]
        else:
            raise NotImplementedError(f"no ONNX form is known here for JAX's primitive {name!r} ({eqn})")
        values |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _count_readers(jaxpr: Any) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for atom in [*(atom for eqn in jaxpr.eqns for atom in eqn.invars), *jaxpr.outvars]:
        if not isinstance(atom, Literal):
            counts[atom] = counts.get(atom, 0) + 1
    # What comes from outside may be read there as well.
    return counts | dict.fromkeys(jaxpr.invars, 2)


def _inner_jaxpr(params: dict[str, Any]) -> Any:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            inner = params[key]
            return inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ())
    raise NotImplementedError(f"a call without a jaxpr: {sorted(params)}")


def _is_static(avals: list[Any]) -> bool:
    return all(isinstance(side, int) for aval in avals for side in aval.shape)


def _evaluate(eqn: Any, operands: list[Value]) -> list[Value]:
    """The outputs of a primitive whose operands are all known."""
    if eqn.primitive.name in _NUMPY:
        return [_NUMPY[eqn.primitive.name](operands, eqn.outvars[0].aval, eqn.params)]
    with jax.ensure_compile_time_eval():
        result = eqn.primitive.bind(*(value.whole() for value in operands), **eqn.params)
    results = result if eqn.primitive.multiple_results else [result]
    return [constant(np.asarray(array)) for array in results]


def _binary(graph: Graph, op: str, operands: list[Value], aval: Any, alone: list[bool]) -> Value:
    """An operation of two values of the same logical shape, broadcast by ONNX."""
    for index in (0, 1):
        value, factor = operands[index], operands[1 - index]
        order_matters = op in ("Sub", "Div") and index == 1
        if op in ("Add", "Sub", "Mul", "Div") and not order_matters and alone[index] and graph.fold(op, value, factor):
            return value
    names, stored, nchw = _together(graph, operands)
    return graph.tensor(graph.node(op, names), aval.shape, aval.dtype, nchw=nchw, stored=stored)


def _together(graph: Graph, operands: list[Value]) -> tuple[list[str], tuple, bool]:
    """Names of values that are to be combined element by element, in one order of axes, and the shape they have."""
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


def _clip(graph: Graph, operands: list[Value], aval: Any) -> Value | None:
    """A bound by known numbers; onnxruntime computes it within the convolution before it, other forms after that."""
    value, *bounds = operands
    if not all(bound.is_constant and bound.shape == () for bound in bounds):
        return None
    low_and_high = [graph.initializer(np.asarray(bound.data, aval.dtype)) for bound in bounds]
    return dataclasses.replace(value, name=graph.node("Clip", [graph.name_of(value), *low_and_high]))


def _relu6(graph: Graph, operands: list[Value], aval: Any) -> Value | None:
    return _clip(graph, [*operands, *(constant(np.asarray(bound, aval.dtype)) for bound in (0, 6))], aval)


def _relu(graph: Graph, operands: list[Value], aval: Any) -> Value:
    return dataclasses.replace(operands[0], name=graph.node("Relu", [graph.name_of(operands[0])]))


def _mean_of_pixels(graph: Graph, operands: list[Value], aval: Any) -> Value:
    value = graph.channels_first(graph.full(operands[0]))
    name = graph.node("GlobalAveragePool", [graph.name_of(value)])
    return graph.tensor(name, aval.shape, aval.dtype, nchw=True)


# Jitted functions by name that ONNX has a node for; all others are written down primitive by primitive.
_FUNCTIONS: dict[str, Callable[[Graph, list[Value], Any], Value | None]] = {
    "clip": _clip,
    "relu": _relu,
    "relu6": _relu6,
    "mean_of_pixels": _mean_of_pixels,
}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def _unary(op: str) -> Rule:
    def rule(graph, operands, aval, params):
        (value,) = operands
        name = graph.node(op, [graph.name_of(value)])
        return dataclasses.replace(value, name=name, data=None, stored=value.extent, dtype=np.dtype(aval.dtype))

    return rule


_RULES.update({name: _unary(op) for name, op in _UNARY.items()})


@_rule(*_IDENTITIES)
def _identity(graph, operands, aval, params):
    return list(operands)


@_rule("rsqrt")
def _rsqrt(graph, operands, aval, params):
    return _unary("Reciprocal")(graph, [_unary("Sqrt")(graph, operands, aval, params)], aval, params)


@_rule("square")
def _square(graph, operands, aval, params):
    name = graph.name_of(operands[0])
    return dataclasses.replace(operands[0], name=graph.node("Mul", [name, name]), stored=operands[0].extent)


@_rule("erfc")
def _erfc(graph, operands, aval, params):
    erf = _unary("Erf")(graph, operands, aval, params)
    one = graph.initializer(np.ones((), aval.dtype))
    return dataclasses.replace(erf, name=graph.node("Sub", [one, graph.name_of(erf)]))


@_rule("integer_pow")
def _integer_pow(graph, operands, aval, params):
    exponent = graph.initializer(np.asarray(params["y"], aval.dtype))
    name = graph.node("Pow", [graph.name_of(operands[0]), exponent])
    return dataclasses.replace(operands[0], name=name, stored=operands[0].extent)


@_rule("convert_element_type")
def _cast(graph, operands, aval, params):
    target = helper.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
    name = graph.node("Cast", [graph.name_of(operands[0])], to=target)
    return dataclasses.replace(operands[0], name=name, dtype=np.dtype(aval.dtype), stored=operands[0].extent)


@_rule("select_n")
def _select(graph, operands, aval, params):
    names, stored, nchw = _together(graph, operands)
    which, if_false, if_true = names
    return graph.tensor(
        graph.node("Where", [which, if_true, if_false]), aval.shape, aval.dtype, nchw=nchw, stored=stored
    )


@_rule("clamp")
def _clamp(graph, operands, aval, params):
    low, value, high = operands
    raised = graph.node("Max", [graph.name_of(value), graph.name_of(low)])
    return dataclasses.replace(value, name=graph.node("Min", [raised, graph.name_of(high)]))


@_rule("broadcast_in_dim")
def _broadcast(graph, operands, aval, params):
    value, places = operands[0], params["broadcast_dimensions"]
    sides = [1] * len(aval.shape)
    for axis, place in enumerate(places):
        sides[place] = value.extent[axis]
    if value.data is not None:
        return constant(value.data.reshape(sides), aval.shape)
    if tuple(places) == tuple(range(len(aval.shape))):  # only lengths grow, which ONNX does by itself
        return dataclasses.replace(value, shape=aval.shape)
    value = graph.plain(value)
    new = [axis for axis in range(len(aval.shape)) if axis not in places]
    name = graph.node("Unsqueeze", [graph.name_of(value), graph.integers(*new)])
    return graph.tensor(name, aval.shape, aval.dtype, stored=tuple(sides))


@_rule("reshape")
def _reshape(graph, operands, aval, params):
    value = graph.plain(graph.full(operands[0]))
    unknown = [side for side in aval.shape if not isinstance(side, int)]
    if len(unknown) > 1:
        raise NotImplementedError(f"a reshape to {aval.shape}: ONNX infers one dimension only")
    target = graph.integers(*(side if isinstance(side, int) else -1 for side in aval.shape))
    return graph.tensor(graph.node("Reshape", [graph.name_of(value), target]), aval.shape, aval.dtype)


@_rule("squeeze")
def _squeeze(graph, operands, aval, params):
    value, axes = graph.full(operands[0]), params["dimensions"]
    if value.nchw and axes == (1, 2):
        axes = (2, 3)
    else:
        value = graph.plain(value)
    name = graph.node("Squeeze", [graph.name_of(value), graph.integers(*axes)])
    return graph.tensor(name, aval.shape, aval.dtype)


@_rule("transpose")
def _transpose(graph, operands, aval, params):
    value = graph.plain(graph.full(operands[0]))
    name = graph.node("Transpose", [graph.name_of(value)], perm=params["permutation"])
    return graph.tensor(name, aval.shape, aval.dtype)


@_rule("concatenate")
def _concatenate(graph, operands, aval, params):
    values = [graph.full(value) for value in operands]
    nchw = all(value.nchw for value in values)
    values = values if nchw else [graph.plain(value) for value in values]
    axis = PLACE_IN_NCHW[params["dimension"]] if nchw else params["dimension"]
    name = graph.node("Concat", [graph.name_of(value) for value in values], axis=axis)
    return graph.tensor(name, aval.shape, aval.dtype, nchw=nchw)


@_rule("slice")
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


@_rule("split")
def _split(graph, operands, aval, params):
    value, axis, start, parts = graph.full(operands[0]), params["axis"], 0, []
    for size in params["sizes"]:
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        parts.append(_sliced(graph, value, jax.ShapeDtypeStruct(shape, aval.dtype), [(axis, start, start + size, 1)]))
        start += size
    return parts


@_rule("rev")
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


@_rule("gather")
def _gather(graph, operands, aval, params):
    """Indexing by known numbers: JAX writes ``x[..., ::-1]`` and ``x[:, 1:5]`` so where a side is symbolic."""
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
        raise NotImplementedError(f"an indexing by {numbers}: only one axis, by known numbers")
    if len(indices.shape) != 2:
        value = graph.plain(value)
    picked = graph.initializer(indices.whole()[..., 0].astype(np.int64))
    axis = PLACE_IN_NCHW[axes[0]] if value.nchw else axes[0]
    name = graph.node("Gather", [graph.name_of(value), picked], axis=axis)
    index_places = range(axes[0], axes[0] + len(indices.shape) - 1)
    if tuple(numbers.offset_dims) != tuple(place for place in range(len(aval.shape)) if place not in index_places):
        raise NotImplementedError(f"an indexing by {numbers}: the indexed axis must stay where it is")
    return graph.tensor(name, aval.shape, aval.dtype, nchw=value.nchw)


@_rule("pad")
def _pad(graph, operands, aval, params):
    value, filling = graph.full(operands[0]), operands[1]
    if any(inner or before < 0 or after < 0 for before, after, inner in params["padding_config"]):
        raise NotImplementedError(f"a padding of {params['padding_config']}: only zeros or more, at the ends")
    order = TO_NCHW if value.nchw else range(len(value.shape))
    sides = [params["padding_config"][axis] for axis in order]
    pads = graph.integers(*(side[0] for side in sides), *(side[1] for side in sides))
    name = graph.node("Pad", [graph.name_of(value), pads, graph.name_of(filling)])
    return graph.tensor(name, aval.shape, aval.dtype, nchw=value.nchw)


def _reduction(op: str) -> Rule:
    def rule(graph, operands, aval, params):
        value, axes = graph.full(operands[0]), tuple(params["axes"])
        places = [PLACE_IN_NCHW[axis] for axis in axes] if value.nchw else axes
        if value.nchw and axes != (1, 2):  # the axes that stay would change their order
            value, places = graph.plain(value), axes
        name = graph.node(op, [graph.name_of(value), graph.integers(*places)], keepdims=0)
        return graph.tensor(name, aval.shape, aval.dtype)

    return rule


_RULES.update({name: _reduction(op) for name, op in _REDUCTIONS.items()})


@_rule("top_k")
def _top_k(graph, operands, aval, params):
    value = graph.plain(graph.full(operands[0]))
    names = graph.node("TopK", [graph.name_of(value), graph.integers(params["k"])], outputs=2, axis=-1)
    best = graph.tensor(names[0], aval.shape, aval.dtype)
    indices = graph.node("Cast", [names[1]], to=TensorProto.INT32)
    return [best, graph.tensor(indices, aval.shape, np.dtype(np.int32))]


@_rule("dot_general")
def _dot(graph, operands, aval, params):
    (left_axes, right_axes), batch_axes = params["dimension_numbers"]
    left, right = (graph.plain(graph.full(value)) for value in operands)
    if batch_axes != ((), ()) or tuple(left_axes) != (len(left.shape) - 1,) or tuple(right_axes) != (0,):
        raise NotImplementedError(f"a product over {params['dimension_numbers']}: only rows by columns")
    name = graph.node("MatMul", [graph.name_of(left), graph.name_of(right)])
    return graph.tensor(name, aval.shape, aval.dtype)


@_rule("conv_general_dilated")
def _convolution(graph, operands, aval, params):
    image, kernel = operands
    numbers = params["dimension_numbers"]
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (TO_NCHW, (3, 2, 0, 1), TO_NCHW):
        raise NotImplementedError(f"a convolution of {numbers}: only NHWC with HWIO")
    if not kernel.is_constant or set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise NotImplementedError("a convolution with variable filters, a dilated input or batch groups")
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


@_rule("reduce_window_max")
def _max_pool(graph, operands, aval, params):
    return _pool(graph, "MaxPool", operands, aval, params)


@_rule("reduce_window_sum")
def _sum_pool(graph, operands, aval, params):
    mean = _pool(graph, "AveragePool", operands, aval, params, count_include_pad=1)
    area = graph.initializer(np.asarray(math.prod(params["window_dimensions"]), aval.dtype))
    return dataclasses.replace(mean, name=graph.node("Mul", [graph.name_of(mean), area]))


def _pool(graph: Graph, op: str, operands: list[Value], aval: Any, params: dict[str, Any], **attributes: Any) -> Value:
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    if (
        len(window) != 4
        or (window[0], window[3]) != (1, 1)
        or {*params["base_dilation"], *params["window_dilation"]} != {1}
    ):
        raise NotImplementedError(f"a pooling over windows of {window}: only over height and width")
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
    """ONNX's order: all starts, then all ends."""
    return [before for before, _ in padding] + [after for _, after in padding]
