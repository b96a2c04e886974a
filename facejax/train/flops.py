"""FLOPs of a step and peak FLOPS of a device: the two sides of the model FLOPs utilisation (MFU)."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

# Dense bfloat16 operations per second of one JAX device, from the vendors' data sheets (on TPU v2 and v3 a device is
# one of the chip's two cores; V100 and T4 support float16 instead of bfloat16). Matched in order against `device_kind`.
PEAK_FLOPS = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("A10G", 70e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("V100", 125e12),
    ("T4", 65e12),
    ("TPU v6 lite", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),
    ("TPU v2", 22.5e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 operations per second of a device, whatever the run's compute type; None if unknown."""
    return next((flops for name, flops in PEAK_FLOPS if name in device_kind), None)


def count_flops(function: Callable, *args: Any) -> int:
    """Floating-point operations of all matrix products and convolutions of a call, over all devices.

    A multiply-add counts as two. Loop bodies count once per iteration (XLA's own cost analysis counts them once, and
    thus only one of SAM's two passes). Element-wise operations are excluded, as is usual for MFU; so are depthwise
    convolutions if they run as shifted multiply-adds (`facejax.models.depthwise`).
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape  # pyright: ignore
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[side] for side in contracted)  # pyright: ignore
    if name == "conv_general_dilated":
        # Each output uses the inputs of its group under the filter: the kernel's size without its output dimension. In
        # a dilated input (the gradient of a strided convolution) only one in `spread` values is non-zero.
        kernel = equation.invars[1].aval.shape  # pyright: ignore
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        spread = math.prod(params["lhs_dilation"])
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // (outputs * spread)  # pyright: ignore
    inner = [_of_jaxpr(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inner)
    if name == "scan":
        return sum(inner) * params["length"]
    if name == "shard_map":
        return sum(inner) * params["mesh"].size
    return sum(inner)


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    value = getattr(value, "jaxpr", value)  # of a closed one
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [jaxpr for item in value for jaxpr in _jaxprs(item)]
    return []
