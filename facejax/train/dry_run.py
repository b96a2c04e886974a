"""Plan of a run, without data or training: shapes, parameters, FLOPs, memory, steps and time."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import Config
from facejax.models.face_model import FaceModel, abstract_variables
from facejax.models.pretrained import PretrainedCfg
from facejax.train.loop import keeps_features
from facejax.train.setup import build_model, check_settings
from facejax.train.state import split_params

# Fraction of the rate of a large matrix product that convolutional networks of this kind roughly reach. An assumption.
ASSUMED_UTILISATION = 0.3


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Plan of one stage.

    Attributes:
        name: Name of the stage.
        steps: Steps over all epochs.
        trainable: Number of trainable parameters; those of kept heads do not count.
        keeps_features: Whether the frozen backbone sees each photo only once, and later epochs only train the heads.
        step_flops: Estimated floating-point operations of a step in which the backbone runs: a forward pass; or, if the
            backbone is trained, three times that (the backward pass costs two forward passes; microbatches cost one
            more), doubled by SAM.
        memory_bytes: Estimated memory on each device: parameters, their gradient, Adam's moments and update,
            SAM's perturbed copy, and the outputs of all layers for what is computed at a time, before any fusion.
        seconds: Estimated time at `ASSUMED_UTILISATION` of the measured rate of a matrix product, on each device.
    """

    name: str
    steps: int
    trainable: int
    keeps_features: bool
    step_flops: float
    memory_bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """Plan of a run.

    Attributes:
        input_shape: (batch, height, width, 3).
        outputs: Shape of each of the network's outputs for a batch.
        parameters: Number of parameters by part (backbone and heads); kept heads as if they shared no hidden layer,
            since the model that they come from is not looked for.
        forward_flops: Floating-point operations of the forward pass of one photo; a multiply-add counts as two.
        stages: The stages.
    """

    input_shape: tuple[int, ...]
    outputs: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    forward_flops: float
    stages: tuple[StagePlan, ...]


def plan(config: Config, num_train: int, flops_per_second: float) -> Plan:
    """The plan of a run; traces the network without computing or compiling anything.

    Args:
        config: The run's config. The initial weights do not matter here and are not looked for.
        num_train: Number of records in the train split.
        flops_per_second: Rate of a matrix product on the device, from `matmul_rate`.

    Raises:
        ValueError: The config's backbone, tasks or sizes do not fit together.
    """
    check_settings(config)
    model, cfg = new_model(config, persons=1)
    size, dtype = cfg.preprocessing.image_size, jnp.dtype(config.model.dtype)
    variables = abstract_variables(model, size)
    photo = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def every_layer(variables: Any, images: jax.Array) -> Any:
        return model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])

    traced = jax.jit(every_layer).trace(variables, photo)
    forward_flops = float(traced.lower().cost_analysis()["flops"])  # pyright: ignore
    outputs, kept = traced.out_info
    at_a_time = config.batch_size // (jax.device_count() * config.sam.parts * config.accumulate)
    activations = _size(kept) * dtype.itemsize * at_a_time
    parameters = {name: _size(part) for name, part in variables["params"].items()}
    kept_heads = {f"head_{task}" for task in config.model.keep_heads}
    passes = 2 if config.sam.rho else 1
    stages = []
    for name, stage in config.stages.active():
        learns = split_params(variables["params"], stage.trainable)[0]
        trainable = _size({name: part for name, part in learns.items() if name not in kept_heads})
        learns_base = stage.trainable == "all"
        of_forward = (3 + (config.accumulate > 1)) * passes if learns_base else 1
        flops = forward_flops * config.batch_size * of_forward
        memory = 4 * (sum(parameters.values()) + (3 + passes) * trainable) + activations * learns_base
        steps = num_train // config.batch_size * stage.epochs
        once = keeps_features(config, stage, num_train, cfg.num_features)
        base_steps = num_train / config.batch_size if once else steps
        seconds = base_steps * flops / (ASSUMED_UTILISATION * flops_per_second * jax.device_count())
        stages.append(StagePlan(name, steps, trainable, once, flops, int(memory), seconds))
    shapes = {name: (config.batch_size, *output.shape[1:]) for name, output in outputs.items()}
    return Plan((config.batch_size, size, size, 3), shapes, parameters, forward_flops, tuple(stages))


def new_model(config: Config, persons: int) -> tuple[FaceModel, PretrainedCfg]:
    """`build_model` with new heads in place of kept ones, since the model that they come from is not looked for."""
    tasks = (*config.model.keep_heads, *config.model.tasks)
    wanted = dataclasses.replace(config.model, keep_heads=(), tasks=tasks)
    loss = dataclasses.replace(config.loss, task_weights=())
    return build_model(dataclasses.replace(config, model=wanted, loss=loss), persons=persons)


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def matmul_rate(dtype: str) -> float:
    """Floating-point operations per second of a 2048 x 2048 matrix product on the default device, best of five."""
    x = jnp.ones((2048, 2048), dtype)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        product(x).block_until_ready()
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def format_plan(plan: Plan, num_train: int, flops_per_second: float) -> str:
    """The plan as lines of text."""
    count = sum(plan.parameters.values())
    lines = [
        f"input            {_shape(plan.input_shape)} uint8 RGB",
        *(f"output           {name} {_shape(shape)}" for name, shape in plan.outputs.items()),
        f"parameters       {count:,} ({', '.join(f'{name} {n:,}' for name, n in plan.parameters.items())})",
        f"forward          {plan.forward_flops / 1e9:.3f} GFLOP per photo",
        f"train split      {num_train:,} records",
    ]
    for stage in plan.stages:
        lines.append(
            f"{stage.name + ' stage':16} {stage.steps:,} steps, {stage.trainable:,} trainable parameters, "
            f"{stage.step_flops / 1e9:.1f} GFLOP per step{' of the first epoch' if stage.keeps_features else ''}, "
            f"about {stage.memory_bytes / 2**30:.2f} GiB on each device, about {_duration(stage.seconds)}"
        )
    lines.append(
        f"Times assume {ASSUMED_UTILISATION:.0%} of the {flops_per_second / 1e9:.0f} GFLOP/s that a matrix product "
        "reaches on this device, and no waiting for data; memory is estimated before the compiler fuses layers."
    )
    return "\n".join(lines)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
