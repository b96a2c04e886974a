r"""Compiles the programs of a config for TPUs or GPUs that are not present: do they compile, and do they fit?

    pip install 'jax[tpu]'               # XLA's TPU compiler; needs no TPU (for GPUs 'jax[cuda13]', no driver)
    python tools/plan_devices.py --config emotion_b2 --devices v5e:2x2 --config.model.dtype=bfloat16
    python tools/plan_devices.py --config emotion_b2 --devices h200:8 --config.sharding=full

The programs are those that experiments/run.py compiles on such devices for a dataset of the published size: the step of
each stage (and its features, if they are computed once), and the evaluation. Nothing is executed, so nothing printed
here is a measurement of speed or accuracy. GPU libraries use their default algorithms, since choosing one needs a
device.
"""

import argparse
import collections
import math
import os
import pathlib
import re
import sys
import time
import unittest.mock
from collections.abc import Iterator, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

# Otherwise libtpu looks for a TPU of this machine, and admits one process at a time.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
PERSONS = 8631  # identities of VGGFace2's train split, for an identity head whose size the dataset decides
_COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def find_devices(name: str) -> tuple[str, list[Any]]:
    """Backend and devices for ``h200:N``, N GPUs of one machine, or for a TPU slice such as ``v5e:2x2``.

    Raises:
        ValueError: The compiler for this platform is not installed, or there is no such slice.
    """
    from jax.experimental import topologies
    from plan_gpu import TARGET

    kind, _, number = name.partition(":")
    backend, platform, package = ("gpu", "cuda", "jax[cuda13]") if kind == "h200" else ("tpu", "tpu", "jax[tpu]")
    try:
        if backend == "gpu":
            found = topologies.get_topology_desc(platform=platform, target_config=TARGET, topology=f"1x1x{number or 1}")
        else:
            found = topologies.get_topology_desc(platform=platform, topology_name=name)
    except Exception as error:  # of several types, depending on what is missing
        raise ValueError(
            f"--devices {name}: {error}\nExpected h200:N, or a TPU slice such as v5e:2x2; pip install '{package}'"
        ) from error
    return backend, list(found.devices)


def compile_programs(config: Any, devices: Sequence[Any]) -> Iterator[tuple[str, Any, int]]:
    """Yields name, compiled program and number of photos of each stage's programs, then of the evaluation."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from facejax.models.face_model import abstract_variables
    from facejax.train import dry_run, parallel
    from facejax.train.loop import keeps_features
    from facejax.train.setup import check_settings, trained_tasks
    from facejax.train.state import TrainState, split_params
    from facejax.train.step import init_optimizer, make_optimizer

    check_settings(config)
    tasks, (model, cfg) = trained_tasks(config), dry_run.new_model(config, PERSONS)
    mesh, size = parallel.data_mesh(devices), cfg.preprocessing.image_size
    variables = abstract_variables(model, size)
    class_weights = {task.name: jnp.ones(task.num_outputs or config.model.identities or PERSONS) for task in tasks}
    copies = (mesh.size,) if config.parallel == "pmap" else ()
    by_record = NamedSharding(mesh, PartitionSpec("data"))

    def batch(records: int, arrays: dict[str, tuple[tuple[int, ...], Any]], *split: int) -> dict[str, Any]:
        """Shapes of a batch, with a device axis if it is split."""
        lengths = (*split, records // math.prod(split))
        return {
            name: jax.ShapeDtypeStruct((*lengths, *shape), dtype, sharding=by_record)
            for name, (shape, dtype) in {"mask": ((), jnp.float32), **arrays}.items()
        }

    images = {"image": ((size, size, 3), jnp.uint8)}
    labels = {
        task.label_key: ((task.num_outputs,), jnp.float32) if task.kind == "regression" else ((), jnp.int32)
        for task in tasks
    }
    placement = state = None
    for name, stage in config.stages.active():
        tx = make_optimizer(stage, 1)
        placement = parallel.place_stage(config, stage, model, tasks, cfg.preprocessing, tx, class_weights, devices)
        trainable, _ = split_params(variables["params"], stage.trainable)
        key = jax.random.key(0)
        state = TrainState(
            step=jnp.int32(0),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=init_optimizer(tx, trainable),
            rng=jax.random.key_data(key) if copies else key,
        )
        state = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state,
            parallel.state_shardings(state, mesh, config.sharding),
        )
        of_step = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*copies, *leaf.shape), leaf.dtype), state)
        inputs: dict[str, Any] = images
        if keeps_features(config, stage, config.data.num_train, cfg.num_features):
            features = placement.features.lower(  # pyright: ignore
                state.params, state.batch_stats, batch(config.eval_batch_size, images)
            )
            yield f"{name} features", features.compile(), config.eval_batch_size
            inputs = {"features": ((cfg.num_features,), jnp.float32)}
        step = placement.compile(of_step if copies else state, batch(config.batch_size, inputs | labels, *copies))
        yield f"{name} stage", step.program, config.batch_size
    assert placement is not None
    assert state is not None
    evaluate = placement.evaluate.lower(  # pyright: ignore
        state.params, state.batch_stats, batch(config.eval_batch_size, images)
    )
    yield "evaluation", evaluate.compile(), config.eval_batch_size


def describe(name: str, program: Any, photos: int, seconds: float) -> str:
    """A line on one program: batch size, memory on each device, collective operations, time to compile."""
    memory = program.memory_analysis()
    state = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    found = collections.Counter(_COLLECTIVE.findall(program.as_text()))
    collectives = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())) or "none"
    return (
        f"{name:13} {photos} photos; on each device {state / 2**20:,.0f} MiB of arguments and results and "
        f"{memory.temp_size_in_bytes / 2**20:,.0f} MiB in between; collectives: {collectives}; "
        f"compiled in {seconds:.0f} s"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="NAME", help="a config that trains a network")
    parser.add_argument("--devices", required=True, help="h200:N, or a TPU slice such as v5e:2x2")
    args, overrides = parser.parse_known_args(arguments)
    os.environ.update(_NO_TPU, JAX_PLATFORMS="cpu")  # JAX must not look for the devices, which do not exist
    from experiments.run import parse_overrides, resolve
    from facejax.config import Config, ConfigError

    try:
        backend, devices = find_devices(args.devices)
        # Queried by code that depends on the platform or on the number of devices.
        with (
            unittest.mock.patch("jax.default_backend", return_value=backend),
            unittest.mock.patch("jax.device_count", return_value=len(devices)),
        ):
            config = resolve(args.config, parse_overrides(overrides))
            if not isinstance(config, Config):
                raise ConfigError(f"{args.config} trains no network")
            print(f"{args.config} for {len(devices)} x {devices[0].device_kind}; nothing is executed", flush=True)
            started = time.monotonic()
            for name, program, photos in compile_programs(config, devices):
                print(describe(name, program, photos, time.monotonic() - started), flush=True)
                started = time.monotonic()
    except (ConfigError, ValueError) as error:
        print(f"plan_devices: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
