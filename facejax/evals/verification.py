"""Verification (do two photos show the same person?): LFW's ten folds, ROC, and rates at low false acceptance."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class VerificationResult:
    """Verification metrics from the similarities of pairs.

    Attributes:
        accuracy: Accuracy of each fold, at the threshold that is best on all other folds (LFW, Huang et al. 2007).
        threshold: Threshold of each fold.
        false_acceptance: False acceptance rates of the ROC curve, ascending.
        true_acceptance: True acceptance rates of the ROC curve.
        auc: Area under the ROC curve.
        equal_error: Equal error rate, where false acceptance and false rejection meet.
        tar: True acceptance rate by false acceptance rate; nan if there are too few pairs to measure it.
        n: Number of pairs.
    """

    accuracy: Float[np.ndarray, " folds"]
    threshold: Float[np.ndarray, " folds"]
    false_acceptance: Float[np.ndarray, " points"]
    true_acceptance: Float[np.ndarray, " points"]
    auc: float
    equal_error: float
    tar: dict[float, float]
    n: int

    @property
    def mean(self) -> float:
        """Mean accuracy of the folds."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the folds (population)."""
        return float(self.accuracy.std())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json, without the curve; nan is None."""
        tar = {str(far): None if np.isnan(rate) else rate for far, rate in self.tar.items()}
        values = {"n": self.n, "folds": len(self.accuracy), "accuracy": self.mean, "std": self.std, "auc": self.auc}
        return {**values, "equal_error": self.equal_error, "tar_at_far": tar}


def verify(
    similarity: Float[np.ndarray, " n"],
    same: Bool[np.ndarray, " n"],
    fold: Int[np.ndarray, " n"],
    false_acceptance: Sequence[float] = (0.001, 0.01, 0.1),
) -> VerificationResult:
    """Evaluates verification on pairs.

    Args:
        similarity: Similarity of each pair, e.g. the cosine of its features; higher is likelier the same person.
        same: Whether each pair shows the same person.
        fold: Fold of each pair, 0, 1, ...; people of one fold should be in no other.
        false_acceptance: Rates at which to report the true acceptance.

    Raises:
        ValueError: Fewer than two folds, or only pairs of one kind.
    """
    from sklearn.metrics import auc, roc_curve

    folds = np.unique(fold)
    if len(folds) < 2 or same.all() or not same.any():
        raise ValueError(
            f"expected pairs of both kinds in two folds or more, got {len(folds)} folds, {same.sum()} same"
        )
    accuracy, thresholds = [], []
    for held_out in folds:
        mine = fold == held_out
        threshold = best_threshold(similarity[~mine], same[~mine])
        thresholds.append(threshold)
        accuracy.append(((similarity[mine] >= threshold) == same[mine]).mean())
    false_rate, true_rate, _ = roc_curve(same, similarity, drop_intermediate=False)
    different = int((~same).sum())
    tar = {
        far: float(true_rate[false_rate <= far].max()) if far * different >= 1 else float("nan")
        for far in false_acceptance
    }
    crossing = int(np.argmin(np.abs(false_rate - (1 - true_rate))))
    equal_error = float((false_rate[crossing] + 1 - true_rate[crossing]) / 2)
    return VerificationResult(
        np.array(accuracy),
        np.array(thresholds),
        false_rate,
        true_rate,
        float(auc(false_rate, true_rate)),
        equal_error,
        tar,
        len(same),
    )


def best_threshold(similarity: Float[np.ndarray, " n"], same: Bool[np.ndarray, " n"]) -> float:
    """The threshold (accept at or above) with the best accuracy; midway between neighbouring similarities."""
    order = np.argsort(-similarity, kind="stable")
    values = similarity[order].astype(np.float64)
    # Right decisions when the first k pairs are accepted, for k = 0 ... n; a cut must lie between different values.
    right = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))]) + (~same).sum()
    bounds = np.concatenate([[np.inf], values, [-np.inf]])
    possible = bounds[:-1] > bounds[1:]
    k = int(np.where(possible, right, -1).argmax())
    if k == 0:
        return float(values[0] + 1)
    return float(values[k - 1] if k == len(values) else (values[k - 1] + values[k]) / 2)


def draw_pairs(
    identities: Int[np.ndarray, " n"], folds: int = 10, pairs_per_fold: int = 300, seed: int = 0
) -> tuple[Int[np.ndarray, "pairs 2"], Bool[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Draws pairs as in LFW for datasets that publish none: (photos, same person?, fold); nobody is in two folds.

    Each fold has all its pairs of the same person, at most `pairs_per_fold`, and as many of different people; no pair
    occurs twice.

    Args:
        identities: Person of each photo.
        folds: Number of folds among which the people are divided.
        pairs_per_fold: Maximum number of pairs of each kind.
        seed: Seed of the draw.

    Raises:
        ValueError: A fold would have no pair of the same person.
    """
    rng = np.random.default_rng(seed)
    persons, counts = np.unique(identities, return_counts=True)
    # People with several photos are divided separately from the others, so that every fold gets its share.
    several, single = rng.permutation(persons[counts >= 2]), rng.permutation(persons[counts < 2])
    if len(several) < folds:
        raise ValueError(f"expected {folds} people with two photos or more, at least one per fold, got {len(several)}")
    pairs, same, fold = [], [], []
    for number in range(folds):
        mine = [np.flatnonzero(identities == p) for p in (*several[number::folds], *single[number::folds])]
        alike = [(a, b) for photos in mine for i, a in enumerate(photos) for b in photos[i + 1 :]]
        drawn = [alike[i] for i in rng.permutation(len(alike))[:pairs_per_fold]]
        different: set[tuple[int, int]] = set()
        for _ in range(20 * len(drawn)):
            if len(different) == len(drawn) or len(mine) < 2:
                break
            first, second = rng.choice(len(mine), 2, replace=False)
            a, b = int(rng.choice(mine[first])), int(rng.choice(mine[second]))
            different.add((min(a, b), max(a, b)))
        pairs += [*drawn, *sorted(different)]
        same += [True] * len(drawn) + [False] * len(different)
        fold += [number] * (len(drawn) + len(different))
    return np.array(pairs, np.int64), np.array(same, bool), np.array(fold, np.int64)
