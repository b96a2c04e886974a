r"""Compiles a training step for a GPU that is not present, and reports its kernels, memory traffic and memory use.

    pip install 'jax[cuda13]'            # XLA's GPU compiler; needs neither a device nor a driver
    python tools/plan_gpu.py --model tf_efficientnet_b0 --size 224 --batch 64 --dtype bfloat16

The traffic is the sum of what all kernels read and write (operands and results, multiplied by the trip count inside
loops), assuming that nothing stays in a cache. Divided by the device's bandwidth, it gives a time that the step can
hardly beat. No kernel is timed: the efficiency of cuDNN's convolutions is not considered, and nothing printed here is a
measurement of a GPU.
"""

import argparse
import collections
import dataclasses
import math
import os
import re
import sys
import unittest.mock
from collections.abc import Iterator
from typing import Any

BANDWIDTH = 4.8e12  # bytes per second of an H200, from its data sheet
# XLA's description of an H200 (stream_executor.GpuTargetConfigProto); the versions are those of the CUDA wheels.
TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  l2_cache_size: 62914560
  clock_rate_ghz: 1.98
  device_memory_size: 150754820096
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H200"
"""
_BYTES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<op>[\w\-]+)\((?P<rest>.*)")
_NO_KERNEL = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast"}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel of a compiled program.

    Attributes:
        name: Name of its instruction; identical kernels share the name of one of them.
        kind: Operation; for a fusion its kind, for a library kernel its name.
        layer: Its origin: the names of JAX's and Flax's scopes.
        calls: Number of times it runs.
        traffic: Bytes of its operands and results, over all calls.
    """

    name: str
    kind: str
    layer: str
    calls: int
    traffic: int


def kernels(program: str) -> Iterator[Kernel]:
    """Yields the kernels of an optimised HLO module given as text."""
    bodies: dict[str, list[re.Match]] = {}
    entry = body = ""
    for line in program.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            body = header[2]
            bodies[body] = []
            entry = body if header[1] else entry
        elif body and (instruction := _INSTRUCTION.match(line)):
            bodies[body].append(instruction)
    yield from _kernels_of(bodies, entry, 1)


def _kernels_of(bodies: dict[str, list[re.Match]], body: str, calls: int) -> Iterator[Kernel]:
    sizes = {found["name"]: _size(found["type"]) for found in bodies[body]}
    for found in bodies[body]:
        op, rest = found["op"], found["rest"]
        if op == "while":
            trips = re.search(r'known_trip_count\D*"(\d+)"', rest)
            inner = _search(r"body=%?([\w.\-]+)", rest)
            yield from _kernels_of(bodies, inner, calls * (int(trips[1]) if trips else 1))
        elif op not in _NO_KERNEL:
            kind = _search(r'custom_call_target="([^"]+)"', rest) or _search(r"kind=(\w+)", rest) or op
            operands = [sizes.get(name, 0) for name in _operands(rest)]
            read = _sizes_read(bodies.get(_search(r"calls=%?([\w.\-]+)", rest), []), operands)
            traffic = sizes[found["name"]] + sum(read)
            yield Kernel(found["name"], kind, _search(r'op_name="([^"]*)"', rest), calls, calls * traffic)


def _operands(rest: str) -> list[str]:
    return re.findall(r"%([\w.\-]+)", rest.split("), ")[0])


def _sizes_read(fused: list[re.Match], operands: list[int]) -> list[int]:
    """Bytes that a kernel reads of each operand; only the slices, if slices are all it uses."""
    users: dict[str, list[re.Match]] = collections.defaultdict(list)
    for found in fused:
        for name in _operands(found["rest"]):
            users[name].append(found)

    def slices(value: re.Match) -> dict[str, float]:
        """Fractions of a value that are used, by their position."""
        used: dict[str, float] = {}
        for user in users[value["name"]]:
            if user["op"] in ("slice", "dynamic-slice"):
                place = _search(r"(slice=\{.*?\})", user["rest"]) or user["name"]
                used[place] = _elements(user["type"]) / _elements(value["type"])
            elif user["op"] != "tuple" and _elements(user["type"]) == _elements(value["type"]):
                used |= slices(user)  # elementwise: what is not used later is not read
            else:
                return {"": 1.0}
        return used or {"": 1.0}

    read = list(operands)
    for parameter in (found for found in fused if found["op"] == "parameter"):
        index = int(parameter["rest"].partition(")")[0])
        read[index] = round(operands[index] * min(1, sum(slices(parameter).values())))
    return read


def scope(kernel: Kernel) -> tuple[str, str]:
    """Direction (forward, backward or update) and layer of a kernel of a training step."""
    if "jvp(" not in kernel.layer:
        return "update", ""
    layer = _search(r"/(bn\d|conv_\w+|se|head\w*)(?:/|$)", kernel.layer) or kernel.layer.rpartition("/")[2]
    return "backward" if "transpose(jvp" in kernel.layer else "forward", layer


def _search(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _arrays(shape: str) -> list[tuple[str, int]]:
    """Type and number of elements of all arrays in a type such as ``(f32[2,3]{1,0}, u8[])``."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return [(dtype, math.prod(int(side) for side in sides.split(",") if side)) for dtype, sides in found]


def _size(shape: str) -> int:
    return sum(_BYTES.get(dtype, 0) * elements for dtype, elements in _arrays(shape))


def _elements(shape: str) -> int:
    return sum(elements for _, elements in _arrays(shape))


def compile_step(model: str, size: int, batch: int, dtype: str, depthwise: str, rho: float):
    """The training step of SAM on top of Adam for all weights, compiled for one device of `TARGET`."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from facejax.config import LossConfig, SamConfig, StageConfig
    from facejax.models import create_model, pretrained_cfg
    from facejax.models.face_model import abstract_variables
    from facejax.tasks import TASKS
    from facejax.train.parallel import COMPILER_OPTIONS
    from facejax.train.state import TrainState
    from facejax.train.step import make_optimizer, make_step_functions

    devices = topologies.get_topology_desc(platform="cuda", target_config=TARGET, topology="1x1x1").devices
    place = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec())
    task, stage = TASKS["emotion8"], StageConfig()
    network = create_model(model, tasks=(task.name,), dtype=jnp.dtype(dtype), depthwise=depthwise)  # pyright: ignore
    preprocessing = dataclasses.replace(pretrained_cfg(model).preprocessing, image_size=size)
    tx, weights = make_optimizer(stage, 1), {task.name: jnp.ones(task.num_outputs)}
    functions = make_step_functions(
        network, [task], preprocessing, tx, weights, stage, SamConfig(rho=rho), LossConfig(), join_weights=True
    )

    def fresh(variables):
        step, rng = jnp.zeros((), jnp.int32), jax.random.key(0)
        params, batch_stats = variables["params"], variables["batch_stats"]
        return TrainState(step, params, batch_stats, tx.init(params), rng)

    state = jax.eval_shape(fresh, abstract_variables(network, size))
    photos = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        task.label_key: jax.ShapeDtypeStruct((batch,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((batch,), jnp.float32),
    }
    step = jax.jit(functions.train, in_shardings=place, out_shardings=place, donate_argnums=0)
    # Without a device, autotuning is impossible: every library call uses its default algorithm.
    options: Any = {**COMPILER_OPTIONS, "xla_gpu_autotune_level": 0}
    with unittest.mock.patch("jax.default_backend", return_value="gpu"):  # queried by code that depends on the platform
        lowered = step.lower(state, photos)
    return lowered.compile(compiler_options=options)


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the training step and the length of the report."""
    parser.add_argument("--model", default="tf_efficientnet_b0", help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="(default: %(default)s)")
    parser.add_argument(
        "--rho", type=float, default=0.05, help="radius of SAM; 0 for plain Adam (default: %(default)s)"
    )
    parser.add_argument(
        "--top", type=int, default=20, help="number of groups and kernels to list (default: %(default)s)"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_step_arguments(parser)
    parser.add_argument("--depthwise", choices=("auto", "conv", "shift"), default="auto", help="(default: %(default)s)")
    args = parser.parse_args(arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"  # JAX must not look for the GPU, which does not exist
    try:
        compiled = compile_step(args.model, args.size, args.batch, args.dtype, args.depthwise, args.rho)
    except NotImplementedError as error:
        print(f"plan_gpu: the GPU compiler is not available ({error}); pip install 'jax[cuda13]'", file=sys.stderr)
        return 1
    found = list(kernels(compiled.as_text() or ""))
    traffic, memory = sum(kernel.traffic for kernel in found), compiled.memory_analysis()
    temporary, state = memory.temp_size_in_bytes / 2**20, memory.argument_size_in_bytes / 2**20  # pyright: ignore
    print(f"{args.model}, {args.size} px, batch {args.batch}, {args.dtype}, compiled for an H200; nothing was executed")
    print(f"kernels  {sum(kernel.calls for kernel in found):,} per step")
    print(f"traffic  {traffic / 1e9:.1f} GB, {1e3 * traffic / BANDWIDTH:.1f} ms at the H200's {BANDWIDTH / 1e12} TB/s")
    print(f"memory   {temporary:,.0f} MiB, plus {state:,.0f} for state and batch")
    groups: dict[tuple[str, str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
    for kernel in found:
        group = groups[(*scope(kernel), kernel.kind)]
        group[0] += kernel.traffic
        group[1] += kernel.calls
    for (direction, layer, kind), (bytes_, calls) in sorted(groups.items(), key=lambda item: -item[1][0])[: args.top]:
        print(f"{bytes_ / 1e9:8.2f} GB {calls:6d} calls  {direction:8s} {layer:10s} {kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
