"""One step of training and of evaluation, as pure functions of state and batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from facejax.config import LossConfig, SamConfig, StageConfig
from facejax.preprocessing import Preprocessing
from facejax.tasks import Task
from facejax.train import losses, sam
from facejax.train.state import TrainState, split_params

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StepFunctions:
    """The pure functions of one stage; `parallel` places them on devices.

    Attributes:
        train: (state, batch) -> (state, metrics): one update. With an `axis_name` it must run under that axis.
        evaluate: (params, batch_stats, batch) -> (batch, classes) probabilities; nan where the mask is 0.
        features: (params, batch_stats, batch) -> (batch, D) pooled features, nan where the mask is 0.
    """

    train: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluate: Callable[[Any, Any, Batch], jax.Array]
    features: Callable[[Any, Any, Batch], jax.Array]


def make_optimizer(stage: StageConfig, steps: int) -> optax.GradientTransformation:
    """Adam with default betas and no weight decay (the paper), over `steps` steps of the stage's schedule."""
    if stage.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0 if stage.warmup_steps else stage.lr, stage.lr, stage.warmup_steps, max(steps, stage.warmup_steps + 1)
        )
    elif stage.warmup_steps:
        schedule = optax.linear_schedule(stage.lr / stage.warmup_steps, stage.lr, stage.warmup_steps)
    else:
        schedule = stage.lr
    return optax.adam(schedule)


def head_loss(
    task: Task,
    logits: Float[Array, "batch outputs"],
    batch: Batch,
    class_weights: Float[Array, "classes"],
    config: LossConfig,
) -> tuple[jax.Array, Metrics]:
    """Loss and training metrics of a categorical task; records without the label (-1) and padding do not count."""
    labels = batch[task.label_key]
    if task.label_map:
        labels = jnp.where(labels >= 0, jnp.asarray(task.label_map)[labels], -1)
    mask = batch["mask"] * (labels >= 0)
    loss = losses.cross_entropy(
        logits,
        labels,
        mask,
        class_weights,
        normalization=config.class_weights,
        label_smoothing=config.label_smoothing,
    )
    hits = (logits.argmax(axis=-1) == labels) * mask
    return loss, {"loss": loss, "accuracy": hits.sum() / jnp.maximum(mask.sum(), 1)}


def make_step_functions(
    model: nn.Module,
    task: Task,
    preprocessing: Preprocessing,
    tx: optax.GradientTransformation,
    class_weights: jax.Array,
    stage: StageConfig,
    sam_config: SamConfig,
    loss_config: LossConfig,
    axis_name: str | None = None,
) -> StepFunctions:
    """The functions of a stage, as closures over what does not change within it.

    Batches hold ``image`` (uint8 RGB, resized, 0-255), labels, and ``mask``; or ``features`` in place of the image
    where the frozen base's features were computed beforehand.

    Args:
        model: A `FaceModel`.
        task: The task that is trained; its head must be among the model's.
        preprocessing: Normalisation of the images, done on the device.
        tx: Optimiser of the stage.
        class_weights: (classes,) see `losses.class_weights`.
        stage: What is trainable, and how BatchNorm behaves.
        sam_config: SAM's fields.
        loss_config: The loss's fields.
        axis_name: Under `jax.pmap`, the axis over which gradients, statistics and metrics are averaged; each device
            normalises its loss and its BatchNorm by its own part of the batch.
    """
    apply: Callable[..., Any] = model.apply

    def mean_over_devices(tree):
        return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

    def base_features(params, batch_stats, batch):
        """Features of the base and its moved statistics; inside the gradient only where the base is trained."""
        if "features" in batch:
            return batch["features"], batch_stats
        features, updates = apply(
            {"params": params, "batch_stats": batch_stats},
            preprocessing.normalize(batch["image"]),
            train=True,
            use_running_average=stage.batch_norm == "running",
            mutable=["batch_stats"],
            method="features",
        )
        return features, updates.get("batch_stats", batch_stats)

    def head_logits(params, features, rng):
        outputs = apply({"params": params}, features, train=True, method="heads", rngs={"dropout": rng})
        return outputs[task.name]

    def train(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        trainable, frozen = split_params(state.params, stage.trainable)
        rng = jax.random.fold_in(state.rng, state.step)
        if axis_name is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        batch_stats = state.batch_stats
        if stage.trainable == "heads":
            # The frozen base gives both passes of SAM the same features, so they are computed once. (With batch_norm
            # "batch" its statistics thus move once a step; twice, as in the published code, is the same as once
            # with the square of the momentum.)
            features, batch_stats = base_features(frozen, batch_stats, batch)
            batch = {**batch, "features": features}

        def grad_fn(trainable: Any, batch_stats: Any, pass_index: jax.Array):
            def loss_fn(trainable: dict):
                params = {**trainable, **frozen}
                features, new_stats = base_features(params, batch_stats, batch)
                logits = head_logits(params, features, jax.random.fold_in(rng, pass_index))
                loss, metrics = head_loss(task, logits, batch, class_weights, loss_config)
                return loss, (new_stats, metrics)

            gradient, (new_stats, metrics) = jax.grad(loss_fn, has_aux=True)(trainable)
            return gradient, new_stats, metrics

        gradient, batch_stats, metrics = sam.sam_gradient(
            grad_fn,
            trainable,
            batch_stats,
            rho=sam_config.rho,
            batch_stats_from=sam_config.batch_stats,
            sync=mean_over_devices if sam_config.perturbation == "synced" else lambda gradient: gradient,
        )
        gradient, batch_stats, metrics = mean_over_devices((gradient, batch_stats, metrics))
        updates, opt_state = tx.update(gradient, state.opt_state, trainable)
        updated: Any = optax.apply_updates(trainable, updates)
        new_state = TrainState(
            step=state.step + 1,
            params={**updated, **frozen},
            batch_stats=batch_stats,
            opt_state=opt_state,
            rng=state.rng,
        )
        return new_state, {**metrics, "grad_norm": optax.tree.norm(gradient)}

    def evaluate(params, batch_stats, batch: Batch) -> jax.Array:
        outputs = apply(
            {"params": params, "batch_stats": batch_stats}, preprocessing.normalize(batch["image"]), train=False
        )
        scores = jax.nn.softmax(outputs[task.name].astype(jnp.float32))
        return jnp.where(batch["mask"][:, None] > 0, scores, jnp.nan)

    def features(params, batch_stats, batch: Batch) -> jax.Array:
        pooled = apply(
            {"params": params, "batch_stats": batch_stats},
            preprocessing.normalize(batch["image"]),
            train=False,
            method="features",
        )
        return jnp.where(batch["mask"][:, None] > 0, pooled.astype(jnp.float32), jnp.nan)

    return StepFunctions(train, evaluate, features)
