"""Where the step runs: the same pure functions under `jax.jit` over a mesh, or under `jax.pmap`.

``jit``: the batch is sharded over all devices of all processes and the step is that of the whole batch (loss, SAM
perturbation and BatchNorm statistics are global), so the result does not depend on the number of devices.

``pmap``: each device takes its part of the batch, with its own BatchNorm statistics and, unless they are synced, its
own SAM perturbation (m-SAM, Foret et al. 2021); gradients, statistics and metrics are averaged.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.jax_utils
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from facejax.train.step import Batch, StepFunctions

PMAP_AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class Placement:
    """A stage's functions on the devices.

    Attributes:
        put_state: Puts a host state on the devices.
        get_state: The state as one copy without a device axis, for checkpoints and evaluation.
        put_batch: Puts this process's part of a host batch on the devices.
        put_eval_batch: The same for evaluation.
        train: (state, batch) -> (state, metrics); the state's buffers are donated.
        evaluate: (params, batch_stats, batch) -> outputs; takes what `get_state` gives.
        features: The same, for the pooled features.
    """

    put_state: Callable[[Any], Any]
    get_state: Callable[[Any], Any]
    put_batch: Callable[[Batch], Batch]
    put_eval_batch: Callable[[Batch], Batch]
    train: Callable[[Any, Batch], tuple[Any, dict[str, jax.Array]]]
    evaluate: Callable[[Any, Any, Batch], jax.Array]
    features: Callable[[Any, Any, Batch], jax.Array]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis ``data`` over all devices (or the given ones)."""
    return Mesh(np.asarray(devices or jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def axis_name(kind: Literal["jit", "pmap"]) -> str | None:
    """The axis name that `step.make_step_functions` is to be given for this kind of placement."""
    return PMAP_AXIS if kind == "pmap" else None


def place(functions: StepFunctions, kind: Literal["jit", "pmap"], mesh: Mesh) -> Placement:
    """The functions of a stage on the devices of a mesh.

    Args:
        functions: From `step.make_step_functions`, made with `axis_name(kind)`.
        kind: See the module's first lines.
        mesh: From `data_mesh`. The batch size must be a multiple of the number of its devices.
    """
    everywhere = replicated(mesh)
    by_record = NamedSharding(mesh, PartitionSpec("data"))

    def put_global(batch: Batch) -> Batch:
        return {name: jax.make_array_from_process_local_data(by_record, value) for name, value in batch.items()}

    def put_replicated(state):
        return jax.device_put(state, everywhere)

    evaluation = {"in_shardings": (everywhere, everywhere, by_record), "out_shardings": everywhere}
    shared = {
        "put_eval_batch": put_global,
        "evaluate": jax.jit(functions.evaluate, **evaluation),
        "features": jax.jit(functions.features, **evaluation),
    }
    if kind == "jit":
        train = jax.jit(
            functions.train,
            in_shardings=(everywhere, by_record),
            out_shardings=(everywhere, everywhere),
            donate_argnums=0,
        )
        return Placement(
            put_state=put_replicated, get_state=lambda state: state, put_batch=put_global, train=train, **shared
        )

    devices = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    train = jax.pmap(functions.train, axis_name=PMAP_AXIS, devices=devices, donate_argnums=0)

    def put_split(batch: Batch) -> Batch:
        return {
            name: value.reshape(len(devices), value.shape[0] // len(devices), *value.shape[1:])
            for name, value in batch.items()
        }

    def train_and_average(state, batch):
        state, metrics = train(state, batch)
        return state, {name: value[0] for name, value in metrics.items()}

    return Placement(
        put_state=lambda state: flax.jax_utils.replicate(state, devices),
        get_state=lambda state: put_replicated(flax.jax_utils.unreplicate(state)),
        put_batch=put_split,
        train=train_and_average,
        **shared,
    )
