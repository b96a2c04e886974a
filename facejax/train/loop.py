"""The training loop: stages, epochs, evaluation, checkpoints and the log. Rerunning a run resumes it, bit for bit."""

import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facejax.atomic import atomic_file
from facejax.config import Config, StageConfig
from facejax.data.loader import Batch, array_loader, eval_batches, train_loader
from facejax.data.source import FaceSource
from facejax.evals.tasks import evaluate_task, format_result, selection_value
from facejax.train import parallel
from facejax.train.checkpoint import Checkpointer, space_needed
from facejax.train.meter import Meter
from facejax.train.metrics_log import MetricsLog
from facejax.train.preemption import PreemptedError, Preemption
from facejax.train.profiling import Profile
from facejax.train.setup import Setup, augmentation, initial_variables
from facejax.train.state import TrainState, split_params
from facejax.train.step import init_optimizer, make_optimizer
from facejax.train.timing import DeviceClock
from facejax.weights.checkpoint import save_inference_checkpoint

logger = logging.getLogger(__name__)

# Above this size, the features of a frozen backbone are computed in every epoch instead of being kept in memory.
FEATURE_CACHE_BYTES = 4 << 30


class NonFiniteLossError(FloatingPointError):
    """The loss or its gradient became infinite or NaN; the last good checkpoint is kept."""


@dataclasses.dataclass
class Progress:
    """Progress of a run; saved in each checkpoint.

    Attributes:
        stage: Index of the current stage in `StagesConfig.active`.
        stage_step: Steps done in the stage; also the index of the next batch.
        epoch: Epochs evaluated so far, over all stages.
        best: Best value of the selection metric so far (`facejax.evals.tasks.selection_value`).
        best_epoch: Epoch of the best value, 0 for none yet.
    """

    stage: int = 0
    stage_step: int = 0
    epoch: int = 0
    best: float = 0.0
    best_epoch: int = 0


def keeps_features(config: Config, stage: StageConfig, records: int, num_features: int) -> bool:
    """Whether a stage computes its features only once: the backbone is frozen, nothing is random, and they fit."""
    frozen = stage.trainable == "heads" and stage.batch_norm == "running" and config.data.augmentation == "none"
    return frozen and records * num_features * 4 <= FEATURE_CACHE_BYTES


def train(setup: Setup, profile_steps: int = 0) -> Progress:
    """Trains to the end, resuming from the newest undamaged checkpoint in the workdir if there is one.

    Writes to the workdir: ``checkpoints/`` (to resume), ``best/`` and ``last/`` (for `facejax.load_model`), their
    scores on the evaluation split, ``metrics.jsonl`` and TensorBoard events.

    Args:
        setup: From `set_up`.
        profile_steps: Number of steps to trace with XProf, written to ``profile/``; 0 for none.

    Raises:
        NonFiniteLossError: A non-finite value occurred; the last good checkpoint stays the newest.
        PreemptedError: SIGTERM was received; all steps done so far are saved.
        DiskFullError: The disk is full; the last complete checkpoint is unchanged.
        CheckpointError: All checkpoints are damaged.
    """
    config, directory = setup.config, setup.workdir / "checkpoints"
    with contextlib.ExitStack() as stack:
        stack.enter_context(space_needed(directory))
        preemption = stack.enter_context(Preemption())
        profile = stack.enter_context(contextlib.closing(Profile(setup.workdir / "profile", profile_steps)))
        checkpointer = stack.enter_context(contextlib.closing(Checkpointer(directory, config.checkpoint.keep)))
        saved = checkpointer.latest_progress()
        progress = Progress(**saved["progress"]) if saved else Progress()
        stages = config.stages.active()
        step = saved["step"] if saved else 0
        if saved:
            logger.info("resuming at step %d (%s stage)", step, stages[min(progress.stage, len(stages) - 1)][0])
        log = stack.enter_context(contextlib.closing(MetricsLog(setup.workdir, step, progress.epoch)))
        run = _Run(setup, progress, checkpointer, log, preemption, profile)
        state = None
        for index, (name, stage) in enumerate(stages):
            if index < progress.stage:
                continue
            before, is_last = sum(earlier.epochs for _, earlier in stages[:index]), index == len(stages) - 1
            runner = _Stage(run, name, stage, before, is_last)
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
    return progress


@dataclasses.dataclass(frozen=True)
class _Run:
    """Objects shared by the stages of a run."""

    setup: Setup
    progress: Progress
    checkpointer: Checkpointer
    log: MetricsLog
    preemption: Preemption
    profile: Profile


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A dispatched step whose metrics have not been read yet."""

    step: int
    metrics: dict[str, jax.Array]
    input_seconds: float
    device_seconds: Future[float]


class _Stage:
    """One stage of a run: its functions on the devices, its batches and its epochs."""

    def __init__(self, run: _Run, name: str, stage: StageConfig, epochs_before: int, is_last: bool):
        setup, config = run.setup, run.setup.config
        self.setup, self.name, self.stage, self.epochs_before, self.is_last = setup, name, stage, epochs_before, is_last
        self.progress, self.checkpointer, self.log = run.progress, run.checkpointer, run.log
        self.preemption, self.profile = run.preemption, run.profile
        self.steps_per_epoch = len(setup.train_source) // config.batch_size
        self.steps = self.steps_per_epoch * stage.epochs
        if stage.warmup_steps >= self.steps:
            logger.warning(
                "%s stage: all %d steps are warm-up (--config.stages.%s.warmup_steps=%d), so lr=%g is not reached",
                *(name, self.steps, name, stage.warmup_steps, stage.lr),
            )
        self.tx = make_optimizer(stage, self.steps)
        self.placement = parallel.place_stage(
            config, stage, setup.model, setup.tasks, setup.cfg.preprocessing, self.tx, setup.class_weights
        )

    def fresh_state(self, variables: dict[str, Any], step: jax.Array) -> TrainState:
        """State at the start of the stage; the optimiser is reset, as in the published code."""
        trainable, _ = split_params(variables["params"], self.stage.trainable)
        return self.placement.put_state(
            TrainState(
                step=step,
                params=variables["params"],
                batch_stats=variables["batch_stats"],
                opt_state=init_optimizer(self.tx, trainable),
                rng=jax.random.key(self.setup.config.seed + 1),
            )
        )

    def run(self, state: TrainState) -> TrainState:
        """Trains from `progress.stage_step` to the end of the stage; returns the state without a device axis."""
        progress, config = self.progress, self.setup.config
        step = int(state.step)
        if progress.epoch < self.epochs_before + progress.stage_step // self.steps_per_epoch:
            # SIGTERM was received before this epoch was evaluated. No new checkpoint is saved here: the next one will
            # contain the result, and this one stays valid until then.
            self.end_epoch(step, state)
        if progress.stage_step >= self.steps:
            return state
        batches = self.batches(state)
        state = self.placement.to_step(state)
        first = next(batches)
        batches = itertools.chain([first], batches)
        compiled = self.compile(step, state, first)
        meter = Meter(
            self.name,
            progress.stage_step,
            self.steps,
            self.steps_per_epoch,
            config.batch_size,
            compiled.flops,
            lambda **values: self.log.write(step, **values),
        )
        pending: _Pending | None = None
        with contextlib.closing(DeviceClock()) as clock:
            while progress.stage_step < self.steps:
                if self.is_last:
                    self.profile.before_step(state)
                with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
                    asked = time.monotonic()
                    batch = self.placement.put_batch(next(batches))
                    dispatched = time.monotonic()
                    state, metrics = compiled.call(state, batch)
                    # The previous step's metrics are read while this step runs, so the device never waits for the host.
                    self.record(pending, meter)
                step, progress.stage_step = step + 1, progress.stage_step + 1
                pending = _Pending(step, metrics, dispatched - asked, clock.watch(dispatched, metrics))
                end_of_epoch = progress.stage_step % self.steps_per_epoch == 0
                every, stop = config.checkpoint.every_steps, self.preemption.requested()
                if end_of_epoch or stop or (every and step % every == 0):
                    self.record(pending, meter)
                    pending = None
                    meter.pause()
                    self.checkpoint(step, self.placement.from_step(state), end_of_epoch, stop, meter)
                    meter.resume()
            meter.report()
            self.profile.stop(state)
        return self.placement.from_step(state)

    def compile(self, step: int, state: Any, batch: Batch) -> parallel.CompiledStep:
        """Compiles the step for these shapes of state and batch; logs its cost."""
        compiled = self.placement.compile(state, self.placement.put_batch(batch))
        costs = {"seconds": compiled.seconds, "flops": compiled.flops, "bytes_per_device": compiled.bytes_per_device}
        self.log.write(step, phase="compile", stage=self.name, **costs)
        logger.info(
            "%s stage: step compiled in %.1f s; %.3g GFLOP, %.0f MiB per device (devices: %d)",
            self.name,
            compiled.seconds,
            compiled.flops / 1e9,
            compiled.bytes_per_device / 2**20,
            jax.device_count(),
        )
        return compiled

    def checkpoint(self, step: int, state: TrainState, end_of_epoch: bool, stop: bool, meter: Meter) -> None:
        """Evaluates at the end of an epoch, and starts saving state and progress as one unit.

        Raises:
            PreemptedError: `stop` is set, or SIGTERM was received during the evaluation; everything is saved.
        """
        if end_of_epoch and not stop:
            try:
                self.end_epoch(step, state)
            except PreemptedError:
                stop = True
        self.checkpointer.save(step, state, {"step": step, "progress": dataclasses.asdict(self.progress)})
        if stop:
            meter.report()
            self.checkpointer.wait()
            raise PreemptedError(f"stopped by SIGTERM; step {step} is saved, the same command resumes from it")

    def batches(self, state: TrainState) -> Iterator[Batch]:
        """Training batches from the current position on; batches of features if they are kept (`keeps_features`)."""
        setup, stage = self.setup, self.stage
        config, source = setup.config, setup.train_source
        label_keys = {task.label_key for task in setup.tasks}
        order = {
            "seed": config.seed + 1000 * self.progress.stage,
            "start_step": self.progress.stage_step,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }
        if keeps_features(config, stage, len(source), setup.cfg.num_features):
            logger.info("%s stage: computing the features of %d records once", self.name, len(source))
            features = self.outputs(self.placement.features, state, source)
            readable = ~np.isnan(features).any(axis=1)
            # Zeros, since masking does not remove NaN: NaN times 0 is NaN.
            arrays = {"features": np.where(readable[:, None], features, 0), "mask": readable.astype(np.float32)}
            for key in label_keys:
                labels = source.labels(key)
                arrays[key] = labels.astype(np.int32 if labels.dtype.kind == "i" else np.float32)
            return iter(array_loader(arrays, config.batch_size, **order))
        loader = train_loader(
            source,
            setup.cfg.preprocessing,
            config.batch_size,
            augment=augmentation(config.data, setup.cfg.preprocessing.image_size),
            threads=config.data.read_threads,
            **order,
        )
        keep = {"image", "mask", *label_keys}
        return ({key: value for key, value in batch.items() if key in keep} for batch in loader)

    def outputs(self, function: Callable, state: TrainState, source: FaceSource) -> Any:
        """Outputs of `evaluate` or `features` for a source's records, in order: (records, ...), NaN if unreadable.

        Raises:
            NonFiniteLossError: The outputs for a readable record are not finite.
        """
        config, results = self.setup.config, []
        for batch in eval_batches(
            source,
            self.setup.cfg.preprocessing,
            config.eval_batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=config.data.read_threads,
        ):
            if self.preemption.requested():
                raise PreemptedError("stopped by SIGTERM during evaluation; the same command evaluates again")
            inputs = self.placement.put_eval_batch({"image": batch["image"], "mask": batch["mask"]})
            results.append((function(state.params, state.batch_stats, inputs), self.placement.gather(inputs["mask"])))
        found, mask = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(source)], *jax.device_get(results))
        finite = [np.isfinite(rows).all(axis=1) for rows in jax.tree.leaves(found)]
        if wrong := int((~np.logical_and.reduce(finite) & (mask > 0)).sum()):
            raise NonFiniteLossError(
                f"the network's output for {source.name} is not finite (in {wrong} of {len(source)} records) in the "
                f"{self.name} stage; {self._hint()}"
            )
        return found

    def record(self, pending: _Pending | None, meter: Meter) -> None:
        """Logs the metrics of a step; stops the run if the loss or the gradient is not finite.

        Checking the loss alone is not enough: it belongs to the weights before the step, which the gradient changes.
        """
        if pending is None:
            return
        step = pending.step
        values = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        for name, words in (("loss", "the loss"), ("grad_norm", "the norm of the gradient")):
            if not math.isfinite(values[name]):
                raise NonFiniteLossError(
                    f"{words} is {values[name]} at step {step} ({self.name} stage); {self._hint()}"
                )
        self.log.write(step, phase="train", stage=self.name, **values)
        meter.update(values, pending.device_seconds.result(), pending.input_seconds)

    def _hint(self) -> str:
        return (
            f"the last good checkpoint is kept in {self.setup.workdir / 'checkpoints'}. Try a lower "
            f"--config.stages.{self.name}.lr (currently {self.stage.lr}), in another --workdir"
        )

    def end_epoch(self, step: int, state: TrainState) -> None:
        """Evaluates, saves the last and, if it improved, the best model, and logs the results."""
        setup, progress = self.setup, self.progress
        started = time.monotonic()
        scores = self.outputs(self.placement.evaluate, state, setup.eval_source)
        results = {
            task.name: evaluate_task(task, scores[task.name], setup.eval_labels[task.name]) for task in setup.tasks
        }
        progress.epoch += 1
        first = setup.tasks[0]
        value = selection_value(first, results[first.name], setup.config.select)
        # An epoch whose value is NaN is the best only as long as there is no other epoch.
        is_best = progress.best_epoch == 0 or not (value <= progress.best or math.isnan(value))
        if is_best:
            progress.best, progress.best_epoch = value, progress.epoch
        for name in ("best",) * is_best + ("last",):
            self.keep(name, step, state, scores)
        metrics = {
            f"{task}/{name}": value
            for task, result in results.items()
            for name, value in {"n": result.n, **result.metrics()}.items()
        }
        self.log.write(step, phase="eval", stage=self.name, epoch=progress.epoch, **metrics)
        logger.info(
            "%s epoch %d/%d: %s %s%s, evaluated in %.1f s",
            self.name,
            progress.stage_step // self.steps_per_epoch,
            self.stage.epochs,
            setup.config.data.eval_split,
            "; ".join(f"{task} {format_result(result)}" for task, result in results.items()),
            " (best so far)" if is_best else "",
            time.monotonic() - started,
        )

    def keep(self, name: str, step: int, state: TrainState, scores: dict[str, np.ndarray]) -> None:
        """Saves the model for inference as `workdir/<name>`, and its scores on the evaluation split next to it."""
        variables = self.placement.gather({"params": state.params, "batch_stats": state.batch_stats})
        if jax.process_index() == 0:
            variables = jax.device_get(variables)
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
                raise NonFiniteLossError(f"a weight or statistic is not finite at step {step}; {self._hint()}")
            save_inference_checkpoint(self.setup.workdir / name, variables, self.setup.cfg)
            arrays: dict[str, Any] = {f"scores/{task}": values for task, values in scores.items()}
            arrays |= {f"labels/{task}": values for task, values in self.setup.eval_labels.items()}
            with atomic_file(self.setup.workdir / f"scores_{name}.npz") as file:
                np.savez(file, step=step, epoch=self.progress.epoch, **arrays)
