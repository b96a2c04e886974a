"""Converts JAX functions to ONNX nodes by walking over a jaxpr.

A function is traced to a jaxpr with a symbolic batch size. Whatever depends on weights alone is evaluated immediately,
and the rest is converted node by node. Only primitives used by networks of this package have a rule; any other one
raises an error that names it, rather than producing a wrong file.
"""

import collections
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal, Var

# All modules with rules: importing one registers its rules in `onnx_registry`.
from facejax.export import onnx_elementwise, onnx_layers, onnx_shapes  # noqa: F401
from facejax.export.onnx_graph import Graph, Value, constant
from facejax.export.onnx_registry import FUNCTION_RULES, RULES

# Primitives that call a function, and the parameter that is its jaxpr.
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def _known(function: Callable[..., np.ndarray]) -> Callable[[list[Value], Any, dict[str, Any]], Value]:
    def evaluate(operands: list[Value], aval: Any, params: dict[str, Any]) -> Value:
        return constant(np.asarray(function(*(value.data for value in operands)), aval.dtype), aval.shape)

    return evaluate


# Applied to batch normalisation statistics, hundreds of times in a network: JAX would compile it for each shape.
_NUMPY: dict[str, Callable[[list[Value], Any, dict[str, Any]], Any]] = {
    "add": _known(np.add),
    "sub": _known(np.subtract),
    "mul": _known(np.multiply),
    "div": _known(np.divide),
    "rsqrt": _known(lambda x: 1 / np.sqrt(x)),
    "broadcast_in_dim": lambda operands, aval, params: onnx_shapes.broadcast(Graph(), operands, aval, params),
    "reshape": lambda operands, aval, params: constant(operands[0].whole().reshape(aval.shape)),
}


def lower(graph: Graph, jaxpr: Any, constants: list[Value], inputs: list[Value]) -> list[Value]:
    """Adds the nodes of a jaxpr to the graph; returns its outputs.

    Raises:
        NotImplementedError: The jaxpr contains a primitive, or a variant of one, that has no rule.
    """
    values: dict[Var, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))
    readers = _count_readers(jaxpr)
    # Counted per tensor, as several variables may share one. Inputs may have further readers outside this jaxpr.
    readers_of = collections.Counter({value.name: 2 for value in inputs})

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            aval: Any = atom.aval
            return constant(np.asarray(atom.val, aval.dtype))
        return values[atom]

    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, [read(atom) for atom in eqn.invars]
        avals: list[Any] = [var.aval for var in eqn.outvars]
        if name in _CALLS:
            inner, rule = eqn.params[_CALLS[name]], FUNCTION_RULES.get(eqn.params.get("name", ""))
            if rule and not operands[0].is_constant:
                outputs = [rule(graph, operands, avals[0])]
            else:
                outputs = lower(graph, inner.jaxpr, [constant(np.asarray(c)) for c in inner.consts], operands)
        elif all(value.is_constant for value in operands) and _is_static(avals):
            outputs = _evaluate(eqn, operands)
        elif name in onnx_elementwise.BINARY:
            alone = [readers_of[value.name] == 1 for value in operands]
            outputs = [onnx_elementwise.binary(graph, onnx_elementwise.BINARY[name], operands, avals[0], alone)]
            if outputs[0].name in [value.name for value in operands]:  # folded, so this equation does not read it
                readers_of[outputs[0].name] -= 1
        elif name in RULES:
            result = RULES[name](graph, operands, avals[0], eqn.params)
            outputs = result if isinstance(result, list) else [result]
        else:
            raise NotImplementedError(f"there is no ONNX conversion rule for the JAX primitive {name!r} ({eqn})")
        for var, output in zip(eqn.outvars, outputs, strict=True):
            values[var] = output
            readers_of[output.name] += readers[var]
    return [read(atom) for atom in jaxpr.outvars]


def _count_readers(jaxpr: Any) -> collections.Counter[Any]:
    atoms = [*(atom for eqn in jaxpr.eqns for atom in eqn.invars), *jaxpr.outvars]
    return collections.Counter(atom for atom in atoms if not isinstance(atom, Literal))


def _is_static(avals: list[Any]) -> bool:
    return all(isinstance(side, int) for aval in avals for side in aval.shape)


def _evaluate(eqn: Any, operands: list[Value]) -> list[Value]:
    """Outputs of a primitive whose operands are all constant."""
    if eqn.primitive.name in _NUMPY:
        return [_NUMPY[eqn.primitive.name](operands, eqn.outvars[0].aval, eqn.params)]
    with jax.ensure_compile_time_eval():
        result = eqn.primitive.bind(*(value.whole() for value in operands), **eqn.params)
    results = result if eqn.primitive.multiple_results else [result]
    return [constant(np.asarray(array)) for array in results]
