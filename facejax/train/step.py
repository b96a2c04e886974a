"""The training and evaluation steps, as pure functions of state and batch."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from facejax.config import LossConfig, SamConfig, StageConfig
from facejax.models.normalization import MOMENTUM
from facejax.preprocessing import Preprocessing
from facejax.tasks import Task
from facejax.train import losses, microbatches, sam
from facejax.train.state import TrainState, split_params

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]  # scalars; until the end of a step also pairs of sums

IDENTITY_RANKS = 5


@dataclasses.dataclass(frozen=True)
class StepFunctions:
    """The pure functions of one stage; `parallel` places them on devices.

    Attributes:
        train: (state, batch) -> (state, metrics): one update. With an `axis_name` it must run under that axis.
        evaluate: (params, batch_stats, batch) -> `scores` by task; NaN where the mask is 0.
        features: (params, batch_stats, batch) -> (batch, D) pooled features, NaN where the mask is 0.
    """

    train: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    evaluate: Callable[[Any, Any, Batch], dict[str, jax.Array]]
    features: Callable[[Any, Any, Batch], jax.Array]


def make_optimizer(stage: StageConfig, steps: int) -> optax.GradientTransformation:
    """Adam with default betas and no weight decay (the paper), over `steps` steps of the stage's schedule."""
    if stage.schedule == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            stage.lr / max(stage.warmup_steps, 1), stage.lr, stage.warmup_steps, max(steps, stage.warmup_steps + 1)
        )
    elif stage.warmup_steps:
        schedule = optax.linear_schedule(stage.lr / stage.warmup_steps, stage.lr, stage.warmup_steps)
    else:
        schedule = stage.lr
    return optax.adam(schedule)


def init_optimizer(tx: optax.GradientTransformation, params: Any) -> optax.OptState:
    """Initial state of `make_optimizer`'s Adam, as NumPy arrays: both moments and the count are 0.

    ``tx.init`` gives the same state, but compiles a kernel of zeros for each shape.
    """
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(tx.init, params))


def task_labels(task: Task, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """(labels, mask): the target of the task's head for each record, and 1 if the record has that label.

    Labels are class indices, int32 (batch,) (for age: years minus one, clipped to the classes); or values, float32
    (batch, outputs), NaN where they are missing.
    """
    labels = batch[task.label_key]
    if task.kind == "regression":
        return labels, batch["mask"] * jnp.isfinite(labels).all(axis=-1)
    if task.label_map:
        labels = jnp.where(labels >= 0, jnp.asarray(task.label_map)[labels], -1)
    mask = batch["mask"] * (labels >= 0)
    if task.kind == "age":
        labels = jnp.clip(jnp.rint(jnp.where(mask > 0, labels, 1)), 1, task.num_outputs) - 1
    return labels.astype(jnp.int32), mask


def head_loss(
    task: Task, logits: Float[Array, "batch outputs"], batch: Batch, class_weights: jax.Array, config: LossConfig
) -> tuple[jax.Array, Metrics]:
    """Loss and training metrics of one head; padding and records without its label are ignored.

    The accuracy is a pair of sums, of correct records and of labelled records, since the latter differs between parts:
    one array, as with two XLA plans 9 to 16 % more memory for the step of an EfficientNet on a GPU.

    Args:
        task: Task of the head.
        logits: Raw outputs of the head.
        batch: See `make_step_functions`.
        class_weights: (classes,) see `losses.class_weights`; used if the task is `weighted`.
        config: Normalisation of the weights, label smoothing.
    """
    labels, mask = task_labels(task, batch)
    if task.kind == "regression":
        ccc = losses.concordance(logits, labels, mask).mean()
        loss = jnp.where(mask.sum() > 0, 1 - ccc, 0)
        return loss, {"loss": loss, "ccc": ccc}
    if task.kind == "binary":
        loss = losses.binary_cross_entropy(logits[:, 0], labels, mask)
        predicted = (logits[:, 0] > 0).astype(labels.dtype)
    else:
        loss = losses.cross_entropy(
            logits,
            labels,
            mask,
            class_weights,
            normalization=config.class_weights if task.weighted else "none",
            label_smoothing=config.label_smoothing,
        )
        predicted = logits.argmax(axis=-1)
    return loss, {"loss": loss, "accuracy": jnp.stack([((predicted == labels) * mask).sum(), mask.sum()])}


def total_loss(
    tasks: Sequence[Task],
    outputs: Mapping[str, jax.Array],
    batch: Batch,
    class_weights: Mapping[str, jax.Array],
    config: LossConfig,
) -> tuple[jax.Array, Metrics]:
    """Sum of the heads' losses, and their metrics: ``loss``, and ``<task>/<metric>`` for each head."""
    factors = config.task_weights or (1.0,) * len(tasks)
    total, metrics = jnp.zeros(()), {}
    for task, factor in zip(tasks, factors, strict=True):
        loss, of_task = head_loss(task, outputs[task.name], batch, class_weights[task.name], config)
        total += factor * loss
        metrics |= {f"{task.name}/{name}": value for name, value in of_task.items()}
    return total, {"loss": total, **metrics}


def scores(task: Task, logits: Float[Array, "batch outputs"]) -> Float[Array, "batch _"]:
    """The part of a head's outputs that the evaluation needs, float32.

    Class probabilities (categorical, age: (batch, classes); binary: (batch, 2)); the outputs themselves (regression);
    or the indices of the top `IDENTITY_RANKS` identities, best first (identity: all 9131 probabilities of 244 thousand
    records would be 9 GB; NaN if the logits are not finite).
    """
    logits = logits.astype(jnp.float32)
    if task.kind == "regression":
        return logits
    if task.kind == "identity":
        ranks = jax.lax.top_k(logits, min(IDENTITY_RANKS, logits.shape[1]))[1].astype(jnp.float32)
        return jnp.where(jnp.isfinite(logits).all(axis=1, keepdims=True), ranks, jnp.nan)
    if task.kind == "binary":
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=1)
    return jax.nn.softmax(logits)


def _ratio(hits: jax.Array, count: jax.Array) -> jax.Array:
    """The fraction of correct records, from sums or from their means over parts and devices; 0 for no records."""
    return jnp.where(count > 0, hits / jnp.maximum(count, jnp.finfo(count.dtype).tiny), 0)


def make_step_functions(
    model: nn.Module,
    tasks: Sequence[Task],
    preprocessing: Preprocessing,
    tx: optax.GradientTransformation,
    class_weights: Mapping[str, jax.Array],
    stage: StageConfig,
    sam_config: SamConfig,
    loss_config: LossConfig,
    axis_name: str | None = None,
    accumulate: int = 1,
    join_weights: bool = False,
) -> StepFunctions:
    """The functions of a stage, as closures over what stays constant during the stage.

    Batches contain ``image`` (uint8 RGB, resized, 0-255), labels, and ``mask``; or ``features`` in place of the image
    if the features of the frozen backbone were computed in advance.

    Args:
        model: A `FaceModel`.
        tasks: The tasks to train; the model must have their heads. Heads of other tasks keep their weights.
        preprocessing: Normalisation of the images, done on the device.
        tx: Optimiser of the stage.
        class_weights: (classes,) by task, see `losses.class_weights`.
        stage: What is trainable, and how BatchNorm behaves.
        sam_config: Settings of SAM.
        loss_config: Settings of the loss.
        axis_name: Under `jax.pmap`, the axis over which gradients, statistics and metrics are averaged; each device
            normalises its loss and its BatchNorm by its own part of the batch.
        accumulate: Number of microbatches that the backbone processes sequentially (`Config.accumulate`).
        join_weights: Whether SAM treats the trained weights as one vector, whose norm and perturbation take one kernel
            each instead of one per array. The same gradient up to rounding; see `parallel.should_join_weights`.
    """
    apply: Callable[..., Any] = model.apply

    def mean_over_devices(tree):
        return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

    def base_features(params, batch_stats, batch):
        """Features of the backbone and its updated statistics; differentiated only if the backbone is trained."""
        if "features" in batch:
            return batch["features"], batch_stats

        def forward(batch_stats, images):
            features, updates = apply(
                {"params": params, "batch_stats": batch_stats},
                preprocessing.normalize(images),
                train=True,
                use_running_average=stage.batch_norm == "running",
                mutable=["batch_stats"],
                method="features",
            )
            return updates.get("batch_stats", batch_stats), features

        batch_stats, features = microbatches.scan_microbatches(forward, batch_stats, batch["image"], accumulate)
        return features, batch_stats

    def with_features(params, batch_stats, batch):
        """The batch with the features of the frozen backbone, and the updated statistics.

        Both passes of SAM see the same features, so they are computed once.
        """
        features, moved = jax.lax.map(
            lambda part: base_features(params, batch_stats, part), microbatches.split(batch, sam_config.parts)
        )
        batch = {**batch, "features": microbatches.merge(features)}
        moved = jax.tree.map(lambda x: x.mean(axis=0), moved)
        if sam_config.rho > 0 and sam_config.batch_stats == "both":
            # The second pass updates them once more with the same photos, as in the published code.
            kept = MOMENTUM**accumulate
            moved = jax.tree.map(lambda new, old: new + kept * (new - old), moved, batch_stats)
        return batch, moved

    def head_outputs(params, features, rng):
        return apply({"params": params}, features, train=True, method="heads", rngs={"dropout": rng})

    def train(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        trainable, frozen = split_params(state.params, stage.trainable)
        weights, as_params = ravel_pytree(trainable) if join_weights else (trainable, lambda tree: tree)
        rng = jax.random.fold_in(state.rng, state.step)
        if axis_name is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        batch_stats, parts = state.batch_stats, sam_config.parts
        if stage.trainable == "heads":
            batch, batch_stats = with_features(frozen, batch_stats, batch)

        def gradient_on(part: Batch, index: Any) -> sam.GradFn:
            part_rng = rng if parts == 1 else jax.random.fold_in(rng, index)

            def grad_fn(weights: Any, batch_stats: Any, pass_index: jax.Array):
                def loss_fn(weights: Any):
                    params = {**as_params(weights), **frozen}
                    features, new_stats = base_features(params, batch_stats, part)
                    outputs = head_outputs(params, features, jax.random.fold_in(part_rng, pass_index))
                    loss, metrics = total_loss(tasks, outputs, part, class_weights, loss_config)
                    return loss, (new_stats, metrics)

                gradient, (new_stats, metrics) = jax.grad(loss_fn, has_aux=True)(weights)
                return gradient, new_stats, metrics

            return grad_fn

        def sharpness_aware(grad_fn: sam.GradFn, sync: Callable[[Any], Any]):
            return sam.sam_gradient(
                grad_fn, weights, batch_stats, rho=sam_config.rho, batch_stats_from=sam_config.batch_stats, sync=sync
            )

        if sam_config.perturbation == "synced":
            gradient, batch_stats, metrics = sharpness_aware(
                lambda *at: microbatches.mean_over_parts(
                    lambda part, index: gradient_on(part, index)(*at), batch, parts
                ),
                sync=mean_over_devices,
            )
        else:
            gradient, batch_stats, metrics = microbatches.mean_over_parts(
                lambda part, index: sharpness_aware(gradient_on(part, index), sync=lambda gradient: gradient),
                batch,
                parts,
            )
        gradient, batch_stats, metrics = mean_over_devices((gradient, batch_stats, metrics))
        updates, opt_state = tx.update(as_params(gradient), state.opt_state, trainable)
        updated: Any = optax.apply_updates(trainable, updates)
        new_state = TrainState(
            step=state.step + 1,
            params={**updated, **frozen},
            batch_stats=batch_stats,
            opt_state=opt_state,
            rng=state.rng,
        )
        metrics = {name: _ratio(*value) if value.ndim else value for name, value in metrics.items()}
        # Without the barrier XLA computes g * g once for this norm and Adam: one kernel per shape, which writes it to
        # memory.
        return new_state, {**metrics, "grad_norm": sam.norm(jax.lax.optimization_barrier(gradient))}

    def evaluate(params, batch_stats, batch: Batch) -> dict[str, jax.Array]:
        outputs = apply(
            {"params": params, "batch_stats": batch_stats}, preprocessing.normalize(batch["image"]), train=False
        )
        known = batch["mask"][:, None] > 0
        return {task.name: jnp.where(known, scores(task, outputs[task.name]), jnp.nan) for task in tasks}

    def features(params, batch_stats, batch: Batch) -> jax.Array:
        pooled = apply(
            {"params": params, "batch_stats": batch_stats},
            preprocessing.normalize(batch["image"]),
            train=False,
            method="features",
        )
        return jnp.where(batch["mask"][:, None] > 0, pooled.astype(jnp.float32), jnp.nan)

    return StepFunctions(train, evaluate, features)
