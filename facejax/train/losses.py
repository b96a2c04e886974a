"""The losses of the heads: class-weighted softmax cross-entropy (paper eq. 2), binary cross-entropy, concordance.

Each takes a mask, since a batch may mix records of several datasets with different labels, and returns 0 if no record
has the label.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

Normalization = Literal["batch", "example", "none"]


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Weight of each class, w_c = max N / N_c (paper eq. 2), so that the largest class weighs 1.

    Args:
        counts: (classes,) number of training records of each class.

    Returns:
        (classes,) float32. A class without records gets 0: nothing can be learnt about it, and an infinite weight
        would poison the label-smoothing term of every other record.

    Raises:
        ValueError: There are no records at all.
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
        mask: 1 for labelled records, 0 for padding and missing labels.
        weights: Weight of each class, see `class_weights`.
        normalization: ``example`` is the mean of w_y * loss over the records (eq. 2 as printed), ``batch`` divides
            by the sum of the records' weights, as the paper's published code does through torch.nn.CrossEntropyLoss,
            ``none`` ignores the weights.
        label_smoothing: As in torch.nn.CrossEntropyLoss: (1 - s) w_y (-log p_y) + s / C sum_c w_c (-log p_c).

    Returns:
        Scalar float32; 0 if the mask is all 0.
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


def binary_cross_entropy(
    logits: Float[Array, "batch"], labels: Int[Array, "batch"], mask: Float[Array, "batch"]
) -> Float[Array, ""]:
    """Mean sigmoid cross-entropy over the unmasked records (the paper's loss for gender).

    Args:
        logits: Logit of label 1, any range.
        labels: 0 or 1; those of masked records are ignored.
        mask: 1 for labelled records, 0 for others.
    """
    nll = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels.astype(jnp.float32))
    return jnp.where(mask > 0, nll, 0).sum() / jnp.maximum(mask.sum(), 1)


def concordance(
    predicted: Float[Array, "batch values"], target: Float[Array, "batch values"], mask: Float[Array, "batch"]
) -> Float[Array, "values"]:
    """Lin's concordance correlation coefficient of each value over the unmasked records, in [-1, 1].

    2 cov(x, y) / (var x + var y + (mean x - mean y)^2), with population variances (divided by n), as defined by Lin
    (1989); 0 if nothing varies or all records are masked. The code of the published successor divides by n - 1, which
    gives the difference of the means slightly less weight: (n - 1) / n of its square.

    Args:
        predicted: Any range.
        target: Any range, NaN in masked records.
        mask: 1 for labelled records, 0 for others.
    """
    weights = (mask / jnp.maximum(mask.sum(), 1))[:, None]
    x = predicted.astype(jnp.float32)
    y = jnp.where(mask[:, None] > 0, target, 0).astype(jnp.float32)
    mean_x, mean_y = (weights * x).sum(axis=0), (weights * y).sum(axis=0)
    dx, dy = x - mean_x[None, :], y - mean_y[None, :]
    covariance = (weights * dx * dy).sum(axis=0)
    spread = (weights * (dx**2 + dy**2)).sum(axis=0) + (mean_x - mean_y) ** 2
    return 2 * covariance / jnp.maximum(spread, 1e-8)
