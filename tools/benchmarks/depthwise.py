"""Depthwise convolutions with their gradients, layer by layer: facejax's formulations compared with PyTorch.

The formulation that facejax uses by default on this device comes first, so that the ratios show whether another one
would be faster (the choice is made in `facejax.models.depthwise.resolve`).
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.harness import TRAINING_ENVIRONMENT, Side
from benchmarks.harness import describe as describe_sides
from benchmarks.torch_nets import DEVICES, set_threads

GOAL = "depthwise layers of EfficientNet-B0: facejax's default is its fastest formulation; compared with PyTorch"
UNIT = "photo"
# Formulations of (the output and the input gradient, the filter gradient).
FORMULATIONS: dict[str, tuple[Any, Any]] = {
    "conv": ("conv", "conv"),
    "shift": ("shift", "shift"),
    "shift, filter gradient of conv": ("shift", "conv"),
}


class Layer(NamedTuple):
    """Layers of the same shape: input side in pixels, channels, filter side, stride, and number of such layers."""

    size: int
    channels: int
    kernel: int
    stride: int
    count: int

    def __str__(self) -> str:
        return f"{self.size} px, {self.channels} ch, {self.kernel} x {self.kernel} / {self.stride}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for sizes and precision."""
    parser.add_argument(
        "--size", type=int, default=224, help="input side of the network, pixels (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--calls", type=int, default=3, help="calls of each layer per round (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")


def sides(args: argparse.Namespace) -> list[Side]:
    """One side per formulation, and one for PyTorch."""
    shared = {"size": args.size, "batch": args.batch, "calls": args.calls, "dtype": args.dtype}
    taken = {"cpu": "shift", "gpu": "conv"}[args.device]
    ours = [
        Side(f"facejax, {name}", "depthwise.facejax", {**shared, "formulation": name}, environment=TRAINING_ENVIRONMENT)
        for name in sorted(FORMULATIONS, key=lambda name: name != taken)
    ]
    device = DEVICES[args.device]
    return [*ours, Side("PyTorch", "depthwise.pytorch", {**shared, "device": device})]


def describe(result: Mapping[str, Any]) -> str:
    """Describes the sides, with the milliseconds of each layer."""
    names = [side["name"] for side in result["sides"]]
    lines = [describe_sides(result), "ms per call, with both gradients: " + "; ".join(names)]
    for key in result["sides"][0]["summary"]:
        if " px, " in key:
            lines.append(f"  {key:30s}" + "".join(f"{1e3 * side['summary'][key]:10.3f}" for side in result["sides"]))
    return "\n".join(lines)


def layers(size: int) -> list[Layer]:
    """The depthwise layers of EfficientNet-B0, grouped by shape."""
    from facejax.models.efficientnet import STAGES, STEM_CHANNELS

    size, channels = -(-size // 2), STEM_CHANNELS
    counts: dict[tuple[int, int, int, int], int] = {}
    for repeats, kernel, stride, expansion, outputs in STAGES:
        for block in range(repeats):
            shape = (size, channels * expansion, kernel, stride if block == 0 else 1)
            counts[shape] = counts.get(shape, 0) + 1
            size, channels = -(-size // shape[3]), outputs
    return [Layer(*shape, count) for shape, count in counts.items()]


def facejax(size: int, batch: int, calls: int, dtype: str, formulation: str) -> Callable[[], dict]:
    """Rounds that call the jitted output and gradients of each layer."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from facejax.models.depthwise import depthwise_conv

    of_input, of_filter = FORMULATIONS[formulation]

    def prepare(layer: Layer) -> Callable[[], None]:
        rng = np.random.default_rng(0)
        stride = layer.stride
        sides, _ = jax.lax.padtype_to_pads((layer.size,) * 2, (layer.kernel,) * 2, (stride,) * 2, "SAME")
        x = jnp.asarray(rng.standard_normal((batch, layer.size, layer.size, layer.channels)), dtype)
        kernel = jnp.asarray(rng.standard_normal((layer.kernel, layer.kernel, 1, layer.channels)), jnp.float32)

        @jax.jit
        def value_and_gradients(x, kernel, dy):
            value, pull_x = jax.vjp(lambda x: depthwise_conv(x, kernel, stride, (sides, sides), of_input), x)
            _, pull_kernel = jax.vjp(lambda k: depthwise_conv(x, k, stride, (sides, sides), of_filter), kernel)
            return value, pull_x(dy), pull_kernel(dy)

        side = -(-layer.size // stride)
        dy = jnp.asarray(rng.standard_normal((batch, side, side, layer.channels)), dtype)

        def call() -> None:
            for _ in range(calls):
                out = value_and_gradients(x, kernel, dy)
            jax.block_until_ready(out)

        return call

    return _rounds(size, batch, calls, prepare)


def pytorch(size: int, batch: int, calls: int, dtype: str, device: str) -> Callable[[], dict]:
    """The same in PyTorch, channels last; TensorFlow's one-sided padding is part of the input."""
    import torch

    set_threads()

    def prepare(layer: Layer) -> Callable[[], None]:
        total = max((-(-layer.size // layer.stride) - 1) * layer.stride + layer.kernel - layer.size, 0)
        uneven = total % 2
        options = {"dtype": getattr(torch, dtype), "device": device}
        x = torch.randn(batch, layer.channels, layer.size + uneven, layer.size + uneven, **options)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        kernel = torch.randn(layer.channels, 1, layer.kernel, layer.kernel, **options).requires_grad_()
        side = -(-layer.size // layer.stride)
        dy = torch.randn(batch, layer.channels, side, side, **options).to(memory_format=torch.channels_last)

        def call() -> None:
            for _ in range(calls):
                y = torch.nn.functional.conv2d(
                    x, kernel, stride=layer.stride, padding=total // 2, groups=layer.channels
                )
                torch.autograd.grad(y, (x, kernel), dy)
            if device == "cuda":
                torch.cuda.synchronize()

        return call

    return _rounds(size, batch, calls, prepare)


def _rounds(size: int, batch: int, calls: int, prepare: Callable[[Layer], Callable[[], None]]) -> Callable[[], dict]:
    """Rounds of all layers in turn, after a warm-up call of each."""
    ready = [(layer, prepare(layer)) for layer in layers(size)]
    for _, call in ready:
        call()

    def work() -> dict:
        wall, processor, figures = 0.0, 0.0, {}
        for layer, call in ready:
            start, start_of_processor = time.perf_counter(), time.process_time()
            call()
            figures[str(layer)] = (time.perf_counter() - start) / calls
            wall += layer.count * figures[str(layer)]
            processor += layer.count * (time.process_time() - start_of_processor) / calls
        return {"items": batch, "wall_s": wall, "cpu_s": processor, **figures}

    return work
