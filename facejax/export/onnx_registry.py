"""Registry of rules that convert JAX primitives, or jitted functions known by name, to ONNX.

The rules in `onnx_elementwise`, `onnx_shapes` and `onnx_layers` register themselves here; `onnx_lowering` uses them.
"""

from collections.abc import Callable
from typing import Any

from facejax.export.onnx_graph import Graph, Value

# Graph, operands, abstract value of the (first) output, parameters -> the output, or a list of outputs.
Rule = Callable[[Graph, list[Value], Any, dict[str, Any]], Any]
# Graph, operands, abstract value of the output -> the output.
FunctionRule = Callable[[Graph, list[Value], Any], Value]

RULES: dict[str, Rule] = {}
# Jitted functions, by name, that ONNX has a node for; all others are converted primitive by primitive.
FUNCTION_RULES: dict[str, FunctionRule] = {}


def rule_for(*primitives: str) -> Callable[[Rule], Rule]:
    """Registers the decorated rule for JAX primitives."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(primitives, rule))
        return rule

    return register


def rule_for_function(name: str) -> Callable[[FunctionRule], FunctionRule]:
    """Registers the decorated rule for the jitted function of this name."""

    def register(rule: FunctionRule) -> FunctionRule:
        FUNCTION_RULES[name] = rule
        return rule

    return register
