"""Class-weighted softmax cross-entropy (paper section 3, equation 2) and the weights it takes from the data."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Normalization = Literal["batch", "example", "none"]


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Weight of each class, w_c = max N / N_c (paper eq. 2), so that the largest class weighs 1.

    Args:
        counts: (classes,) number of training records of each class.

    Returns:
        (classes,) float32. A class without a record gets 0: nothing can be learnt of it, and a weight of infinity
        would poison the label-smoothing term of every other record.
    """
    counts = np.asarray(counts, np.float64)
    if counts.max() <= 0:
        raise ValueError("no training record has a label; class weights need at least one")
    return np.where(counts > 0, counts.max() / np.maximum(counts, 1), 0).astype(np.float32)


def cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    mask: Float[Array, "batch"],
    weights: Float[Array, "classes"],
    *,
    normalization: Normalization = "batch",
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Weighted softmax cross-entropy of a batch.

    Args:
        logits: Raw scores, any range.
        labels: Class indices; those of masked records are ignored.
        mask: 1 for records that count, 0 for padding and missing labels.
        weights: Of each class, see `class_weights`.
        normalization: ``example`` is the mean of w_y * loss over the records (eq. 2 as printed), ``batch`` divides
            by the sum of the records' weights, as the paper's published code does through torch.nn.CrossEntropyLoss,
            ``none`` leaves the weights out.
        label_smoothing: As in torch.nn.CrossEntropyLoss: (1 - s) w_y (-log p_y) + s / C sum_c w_c (-log p_c).

    Returns:
        Scalar float32; 0 where the mask is all 0.
    """
    if normalization == "none":
        weights = jnp.ones_like(weights)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    labels = jnp.where(mask > 0, labels, 0)
    record_weights = weights[labels] * mask
    nll = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0] * record_weights
    if label_smoothing:
        smooth = -(log_probabilities * weights[None, :]).mean(axis=1) * mask
        nll = (1 - label_smoothing) * nll + label_smoothing * smooth
    total = record_weights.sum() if normalization == "batch" else mask.sum()
    return nll.sum() / jnp.maximum(total, 1e-12)
