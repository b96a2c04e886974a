"""The tables of rules: what a JAX primitive, or a jitted function known by its name, is in ONNX.

Rules stand in `onnx_elementwise`, `onnx_shapes` and `onnx_layers`, and enter themselves here; `onnx_lowering` uses
them.
"""

from collections.abc import Callable
from typing import Any

from facejax.export.onnx_graph import Graph, Value

# Graph, operands, abstract value of the (first) output, parameters -> the output, or a list of outputs.
Rule = Callable[[Graph, list[Value], Any, dict[str, Any]], Any]
# Graph, operands, abstract value of the output -> the output, or None where the operands have no such form.
FunctionRule = Callable[[Graph, list[Value], Any], Value | None]

RULES: dict[str, Rule] = {}
# Jitted functions by name that ONNX has a node for; all others are written down primitive by primitive.
FUNCTION_RULES: dict[str, FunctionRule] = {}


def rule_for(*primitives: str) -> Callable[[Rule], Rule]:
    """Enters the decorated rule under the names of JAX's primitives."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(primitives, rule))
        return rule

    return register


def rule_for_function(name: str) -> Callable[[FunctionRule], FunctionRule]:
    """Enters the decorated rule under the name of a jitted function."""

    def register(rule: FunctionRule) -> FunctionRule:
        FUNCTION_RULES[name] = rule
        return rule

    return register
