"""Decodes a head's raw outputs into probabilities and ages, in NumPy, so that it also works with exported models."""

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from facejax.tasks import Task


def probabilities(task: Task, logits: Float[np.ndarray, "n outputs"]) -> Float[np.ndarray, "n classes"]:
    """Probabilities of the task's classes, float32; rows sum to 1.

    Args:
        task: Categorical and age tasks use a softmax over the outputs; a binary task has a single output, the logit of
            ``labels[1]``, and gives two columns.
        logits: Raw outputs of the head.

    Raises:
        ValueError: The task is a regression, which has no probabilities.
    """
    if task.kind == "regression":
        raise ValueError(f"task {task.name!r} is a regression and has no probabilities; use its outputs as they are")
    logits = logits.astype(np.float32)
    if task.kind == "binary":
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    return softmax(logits, axis=1)


def expected_age(age_probabilities: Float[np.ndarray, "n ages"], top: int = 2) -> Float[np.ndarray, "n"]:
    """Age in years: the expectation over the `top` most probable ages only (paper eq. 1).

    Args:
        age_probabilities: Column i is the probability of age i + 1.
        top: L in eq. 1; 2 in the published code. The number of columns gives the plain expectation.

    Raises:
        ValueError: `top` is below 1, or above the number of columns.
    """
    if not 1 <= top <= age_probabilities.shape[1]:
        raise ValueError(f"top must be between 1 and {age_probabilities.shape[1]}, got {top}")
    best = np.argsort(-age_probabilities, axis=1, kind="stable")[:, :top]
    weights = np.take_along_axis(age_probabilities, best, axis=1).astype(np.float64)
    return ((best + 1) * weights).sum(axis=1) / weights.sum(axis=1)
