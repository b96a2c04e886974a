"""Setup of a run before its first step: the data, the network, its initial weights."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import Config, ConfigError, DataConfig, ModelConfig
from facejax.data.mixture import open_source
from facejax.data.source import FaceSource
from facejax.data.transforms import RandomHorizontalFlip, RandomResizedCrop, Resize, Transform
from facejax.datasets.registry import get_dataset
from facejax.models.face_model import FaceModel, abstract_variables, init_variables, model_from_cfg
from facejax.models.pretrained import PretrainedCfg, pretrained_cfg
from facejax.naming import did_you_mean
from facejax.preprocessing import Preprocessing
from facejax.tasks import TASKS, Task
from facejax.train.batch_norm import is_folded, restore_batch_norm
from facejax.train.initial import load_initial
from facejax.train.labels import class_weights, labelled
from facejax.weights.checkpoint import CFG, load_cfg
from facejax.weights.merge import merge_variables

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run that never change, created by `set_up`.

    Attributes:
        config: The run's config.
        workdir: Folder that everything is written to.
        tasks: The trained tasks; the first one selects the best epoch.
        cfg: Configuration that is saved with the weights.
        model: The network.
        train_source: Records of the train split that have a label for at least one of the tasks.
        eval_source: The same for the evaluation split.
        eval_labels: By task, the labels of `eval_source` as returned by `labels.class_labels`.
        class_weights: By task, (classes,) weights of the loss (eq. 2), from the counts of the train split; ones for
            tasks without class weights.
        initial: Variables and configuration that the run starts from; None for random weights.
    """

    config: Config
    workdir: pathlib.Path
    tasks: tuple[Task, ...]
    cfg: PretrainedCfg
    model: FaceModel
    train_source: FaceSource
    eval_source: FaceSource
    eval_labels: dict[str, np.ndarray]
    class_weights: dict[str, jax.Array]
    initial: tuple[dict[str, Any], PretrainedCfg] | None


def open_split(config: Config, data_dir: pathlib.Path, split: str) -> tuple[FaceSource, dict[str, np.ndarray]]:
    """The `labelled` records of a split of the config's dataset, and their labels.

    Raises:
        FileNotFoundError: The dataset is not prepared; the message gives the command that prepares it.
        ConfigError: It has no such split, or no label for one of the tasks.
    """
    data, tasks = config.data, trained_tasks(config)
    try:
        source = open_source(data_dir, data.name, split, data.on_corrupt, some=split == data.eval_split)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for task in tasks:
        if task.label_key not in source.fields:
            raise ConfigError(f"{source.name} has no {task.label_key!r}, which task {task.name} learns from")
    return labelled(source, tasks)


def set_up(config: Config, data_dir: pathlib.Path, workdir: pathlib.Path) -> Setup:
    """Opens the data and builds the network of a run.

    Raises:
        FileNotFoundError: The dataset or the model to start from is missing; the message gives the command that creates
            it.
        ConfigError: The batch does not divide over the devices, or is larger than the split; a task is unknown; or the
            dataset has no label for it, no such split, or more identities or classes than the head.
    """
    data, tasks = config.data, trained_tasks(config)
    check_settings(config)
    sources, labels = {}, {}
    for split in (data.train_split, data.eval_split):
        sources[split], labels[split] = open_split(config, data_dir, split)
    _check_eval_labels(tasks, data, labels[data.eval_split])
    train_source, train_labels = sources[data.train_split], labels[data.train_split]
    if len(train_source) < config.batch_size:
        raise ConfigError(
            f"{train_source.name} has {len(train_source)} labelled records, fewer than one batch of "
            f"{config.batch_size}: prepare more photos, or lower --config.batch_size"
        )
    persons = int(max(split["identity"].max() for split in labels.values())) + 1 if "identity" in train_labels else 0
    if persons > (config.model.identities or persons):
        raise ConfigError(
            f"{data.name} has {persons} identities, more than --config.model.identities={config.model.identities}; "
            "set it to 0 for one output per identity"
        )
    initial = load_initial(config.model.init_from, workdir) if config.model.init_from else None
    model, cfg = build_model(config, initial and initial[1], persons)
    cfg = dataclasses.replace(cfg, preprocessing=_resumed_preprocessing(workdir, cfg.preprocessing))
    weights = {}
    for task in tasks:
        weights[task.name], line = class_weights(task, train_labels[task.name])
        logger.info("%s of %s: %s", task.name, train_source.name, line)
    eval_source, eval_labels = sources[data.eval_split], labels[data.eval_split]
    return Setup(config, workdir, tasks, cfg, model, train_source, eval_source, eval_labels, weights, initial)


def check_settings(config: Config) -> None:
    """Rejects incompatible settings regardless of the data, before a dataset is looked for or rendered.

    Raises:
        ConfigError: No stage has epochs, sharding is requested under pmap, heads are kept on a backbone that changes, a
            batch does not divide over the devices, the parts of SAM and the microbatches; or see `trained_tasks`.
    """
    trained_tasks(config)
    stages = [stage for _, stage in config.stages.active()]
    if not stages:
        raise ConfigError("no stage has epochs: set --config.stages.head.epochs or --config.stages.full.epochs")
    if config.parallel == "pmap" and config.sharding != "none":
        raise ConfigError(
            f"--config.sharding={config.sharding} needs --config.parallel=jit: under pmap every device has the whole "
            "state"
        )
    if config.model.keep_heads and any(s.trainable != "heads" or s.batch_norm != "running" for s in stages):
        raise ConfigError(
            f"--config.model.keep_heads={','.join(config.model.keep_heads)}: the kept heads need the backbone that "
            "they were trained on, so every stage must have trainable=heads and batch_norm=running; set "
            "--config.stages.full.epochs=0"
        )
    devices, parts, microbatches = jax.device_count(), config.sam.parts, config.accumulate
    for name, divisor in (("batch_size", devices * parts * microbatches), ("eval_batch_size", devices)):
        if getattr(config, name) % divisor:
            cut = f" x {parts} parts x {microbatches} microbatches" if divisor > devices else ""
            raise ConfigError(
                f"{name} {getattr(config, name)} is not a multiple of the {devices} devices{cut}; "
                f"set --config.{name} to one that is"
            )


def _check_eval_labels(tasks: Sequence[Task], data: DataConfig, labels: Mapping[str, np.ndarray]) -> None:
    """Requires labels for the first task, which selects the best epoch; warns about other tasks without labels."""
    for task in tasks:
        values = labels[task.name]
        if np.any(np.isfinite(values) if task.kind == "regression" else values >= 0):
            continue
        words = f"no record of {data.name}/{data.eval_split} has a label for task {task.name}"
        if task == tasks[0]:
            raise ConfigError(f"{words}, which selects the best epoch; put another one first in --config.model.tasks")
        logger.warning("%s: its metrics will be empty", words)


def trained_tasks(config: Config) -> tuple[Task, ...]:
    """The trained tasks of a config.

    Raises:
        ConfigError: A task is unknown, named twice or both trained and kept, or the number of loss weights is wrong.
    """
    names = config.model.tasks
    heads = (*names, *config.model.keep_heads)
    for name in heads:
        if name not in TASKS:
            raise ConfigError(f"no task called {name!r}{did_you_mean(name, TASKS)}")
        if heads.count(name) > 1:
            raise ConfigError(f"task {name} is named twice in --config.model.tasks and keep_heads")
    if not names:
        raise ConfigError("--config.model.tasks names no task")
    if config.loss.task_weights and len(config.loss.task_weights) != len(names):
        raise ConfigError(f"--config.loss.task_weights needs {len(names)} values, one for each of {', '.join(names)}")
    return tuple(TASKS[name] for name in names)


def build_model(
    config: Config, initial: PretrainedCfg | None = None, persons: int = 0
) -> tuple[FaceModel, PretrainedCfg]:
    """(network, configuration to save with its weights).

    Args:
        config: The run's config.
        initial: Configuration of the weights that it starts from; None for random weights.
        persons: Number of outputs of an identity head if `config.model.identities` is 0.

    Raises:
        ConfigError: The initial weights have another architecture, lack a head that is to be kept, or that head expects
            another pooling or input size; heads cannot share a layer; or the photos are too small for the network.
    """
    wanted, tasks = config.model, trained_tasks(config)
    base = pretrained_cfg(wanted.backbone)
    image_size, interpolation = wanted.image_size or base.preprocessing.image_size, base.preprocessing.interpolation
    shared_hidden = wanted.shared_hidden
    num_classes = {"identity": wanted.identities or persons} if "identity" in wanted.tasks else {}
    if initial is not None:
        _check_initial(wanted, initial)
        base = initial
        shared_hidden += tuple(name for name in base.shared_hidden if name in wanted.keep_heads)
        num_classes |= {name: n for name, n in base.num_classes.items() if name in wanted.keep_heads}
        if wanted.keep_heads:
            image_size, interpolation = base.preprocessing.image_size, base.preprocessing.interpolation
    elif wanted.keep_heads:
        raise ConfigError("--config.model.keep_heads needs --config.model.init_from, which the heads are copied from")
    names = (*wanted.keep_heads, *(task.name for task in tasks))
    cfg = PretrainedCfg(
        architecture=base.architecture,
        # The preprocessing of the initial weights is kept, except (without heads to keep) for size and kernel: timm's
        # ImageNet weights use bicubic resizing, while the published code fine-tunes them on bilinear crops, as does our
        # augmentation.
        preprocessing=dataclasses.replace(base.preprocessing, image_size=image_size, interpolation=interpolation),
        tasks=names,
        num_classes=num_classes,
        labels={name: TASKS[name].labels for name in names},
        shared_hidden=shared_hidden,
        num_features=base.num_features,
        global_pool=wanted.global_pool or base.global_pool,
        licence=_licence(config, initial),
        training_data=_training_data(config, initial),
        notes=f"trained by facejax on {config.data.name}" + (f", from {wanted.init_from}" if wanted.init_from else ""),
    )
    try:
        model = model_from_cfg(cfg, dropout_rate=wanted.dropout_rate, dtype=jnp.dtype(wanted.dtype))
    except ValueError as error:
        raise ConfigError(f"--config.model: {error}") from error
    size = cfg.preprocessing.image_size
    try:
        abstract_variables(model, size)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--config.model.image_size={size}: {error}") from error
    return model, cfg


def _check_initial(wanted: ModelConfig, initial: PretrainedCfg) -> None:
    """Raises a ConfigError if a network cannot start from these weights, or keep the heads that it is to keep."""
    if initial.architecture != pretrained_cfg(wanted.backbone).architecture:
        raise ConfigError(
            f"--config.model.init_from={wanted.init_from} is a {initial.architecture}, "
            f"but the config's backbone is {pretrained_cfg(wanted.backbone).architecture}"
        )
    if not wanted.keep_heads:
        return
    missing = [name for name in wanted.keep_heads if name not in initial.tasks]
    if missing:
        raise ConfigError(
            f"--config.model.init_from={wanted.init_from} has no head {', '.join(missing)} to keep; it has "
            f"{', '.join(initial.tasks) or 'none'}"
        )
    kept_shared = [name for name in initial.shared_hidden if name in wanted.keep_heads]
    if wanted.shared_hidden and kept_shared:  # there is one such layer, and training it would change the kept heads
        raise ConfigError(
            f"--config.model.shared_hidden: {', '.join(kept_shared)} of {wanted.init_from} share a hidden layer "
            "and are kept; leave shared_hidden empty"
        )
    kept, image_size = f"the kept heads of {wanted.init_from} expect", initial.preprocessing.image_size
    if wanted.image_size not in (0, image_size):
        raise ConfigError(f"--config.model.image_size={wanted.image_size}: {kept} {image_size} px; set it to 0")
    if wanted.global_pool not in ("", initial.global_pool):
        raise ConfigError(
            f"--config.model.global_pool={wanted.global_pool}: {kept} features pooled by {initial.global_pool}; "
            "leave it empty"
        )


def _resumed_preprocessing(workdir: pathlib.Path, now: Preprocessing) -> Preprocessing:
    """The preprocessing that a resumed run started with, in case the defaults have changed; `now` for a new run."""
    if not (workdir / "last" / CFG).is_file():
        return now
    try:
        before = load_cfg(workdir / "last").preprocessing
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if before != now:
        logger.info("resuming with the preprocessing that the run began with: %s; a new run would use %s", before, now)
    return before


def _licence(config: Config, initial: PretrainedCfg | None) -> str:
    """Licences that apply to weights trained on these datasets from the initial weights; see also the model cards."""
    sets = [f"{name}: {get_dataset(name).licence}" for name in config.data.name.split("+")]
    first = f"initial weights: {initial.licence}" if initial is not None and initial.licence else ""
    return "; ".join(filter(None, [*sets, first]))


def _training_data(config: Config, initial: PretrainedCfg | None) -> tuple[str, ...]:
    """Training datasets of the resulting weights: those of the initial weights, then this run's."""
    before = () if initial is None else initial.training_data
    return tuple(dict.fromkeys((*before, *config.data.name.split("+"))))


def augmentation(config: DataConfig, image_size: int) -> tuple[Transform, ...]:
    """The random transforms of the config, for crops of any size; see `DataConfig.augmentation`."""
    if config.augmentation == "none":
        return ()
    if config.augmentation == "flip":
        return (RandomHorizontalFlip(),)
    return (Resize(round(image_size * 8 / 7)), RandomResizedCrop(image_size), RandomHorizontalFlip())


def initial_variables(setup: Setup) -> dict[str, Any]:
    """Randomly initialised variables, with the backbone and kept heads of `init_from` if the config names one."""
    config = setup.config
    variables = init_variables(setup.model, config.seed, setup.cfg.preprocessing.image_size)
    if setup.initial is None:
        return variables
    loaded, cfg = setup.initial
    kept = {"backbone", *(f"head_{name}" for name in config.model.keep_heads)}
    if set(cfg.shared_hidden) & set(config.model.keep_heads):
        kept.add("head_shared")
    heads = [name for name in {**variables["params"], **loaded["params"]} if name not in kept]
    variables = merge_variables(variables, loaded, leave_out=heads)
    logger.info("%s loaded from %s", ", ".join(sorted(kept)), config.model.init_from)
    if config.model.restore_batch_norm and is_folded(variables):
        logger.info("its BatchNorm was folded into the convolutions: re-estimating statistics on the training photos")
        variables = restore_batch_norm(setup.model, variables, setup.cfg.preprocessing, setup.train_source, config.seed)
    return variables
