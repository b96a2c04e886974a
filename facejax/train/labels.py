"""Labels of a task: for every record of a source, and the class weights that follow from their counts."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from facejax.config import ConfigError
from facejax.data.source import FaceSource
from facejax.tasks import Task
from facejax.train import losses


def class_labels(source: FaceSource, task: Task) -> np.ndarray:
    """The task's label for every record of a source.

    Class indices, int64, -1 where missing (age: years); or (records, outputs) float32, NaN where missing.

    Raises:
        KeyError: The dataset has no such label.
    """
    labels = source.labels(task.label_key)
    if task.kind == "regression":
        return labels
    labels = np.rint(np.where(np.isfinite(labels), labels, -1)).astype(np.int64)
    return np.where(labels >= 0, np.asarray(task.label_map)[labels], -1) if task.label_map else labels


def labelled(source: FaceSource, tasks: Sequence[Task]) -> tuple[FaceSource, dict[str, np.ndarray]]:
    """The records that have a label for at least one of the tasks, and their labels by task."""
    labels = {task.name: class_labels(source, task) for task in tasks}
    known = np.any([np.isfinite(v).all(axis=1) if v.ndim > 1 else v >= 0 for v in labels.values()], axis=0)
    return source.select(known), {name: values[known] for name, values in labels.items()}


def class_weights(task: Task, labels: np.ndarray) -> tuple[jax.Array, str]:
    """Weights of the task's classes, and a description of how many records there are."""
    if task.kind == "regression":
        return jnp.ones(task.num_outputs), f"{np.isfinite(labels).all(axis=1).sum()} labelled records"
    known = labels[labels >= 0]
    if not len(known):
        raise ConfigError(f"no record has a label for task {task.name}")
    if task.kind == "identity":
        return jnp.ones(1), f"{len(known)} records of {len(np.unique(known))} people"
    if task.kind == "age":
        return jnp.ones(task.num_outputs), f"{len(known)} records, aged {known.min()} to {known.max()} years"
    if known.max() >= len(task.labels):
        raise ConfigError(f"task {task.name} has {len(task.labels)} classes, but a record has class {known.max()}")
    counts = np.bincount(known, minlength=len(task.labels))
    words = ", ".join(f"{label} {count}" for label, count in zip(task.labels, counts, strict=True))
    weights = losses.class_weights(counts) if task.weighted else np.ones(len(counts), np.float32)
    return jnp.asarray(weights), f"{len(known)} records: {words}"
