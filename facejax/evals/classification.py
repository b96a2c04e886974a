"""Expression recognition as the paper reports it (Table 2): accuracy for 8 classes, for 7, and for 7 from 8.

Works in NumPy on given predictions; every accuracy comes with n and a 95 % interval.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facejax.tasks import EMOTION7, EMOTION8

Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class ClassificationResult:
    """The result of a classifier on some records.

    Attributes:
        labels: Class names.
        confusion: (classes, classes) int64 counts, rows the true class, columns the predicted one.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray

    @property
    def n(self) -> int:
        """Number of records."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the records that is classified correctly, in [0, 1]; nan for no records."""
        return float(np.trace(self.confusion) / self.n) if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson_interval(int(np.trace(self.confusion)), self.n)

    @property
    def recall(self) -> np.ndarray:
        """(classes,) accuracy within each true class; nan for a class without records."""
        count = self.confusion.sum(axis=1)
        return np.where(count > 0, np.diag(self.confusion) / np.maximum(count, 1), np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have records; nan for no records."""
        return float(np.nanmean(self.recall)) if self.n else float("nan")

    @property
    def f1(self) -> np.ndarray:
        """(classes,) F1 of each class, 0 for one that is never predicted correctly; nan for a class without records."""
        hits, true, predicted = np.diag(self.confusion), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return np.where(true > 0, 2 * hits / np.maximum(true + predicted, 1), np.nan)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have records; nan for no records."""
        return float(np.nanmean(self.f1)) if self.n else float("nan")

    def metrics(self) -> dict[str, float]:
        """``accuracy``, ``balanced_accuracy`` and ``macro_f1``."""
        return {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json; per-class recall is null where a class has no record."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "interval95": list(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "per_class": {
                label: {"n": int(count), "recall": None if math.isnan(recall) else float(recall)}
                for label, count, recall in zip(self.labels, self.confusion.sum(axis=1), self.recall, strict=True)
            },
            "confusion": self.confusion.tolist(),
        }


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % of a proportion; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def classify(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"], names: tuple[str, ...]
) -> ClassificationResult:
    """Result of predicting the class with the highest score; records with a negative label are skipped."""
    known = labels >= 0
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (labels[known], scores[known].argmax(axis=1)), 1)
    return ClassificationResult(names, confusion)


def without_contempt(
    scores: Float[np.ndarray, "n 8"], labels: Int[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n 7"], Int[np.ndarray, "n"]]:
    """Scores and labels of the remaining 7 classes; the label is -1 for records of contempt."""
    contempt = EMOTION8.index("contempt")
    return np.delete(scores, contempt, axis=1), np.where(labels == contempt, -1, labels - (labels > contempt))


def seven_from_eight(scores: Float[np.ndarray, "n 8"], labels: Int[np.ndarray, "n"]) -> ClassificationResult:
    """The paper's second way to 7 classes: an 8-class model, without its contempt score and the contempt records."""
    return classify(*without_contempt(scores, labels), EMOTION7)
