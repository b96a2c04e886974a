"""One result per task: the metrics of a head on the evaluation split, depending on the kind of task."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from facejax.decoding import expected_age
from facejax.evals.classification import Z95, ClassificationResult, classify, wilson_interval
from facejax.tasks import Task


@runtime_checkable
class TaskResult(Protocol):
    """What every kind of result provides."""

    @property
    def n(self) -> int:
        """Number of records that count."""
        ...

    def metrics(self) -> dict[str, float]:
        """Its metrics by name, for the log and the tables: fractions in [0, 1], ages in years."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        ...


@dataclasses.dataclass(frozen=True)
class RankResult:
    """Closed-set identification: is the true person ranked first, or among the first few?

    Attributes:
        hits: (ranks,) int64: records whose person is among the first 1, 2, ... .
        n: Number of records.
    """

    hits: np.ndarray
    n: int

    def metrics(self) -> dict[str, float]:
        """``accuracy`` (rank 1) and that of the last rank; nan for no records."""
        ranks, n = len(self.hits), self.n or float("nan")
        return {"accuracy": float(self.hits[0] / n), f"rank{ranks}": float(self.hits[-1] / n)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"n": self.n, **self.metrics(), "interval95": list(wilson_interval(int(self.hits[0]), self.n))}


@dataclasses.dataclass(frozen=True)
class AgeResult:
    """Predicted ages against true ages.

    Attributes:
        ages: (n,) true years.
        errors: (n,) predicted minus true years.
        class_hits: Records whose most probable year is the true one (the paper's "13 %" for age).
    """

    ages: np.ndarray
    errors: np.ndarray
    class_hits: int

    @property
    def n(self) -> int:
        """Number of records."""
        return len(self.errors)

    def metrics(self) -> dict[str, float]:
        """``mae``, ``rmse`` (years) and ``class_accuracy``; nan without records."""
        if not self.n:
            return {"mae": np.nan, "rmse": np.nan, "class_accuracy": np.nan}
        return {
            "mae": float(np.abs(self.errors).mean()),
            "rmse": float(np.sqrt((self.errors**2).mean())),
            "class_accuracy": self.class_hits / self.n,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with 95 % intervals of class accuracy and mean absolute error (by a normal approximation)."""
        values: dict[str, Any] = {"n": self.n, **self.metrics()}
        values["class_interval95"] = list(wilson_interval(self.class_hits, self.n))
        if self.n > 1:
            half = Z95 * np.abs(self.errors).std(ddof=1) / np.sqrt(self.n)
            values["interval95"] = [max(values["mae"] - half, 0.0), values["mae"] + half]
        return values


@dataclasses.dataclass(frozen=True)
class RegressionResult:
    """Continuous values against true ones.

    Attributes:
        names: Names of the columns.
        predicted: (n, values).
        target: (n, values).
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    target: np.ndarray

    @property
    def n(self) -> int:
        """Number of records."""
        return len(self.target)

    def metrics(self) -> dict[str, float]:
        """``ccc_<name>`` (`concordance`) and ``rmse_<name>`` of each value; nan without records."""
        if not self.n:
            return {f"{metric}_{name}": np.nan for name in self.names for metric in ("ccc", "rmse")}
        ccc = concordance(self.predicted, self.target)
        rmse = np.sqrt(((self.predicted.astype(np.float64) - self.target) ** 2).mean(axis=0))
        by_name = {}
        for index, name in enumerate(self.names):
            by_name |= {f"ccc_{name}": float(ccc[index]), f"rmse_{name}": float(rmse[index])}
        return by_name

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"n": self.n, **self.metrics()}


def concordance(
    predicted: Float[np.ndarray, "n *values"], target: Float[np.ndarray, "n *values"]
) -> Float[np.ndarray, "*values"]:
    """Concordance correlation coefficient of each column, in [-1, 1] (Lin 1989, population variances).

    It is 0 where all the predicted and all the true values are one number.
    """
    x, y = predicted.astype(np.float64), target.astype(np.float64)
    covariance = ((x - x.mean(axis=0)) * (y - y.mean(axis=0))).mean(axis=0)
    spread = x.var(axis=0) + y.var(axis=0) + (x.mean(axis=0) - y.mean(axis=0)) ** 2
    return np.asarray(2 * covariance / np.where(spread > 0, spread, 1))


def evaluate_task(task: Task, scores: Float[np.ndarray, "n outputs"], labels: np.ndarray) -> TaskResult:
    """Computes the result of a head on some records.

    Args:
        task: The task of the head.
        scores: As returned by `facejax.train.step.scores`; rows of nan for records that could not be read.
        labels: Class indices, -1 for none (categorical, binary, identity); years, whole or with
            fractions, negative or nan for none (age); (n, outputs) values, nan for none (regression).
    """
    readable = np.isfinite(scores).all(axis=1)
    if task.kind == "regression":
        known = readable & np.isfinite(labels).all(axis=1)
        return RegressionResult(task.labels, scores[known], labels[known])
    known = readable & (labels >= 0)
    scores, labels = scores[known], labels[known]
    if task.kind == "identity":
        found = np.cumsum(scores.astype(np.int64) == labels[:, None], axis=1) > 0
        return RankResult(found.sum(axis=0), len(labels))
    if task.kind == "age":
        classes = np.clip(np.rint(labels), 1, scores.shape[1]) - 1
        hits = int((scores.argmax(axis=1) == classes).sum())
        return AgeResult(labels, expected_age(scores) - labels, hits)
    return classify(scores, labels, task.labels)


def selection_value(task: Task, result: TaskResult, select: Literal["accuracy", "balanced_accuracy"]) -> float:
    """The value that the best epoch maximises: accuracy, minus the error in years, or the mean concordance."""
    metrics = result.metrics()
    if task.kind == "age":
        return -metrics["mae"]
    if task.kind == "regression":
        return float(np.mean([metrics[f"ccc_{name}"] for name in task.labels]))
    if isinstance(result, ClassificationResult):
        return metrics[select]
    return metrics["accuracy"]


def format_result(result: TaskResult) -> str:
    """The metrics in one line: fractions in percent, ages in years, and n; only n if it is 0."""
    if not result.n:
        return "no records (n=0)"
    parts = []
    for name, value in result.metrics().items():
        plain = name in ("mae", "rmse") or name.startswith(("ccc", "rmse"))
        parts.append(f"{name.replace('_', ' ')} {f'{value:z.3f}' if plain else f'{100 * value:.2f}%'}")
    return f"{', '.join(parts)} (n={result.n})"


def format_interval(
    value: float, interval: Sequence[float | None] | None = None, *, scale: float = 1.0, decimals: int = 2
) -> str:
    """``62.42 [60.10, 64.70]``: a value and its interval, both times `scale`.

    The value alone if there is no interval, or its ends are nan (null in files), as for a single person.
    """
    ends = [f"{scale * end:z.{decimals}f}" for end in interval or () if end is not None and not math.isnan(end)]
    return f"{scale * value:z.{decimals}f}" + (f" [{', '.join(ends)}]" if ends else "")
