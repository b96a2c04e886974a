"""How well probabilities are calibrated: expected calibration error and reliability by bin (Guo et al. 2017)."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
    """Confidence (the highest probability) against accuracy, in bins of equal width.

    Attributes:
        edges: Edges of the bins, 0 to 1.
        counts: Records per bin.
        confidence: Mean confidence per bin; nan if it is empty.
        accuracy: Accuracy per bin; likewise.
        brier: Mean squared distance of the probabilities from the truth (0 to 2).
        nll: Mean negative log-likelihood, nats.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]
    brier: float
    nll: float

    @property
    def n(self) -> int:
        """Number of records."""
        return int(self.counts.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence| averaged over the records, in [0, 1]; nan without any."""
        if not self.n:
            return float("nan")
        used = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[used]
        return float((gaps * self.counts[used]).sum() / self.n)

    @property
    def mce(self) -> float:
        """The largest |accuracy - confidence| of a bin."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence))) if self.n else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json; empty bins are left out."""
        bins = [
            {
                "from": float(self.edges[i]),
                "n": int(self.counts[i]),
                "confidence": float(self.confidence[i]),
                "accuracy": float(self.accuracy[i]),
            }
            for i in np.flatnonzero(self.counts)
        ]
        return {"n": self.n, "ece": self.ece, "mce": self.mce, "brier": self.brier, "nll": self.nll, "bins": bins}


def reliability(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], bins: int = 15
) -> CalibrationResult:
    """Calibration of the most probable class; records with a negative label are skipped.

    Args:
        probabilities: Rows sum to 1.
        labels: Class indices.
        bins: Number of bins of equal width; a bin includes its upper edge, as in Guo et al.

    Raises:
        ValueError: A row is not a distribution: raw scores have no calibration.
    """
    known = labels >= 0
    probabilities, labels = probabilities[known].astype(np.float64), labels[known]
    if len(probabilities) and (probabilities.min() < -1e-6 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3):
        raise ValueError("expected probabilities with rows that sum to 1, got scores of another kind")
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(axis=1, initial=0)
    hits = probabilities.argmax(axis=1) == labels
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    truth = probabilities[np.arange(len(labels)), labels]
    distance = (probabilities**2).sum(axis=1) - 2 * truth + 1
    return CalibrationResult(
        edges,
        counts,
        np.bincount(place, confidence, bins) / filled,
        np.bincount(place, hits, bins) / filled,
        float(distance.mean()) if len(labels) else float("nan"),
        float(-np.log(np.maximum(truth, 1e-12)).mean()) if len(labels) else float("nan"),
    )
