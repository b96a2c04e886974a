"""The loop: stages, epochs, evaluation, checkpoints and the log. Rerunning a run continues it, bit for bit."""

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import Config, StageConfig
from facejax.data.loader import Batch, array_loader, eval_batches, train_loader
from facejax.data.source import FaceSource
from facejax.evals.classification import classify
from facejax.train import parallel
from facejax.train.checkpoint import Checkpointer
from facejax.train.meter import Meter
from facejax.train.metrics_log import MetricsLog
from facejax.train.setup import Setup, augmentation, initial_variables
from facejax.train.state import TrainState, split_params
from facejax.train.step import make_optimizer, make_step_functions
from facejax.weights.checkpoint import save_inference_checkpoint

logger = logging.getLogger(__name__)

# Above this, the features of a frozen base are computed in every epoch instead of being kept in memory.
FEATURE_CACHE_BYTES = 4 << 30


class NonFiniteLossError(FloatingPointError):
    """The loss became infinite or NaN; the last good checkpoint is kept."""


@dataclasses.dataclass
class Progress:
    """Where a run stands; saved in each checkpoint.

    Attributes:
        stage: Index of the stage in `stages`.
        stage_step: Steps done in it; also the batch that the loader gives next.
        epoch: Epochs evaluated so far, over all stages.
        best: Best value of the selection metric so far.
        best_epoch: The epoch of it, 0 for none yet.
    """

    stage: int = 0
    stage_step: int = 0
    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0


def stage_list(config: Config) -> list[tuple[str, StageConfig]]:
    """The stages that have epochs, in order."""
    stages = (("head", config.stages.head), ("full", config.stages.full))
    return [(name, stage) for name, stage in stages if stage.epochs > 0]


def train(setup: Setup) -> Progress:
    """Trains to the end, from the newest checkpoint in the workdir where there is one.

    Writes to the workdir: ``checkpoints/`` (to resume), ``best/`` and ``last/`` (for `facejax.load_model`), their
    scores on the evaluation split, ``metrics.jsonl`` and TensorBoard events.

    Raises:
        NonFiniteLossError: Names the step; the last good checkpoint stays the newest.
    """
    config = setup.config
    checkpointer = Checkpointer(setup.workdir / "checkpoints", config.checkpoint.keep)
    saved = checkpointer.latest_progress()
    progress = Progress(**saved["progress"]) if saved else Progress()
    stages = stage_list(config)
    step = saved["step"] if saved else 0
    if saved:
        logger.info("resuming at step %d (%s stage)", step, stages[min(progress.stage, len(stages) - 1)][0])
    log = MetricsLog(setup.workdir, step)
    state = None
    try:
        for index, (name, stage) in enumerate(stages):
            if index < progress.stage:
                continue
            runner = _Stage(setup, name, stage, progress, checkpointer, log)
            if state is None:
                variables = initial_variables(setup)
                state = runner.fresh_state(variables, jnp.asarray(step, jnp.int32))
                if saved:
                    state = checkpointer.restore_latest(state)
            else:
                state = runner.fresh_state({"params": state.params, "batch_stats": state.batch_stats}, state.step)
            state = runner.run(state)
            if index + 1 < len(stages):
                progress.stage, progress.stage_step = index + 1, 0
    finally:
        log.close()
        checkpointer.close()
    return progress


class _Stage:
    """One stage of a run: its functions on the devices, its batches, its epochs."""

    def __init__(
        self,
        setup: Setup,
        name: str,
        stage: StageConfig,
        progress: Progress,
        checkpointer: Checkpointer,
        log: MetricsLog,
    ):
        config = setup.config
        self.setup, self.name, self.stage, self.progress = setup, name, stage, progress
        self.checkpointer, self.log = checkpointer, log
        self.steps_per_epoch = len(setup.train_source) // config.batch_size
        self.steps = self.steps_per_epoch * stage.epochs
        self.tx = make_optimizer(stage, self.steps)
        functions = make_step_functions(
            setup.model,
            setup.task,
            setup.cfg.preprocessing,
            self.tx,
            setup.class_weights,
            stage,
            config.sam,
            config.loss,
            parallel.axis_name(config.parallel),
        )
        self.placement = parallel.place(functions, config.parallel, parallel.data_mesh())

    def fresh_state(self, variables: dict[str, Any], step: jax.Array) -> TrainState:
        """State at the start of the stage: the optimiser starts anew, as the published code has it."""
        trainable, _ = split_params(variables["params"], self.stage.trainable)
        return jax.device_put(
            TrainState(
                step=step,
                params=variables["params"],
                batch_stats=variables["batch_stats"],
                opt_state=self.tx.init(trainable),
                rng=jax.random.key(self.setup.config.seed + 1),
            ),
            parallel.replicated(parallel.data_mesh()),
        )

    def run(self, state: TrainState) -> TrainState:
        """Trains from `progress.stage_step` to the end of the stage; returns the state without a device axis."""
        progress, config = self.progress, self.setup.config
        if progress.stage_step >= self.steps:
            return state
        batches = self.batches(state)
        step = int(state.step)
        state = self.placement.put_state(state)
        meter = Meter(self.name, progress.stage_step, self.steps, self.steps_per_epoch, config.batch_size)
        pending: tuple[int, dict] | None = None
        while progress.stage_step < self.steps:
            state, metrics = self.placement.train(state, self.placement.put_batch(next(batches)))
            step, progress.stage_step = step + 1, progress.stage_step + 1
            # The previous step's metrics are read while this step runs, so the host never holds the device up.
            self.record(pending, meter)
            pending = (step, metrics)
            end_of_epoch = progress.stage_step % self.steps_per_epoch == 0
            every = config.checkpoint.every_steps
            if end_of_epoch or (every and step % every == 0):
                self.record(pending, meter)
                pending = None
                meter.pause()
                whole = self.placement.get_state(state)
                if end_of_epoch:
                    self.end_epoch(step, whole)
                self.checkpointer.save(step, whole, {"step": step, "progress": dataclasses.asdict(progress)})
                meter.resume()
        return self.placement.get_state(state)

    def batches(self, state: TrainState) -> Iterator[Batch]:
        """Training batches from the current position on; of features where the base is frozen and nothing varies."""
        setup, stage = self.setup, self.stage
        config, source = setup.config, setup.train_source
        order = {
            "seed": config.seed + 1000 * self.progress.stage,
            "start_step": self.progress.stage_step,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }
        frozen = stage.trainable == "heads" and stage.batch_norm == "running" and config.data.augmentation == "none"
        if frozen and len(source) * setup.cfg.num_features * 4 <= FEATURE_CACHE_BYTES:
            logger.info("%s stage: computing the features of %d records once", self.name, len(source))
            features = self.outputs(self.placement.features, state, source)
            arrays = {
                "features": features,
                setup.task.label_key: source.labels(setup.task.label_key).astype(np.int32),
                "mask": np.isfinite(features).all(axis=1).astype(np.float32),
            }
            return iter(array_loader(arrays, config.batch_size, **order))
        loader = train_loader(
            source,
            setup.cfg.preprocessing,
            config.batch_size,
            augment=augmentation(config.data, setup.cfg.preprocessing.image_size),
            threads=config.data.read_threads,
            **order,
        )
        keep = ("image", setup.task.label_key, "mask")
        return ({key: batch[key] for key in keep} for batch in loader)

    def outputs(self, function: Callable, state: TrainState, source: FaceSource) -> np.ndarray:
        """What `evaluate` or `features` give for a source's records, in order: (records, ...), nan if unreadable."""
        config, results = self.setup.config, []
        for batch in eval_batches(
            source,
            self.setup.cfg.preprocessing,
            config.eval_batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=config.data.read_threads,
        ):
            inputs = self.placement.put_eval_batch({"image": batch["image"], "mask": batch["mask"]})
            results.append(function(state.params, state.batch_stats, inputs))
        return np.concatenate(jax.device_get(results))[: len(source)]

    def record(self, pending: tuple[int, dict] | None, meter: Meter) -> None:
        """Logs the metrics of a step; stops the run where the loss is not finite."""
        if pending is None:
            return
        step, metrics = pending
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not math.isfinite(values["loss"]):
            raise NonFiniteLossError(
                f"the loss is {values['loss']} at step {step} ({self.name} stage); the last good checkpoint is kept "
                f"in {self.setup.workdir / 'checkpoints'}. "
                f"Try a lower --config.stages.{self.name}.lr (now {self.stage.lr})"
            )
        self.log.write(step, phase="train", stage=self.name, **values)
        meter.update(values)

    def end_epoch(self, step: int, state: TrainState) -> None:
        """Evaluates, keeps the best and the last model, and logs."""
        setup, progress = self.setup, self.progress
        started = time.monotonic()
        scores = self.outputs(self.placement.evaluate, state, setup.eval_source)
        labels = setup.eval_labels
        readable = np.isfinite(scores).all(axis=1)
        result = classify(scores, np.where(readable, labels, -1), setup.task.labels)
        progress.epoch += 1
        value = getattr(result, setup.config.select)
        is_best = value > progress.best
        if is_best:
            progress.best, progress.best_epoch = value, progress.epoch
        for name in ("best",) * is_best + ("last",):
            self.keep(name, step, state, scores, labels)
        self.log.write(
            step,
            phase="eval",
            stage=self.name,
            epoch=progress.epoch,
            n=result.n,
            accuracy=result.accuracy,
            balanced_accuracy=result.balanced_accuracy,
        )
        logger.info(
            "%s epoch %d/%d: validation accuracy %.2f%%, balanced %.2f%% (n=%d%s), evaluated in %.1f s",
            self.name,
            progress.stage_step // self.steps_per_epoch,
            self.stage.epochs,
            100 * result.accuracy,
            100 * result.balanced_accuracy,
            result.n,
            ", best so far" if is_best else "",
            time.monotonic() - started,
        )

    def keep(self, name: str, step: int, state: TrainState, scores: np.ndarray, labels: np.ndarray) -> None:
        """Saves a model for inference, with its scores on the evaluation split, as `workdir/<name>`."""
        if jax.process_index() == 0:
            variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
            save_inference_checkpoint(self.setup.workdir / name, variables, self.setup.cfg)
            path = self.setup.workdir / f"scores_{name}.npz"
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, scores=scores, labels=labels, step=step, epoch=self.progress.epoch)
            os.replace(partial, path)
