"""Placement of the step on devices: the same pure functions under `jax.jit` over a mesh, or under `jax.pmap`.

``jit``: the batch is sharded over all devices of all processes and the step is that of the whole batch (loss, SAM
perturbation and BatchNorm statistics are global), so the result does not depend on the number of devices.

``pmap``: each device computes its part of the batch, with its own BatchNorm statistics and, unless synced, its own SAM
perturbation (m-SAM, Foret et al. 2021); gradients, statistics and metrics are averaged. (`jax.shard_map`, with its
default ``check_vma=True``, would implicitly sum the gradient of replicated parameters over the devices: the
perturbation would no longer be local, and the gradient too large by the number of devices, which Adam hides.)
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facejax.config import Config, StageConfig
from facejax.preprocessing import Preprocessing
from facejax.tasks import Task
from facejax.train.flops import count_flops
from facejax.train.memory import return_freed_memory
from facejax.train.sam import JOINED_BELOW
from facejax.train.state import TrainState
from facejax.train.step import Batch, StepFunctions, make_step_functions

PMAP_AXIS = "batch"
# By default XLA keeps values in float32 that are rounded to bfloat16 and then used in float32 again, which doubles the
# memory traffic.
COMPILER_OPTIONS = {"xla_allow_excess_precision": False}
# Smaller arrays are replicated: gathering one costs more than its memory is worth, and SAM joins them.
MIN_SHARDED_ELEMENTS = JOINED_BELOW

ShardingMode = Literal["none", "optimizer", "full"]


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A training step, compiled for the shapes and the placement of one state and batch.

    Attributes:
        call: (state, batch) -> (state, metrics); the state's buffers are donated.
        program: The compiled program that it calls.
        seconds: Time to trace and compile it, or to load it from the compilation cache.
        flops: Floating-point operations of its products and convolutions, over all devices (`flops.count_flops`).
        bytes_per_device: Memory of its arguments, results and temporary values, as planned by XLA.
    """

    call: Callable[[Any, Batch], tuple[Any, dict[str, jax.Array]]]
    program: jax.stages.Compiled
    seconds: float
    flops: int
    bytes_per_device: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """A stage's functions on the devices.

    Attributes:
        put_state: Puts a state on the devices in the form in which it is saved and evaluated.
        to_step: Converts that form to the one that the step takes and returns.
        from_step: The inverse of `to_step`.
        gather: Replicates sharded arrays on every device, for the host to read.
        put_batch: Puts this process's part of a host batch on the devices.
        put_eval_batch: The same for evaluation.
        compile: (state, batch) -> compiled step for a state from `to_step` and a batch from `put_batch`.
        evaluate: (params, batch_stats, batch) -> outputs; takes variables as returned by `from_step`.
        features: The same, for the pooled features.
    """

    put_state: Callable[[TrainState], TrainState]
    to_step: Callable[[TrainState], Any]
    from_step: Callable[[Any], TrainState]
    gather: Callable[[Any], Any]
    put_batch: Callable[[Batch], Batch]
    put_eval_batch: Callable[[Batch], Batch]
    compile: Callable[[Any, Batch], CompiledStep]
    evaluate: Callable[[Any, Any, Batch], Any]
    features: Callable[[Any, Any, Batch], jax.Array]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis ``data`` over all devices (or the given ones)."""
    return Mesh(np.asarray(devices or jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def leaf_sharding(mesh: Mesh, leaf: Any) -> NamedSharding:
    """The sharding of an array that is split equally over the devices, along the longest axis that divides evenly.

    An array without such an axis, or a small one, is replicated.
    """
    sides = [side for side in range(leaf.ndim) if leaf.shape[side] % mesh.size == 0]
    if leaf.size < MIN_SHARDED_ELEMENTS or not sides:
        return replicated(mesh)
    longest = max(sides, key=lambda side: leaf.shape[side])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "data"))


def state_shardings(state: TrainState, mesh: Mesh, sharing: ShardingMode) -> TrainState:
    """The sharding of every leaf of a state: replicated or split over the devices (`Config.sharding`)."""
    whole = jax.tree.map(lambda _: replicated(mesh), state)
    changes = {}
    if sharing != "none":
        changes["opt_state"] = jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf), state.opt_state)
    if sharing == "full":
        changes["params"] = jax.tree.map(lambda leaf: leaf_sharding(mesh, leaf), state.params)
    return dataclasses.replace(whole, **changes)


def axis_name(kind: Literal["jit", "pmap"]) -> str | None:
    """The axis name to pass to `step.make_step_functions` for this kind of placement."""
    return PMAP_AXIS if kind == "pmap" else None


def should_join_weights(sharing: ShardingMode) -> bool:
    """The `join_weights` to pass to `step.make_step_functions`: True on accelerators with replicated weights.

    There many small kernels cost more than their work. On a CPU the step became slower (docs/performance_log.md).
    """
    return jax.default_backend() != "cpu" and sharing == "none"


def place(
    functions: StepFunctions, kind: Literal["jit", "pmap"], mesh: Mesh, sharing: ShardingMode = "none"
) -> Placement:
    """The functions of a stage on the devices of a mesh.

    Args:
        functions: From `step.make_step_functions`, created with `axis_name(kind)`.
        kind: See the module docstring.
        mesh: From `data_mesh`. The batch size must be a multiple of its number of devices.
        sharing: See `Config.sharding`.

    Raises:
        ValueError: Sharding is requested under pmap, where the state is replicated.
    """
    if kind == "pmap" and sharing != "none":
        raise ValueError(
            f"--config.sharding={sharing} needs --config.parallel=jit: under pmap every device has the whole state"
        )
    everywhere = replicated(mesh)
    by_record = NamedSharding(mesh, PartitionSpec("data"))

    def put_global(batch: Batch) -> Batch:
        return {name: jax.make_array_from_process_local_data(by_record, value) for name, value in batch.items()}

    def put_state(state: TrainState) -> TrainState:
        # Key arrays cannot be put on the devices of other processes, but their raw data can.
        state = dataclasses.replace(state, rng=jax.random.key_data(state.rng))
        state = jax.device_put(state, state_shardings(state, mesh, sharing))
        return dataclasses.replace(state, rng=jax.random.wrap_key_data(state.rng))

    def compile_jit(state, batch) -> CompiledStep:
        as_it_lies = jax.tree.map(lambda leaf: leaf.sharding, state)
        train = jax.jit(
            functions.train,
            in_shardings=(as_it_lies, by_record),
            out_shardings=(as_it_lies, everywhere),
            donate_argnums=0,
        )
        return _compile(train, state, batch)

    # The variables keep their sharding, whatever it is.
    evaluation = {"in_shardings": (None, None, by_record), "out_shardings": everywhere}
    placement = Placement(
        put_state=put_state,
        to_step=lambda state: state,
        from_step=lambda state: state,
        gather=jax.jit(lambda tree: tree, out_shardings=everywhere),
        put_batch=put_global,
        put_eval_batch=put_global,
        compile=compile_jit,
        evaluate=jax.jit(functions.evaluate, **evaluation),
        features=jax.jit(functions.features, **evaluation),
    )
    return placement if kind == "jit" else _under_pmap(placement, functions, mesh)


def place_stage(
    config: Config,
    stage: StageConfig,
    model: nn.Module,
    tasks: Sequence[Task],
    preprocessing: Preprocessing,
    tx: optax.GradientTransformation,
    class_weights: Mapping[str, jax.Array],
    devices: Sequence[Any] | None = None,
) -> Placement:
    """A training stage of a config on the devices (all by default); see `make_step_functions` for the arguments."""
    functions = make_step_functions(
        model,
        tasks,
        preprocessing,
        tx,
        class_weights,
        stage,
        config.sam,
        config.loss,
        axis_name(config.parallel),
        config.accumulate,
        should_join_weights(config.sharding),
    )
    return place(functions, config.parallel, data_mesh(devices), config.sharding)


def _under_pmap(placement: Placement, functions: StepFunctions, mesh: Mesh) -> Placement:
    """The placement for jit, except for the step, whose state has a device axis and raw data in place of its key."""

    def train_numbers(state: TrainState, batch: Batch):
        state = dataclasses.replace(state, rng=jax.random.wrap_key_data(state.rng))
        state, metrics = functions.train(state, batch)
        return dataclasses.replace(state, rng=jax.random.key_data(state.rng)), metrics

    # All devices of all processes, otherwise the means would be those of one process.
    train = jax.pmap(train_numbers, axis_name=PMAP_AXIS, devices=list(mesh.devices.flat), donate_argnums=0)
    local = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)

    def put_split(batch: Batch) -> Batch:
        return placement.put_batch({name: value.reshape(local, -1, *value.shape[1:]) for name, value in batch.items()})

    def compile_pmap(state, batch) -> CompiledStep:
        # pmap is lowered with arrays of this process's part, only for their shapes; the program takes global arrays.
        part = jax.tree.map(lambda leaf: np.zeros((local, *leaf.shape[1:]), leaf.dtype), (state, batch))
        compiled = _compile(train, *part)

        def call(state, batch):
            state, metrics = compiled.call(state, batch)
            return state, {name: value.addressable_data(0)[0] for name, value in metrics.items()}

        return dataclasses.replace(compiled, call=call, flops=compiled.flops * mesh.size // local)

    by_device = NamedSharding(mesh, PartitionSpec("data"))

    def to_step(state: TrainState) -> TrainState:
        def copies(leaf):
            one = np.asarray(leaf.addressable_data(0))
            return jax.make_array_from_process_local_data(by_device, np.broadcast_to(one, (local, *one.shape)))

        return jax.tree.map(copies, dataclasses.replace(state, rng=jax.random.key_data(state.rng)))

    def from_step(state: Any) -> TrainState:
        first = jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0))[0], state)
        return placement.put_state(dataclasses.replace(first, rng=jax.random.wrap_key_data(first.rng)))

    return dataclasses.replace(
        placement, to_step=to_step, from_step=from_step, put_batch=put_split, compile=compile_pmap
    )


def _compile(train: Any, state: Any, batch: Batch) -> CompiledStep:
    started = time.monotonic()
    compiled = train.lower(state, batch).compile(compiler_options=COMPILER_OPTIONS)
    return_freed_memory()
    seconds = time.monotonic() - started
    memory = compiled.memory_analysis()
    planned = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return CompiledStep(
        compiled, compiled, seconds, count_flops(train, state, batch), planned - memory.alias_size_in_bytes
    )
