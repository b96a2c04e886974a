"""Bootstrap intervals of any metric, by record or by person: photos of one person are not independent samples."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from facejax.evals.classification import wilson_interval

# Maps the indices of some records to a number, which may be nan where the metric is not defined on them.
Metric = Callable[[np.ndarray], float]


def resample(
    metric: Metric,
    records: Int[np.ndarray, " n"],
    clusters: np.ndarray | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, " samples"]:
    """The metric on `samples` bootstrap draws (with replacement), each as large as the original.

    Args:
        metric: Function of record indices; an index may occur several times.
        records: Indices to draw from.
        clusters: (n,) what each record belongs to, such as the person: whole clusters are drawn. None draws single
            records.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        All nan if there are fewer than two records, or two clusters: every draw would be the same, which would suggest
        that there is no uncertainty.
    """
    if len(records if clusters is None else np.unique(clusters)) < 2:
        return np.full(samples, np.nan)
    rng = np.random.default_rng(seed)
    if clusters is None:
        return np.array([metric(rng.choice(records, len(records))) for _ in range(samples)], np.float64)
    _, member = np.unique(clusters, return_inverse=True)
    order = np.argsort(member, kind="stable")
    parts = np.split(records[order], np.cumsum(np.bincount(member))[:-1])
    values = []
    for _ in range(samples):
        drawn = rng.integers(len(parts), size=len(parts))
        values.append(metric(np.concatenate([parts[index] for index in drawn])))
    return np.array(values, np.float64)


def person_clusters(persons: np.ndarray) -> Int[np.ndarray, " n"]:
    """Cluster of each record: that of its person, or one of its own if the person is unknown.

    Args:
        persons: (n,) names, or numbers from 0; empty, negative or nan if unknown.
    """
    _, cluster = np.unique(persons, return_inverse=True)
    nobody = ~(persons >= 0) if np.issubdtype(persons.dtype, np.number) else persons == ""
    return np.where(nobody, len(persons) + np.arange(len(persons)), cluster)


def interval95(values: Float[np.ndarray, " samples"]) -> tuple[float, float]:
    """Percentile interval of bootstrap values, ignoring nan; (nan, nan) if all are nan or all are equal.

    In a group that is all right or all wrong, all draws are equal: they say nothing about the uncertainty.
    """
    values = values[np.isfinite(values)]
    if not len(values) or values.min() == values.max():
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def accuracy_interval(
    right: np.ndarray, records: Int[np.ndarray, " n"], persons: Int[np.ndarray, " n"], seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of an accuracy by bootstrap over people; Wilson's over people if it is 0 or 1.

    Args:
        right: (all records,) bool: whether the prediction is right.
        records: Indices of the records that count.
        persons: Person of each of these.
        seed: Seed of the draws.

    Returns:
        (nan, nan) for fewer than two people.
    """
    count = len(np.unique(persons))
    if count > 1 and (part := float(right[records].mean())) in (0, 1):
        return wilson_interval(int(part) * count, count)
    return interval95(resample(lambda drawn: float(right[drawn].mean()), records, persons, seed=seed))
