"""What a run needs before its first step: the data, the network, its first weights."""

import dataclasses
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import Config, DataConfig
from facejax.data.source import FaceSource
from facejax.data.transforms import RandomHorizontalFlip, RandomResizedCrop, Resize, Transform
from facejax.models.face_model import FaceModel, create_model, init_variables
from facejax.models.pretrained import PretrainedCfg, pretrained_cfg
from facejax.tasks import TASKS, Task
from facejax.train import losses
from facejax.weights.checkpoint import load_inference_checkpoint
from facejax.weights.merge import merge_variables

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run needs and never changes, made by `set_up`.

    Attributes:
        config: The run's config.
        workdir: Where everything is written.
        task: The task that is trained.
        cfg: What is saved beside the weights.
        model: The network.
        train_source: Records of the train split that have a label.
        eval_source: The same of the evaluation split.
        eval_labels: (records,) class indices of `eval_source`.
        class_weights: (classes,) of the loss (eq. 2), from the counts of the train split.
    """

    config: Config
    workdir: pathlib.Path
    task: Task
    cfg: PretrainedCfg
    model: FaceModel
    train_source: FaceSource
    eval_source: FaceSource
    eval_labels: np.ndarray
    class_weights: jax.Array

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the head's outputs."""
        return self.task.labels


def labelled(source: FaceSource, task: Task) -> tuple[FaceSource, np.ndarray]:
    """The records that have a label of the task, and these labels as class indices, int64."""
    labels = source.labels(task.label_key).astype(np.int64)
    if task.label_map:
        labels = np.where(labels >= 0, np.asarray(task.label_map)[labels], -1)
    return source.select(labels >= 0), labels[labels >= 0]


def set_up(config: Config, data_dir: pathlib.Path, workdir: pathlib.Path) -> Setup:
    """Opens the data and builds the network of a run.

    Raises:
        FileNotFoundError: The set is not prepared in `data_dir`; the message has the command that prepares it.
        ValueError: The batch does not divide over the devices, or is larger than the split.
    """
    task, data = TASKS[config.model.task], config.data
    train_source, train_labels = labelled(
        FaceSource(data_dir, data.name, data.train_split, on_corrupt=data.on_corrupt), task
    )
    eval_source, eval_labels = labelled(
        FaceSource(data_dir, data.name, data.eval_split, on_corrupt=data.on_corrupt), task
    )
    for name in ("batch_size", "eval_batch_size"):
        if getattr(config, name) % jax.device_count():
            raise ValueError(
                f"{name} {getattr(config, name)} is no multiple of the {jax.device_count()} devices; "
                f"set --config.{name} to one that is"
            )
    if len(train_source) < config.batch_size:
        raise ValueError(
            f"{train_source.name} has {len(train_source)} labelled records, fewer than one batch of {config.batch_size}"
        )
    cfg = pretrained_cfg(config.model.backbone)
    size = config.model.image_size or cfg.preprocessing.image_size
    cfg = dataclasses.replace(
        cfg,
        tag="",
        preprocessing=dataclasses.replace(cfg.preprocessing, image_size=size),
        tasks=(task.name,),
        labels={task.name: task.labels},
        source="",
        sha256="",
        licence="",
        notes=f"trained by facejax on {data.name}",
    )
    model = create_model(
        config.model.backbone,
        tasks=(task.name,),
        dropout_rate=config.model.dropout_rate,
        dtype=jnp.dtype(config.model.dtype),
    )
    counts = np.bincount(train_labels, minlength=len(task.labels))
    logger.info("%d records of %s by class: %s", len(train_source), train_source.name, _by_class(task, counts))
    return Setup(
        config,
        workdir,
        task,
        cfg,
        model,
        train_source,
        eval_source,
        eval_labels,
        jnp.asarray(losses.class_weights(counts)),
    )


def augmentation(config: DataConfig, image_size: int) -> tuple[Transform, ...]:
    """The random transforms that the config names, for crops of any size; see `DataConfig.augmentation`."""
    if config.augmentation == "none":
        return ()
    if config.augmentation == "flip":
        return (RandomHorizontalFlip(),)
    return (Resize(round(image_size * 8 / 7)), RandomResizedCrop(image_size), RandomHorizontalFlip())


def _by_class(task: Task, counts: np.ndarray) -> str:
    return ", ".join(f"{label} {count}" for label, count in zip(task.labels, counts, strict=True))


def initial_variables(setup: Setup) -> dict[str, Any]:
    """Random variables, with the backbone of `init_from` where the config names one."""
    config = setup.config
    variables = init_variables(setup.model, config.seed, setup.cfg.preprocessing.image_size)
    if config.model.init_from:
        loaded, cfg = load_inference_checkpoint(pathlib.Path(config.model.init_from))
        if cfg.architecture != setup.cfg.architecture:
            raise ValueError(
                f"--config.model.init_from={config.model.init_from} holds a {cfg.architecture}, "
                f"the config's backbone is {setup.cfg.architecture}"
            )
        heads = [name for name in {**variables["params"], **loaded["params"]} if name != "backbone"]
        variables = merge_variables(variables, loaded, leave_out=heads)
        logger.info("backbone taken from %s", config.model.init_from)
    return variables
