"""Age metrics as in the paper (Table 6): mean absolute error in years over all ages, over 21-60 and by age group."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facejax.evals.bootstrap import interval95, resample

PAPER_RANGE = (21, 60)


@dataclasses.dataclass(frozen=True)
class AgeRangeResult:
    """Errors over the records of one range of true ages.

    Attributes:
        low: Youngest true age, years, inclusive.
        high: Oldest true age, inclusive.
        n: Number of records.
        mae: Mean absolute error, years; nan without records, like all below.
        interval95: Bootstrap interval of `mae`; nan if there is only one person (or record).
        clipped_mae: `mae` with the predictions clipped to the range, as the published test program does for the listed
            photos of people aged 21 to 60; the paper does not mention it.
        bias: Mean of predicted minus true age: above 0, people look older to the network than they are.
        within5: Fraction of the records with an error of at most 5 years (the cumulative score CS(5)).
    """

    low: int
    high: int
    n: int
    mae: float
    interval95: tuple[float, float]
    clipped_mae: float
    bias: float
    within5: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        return dataclasses.asdict(self)


def age_errors(
    predicted: Float[np.ndarray, " n"],
    true: Int[np.ndarray, " n"] | Float[np.ndarray, " n"],
    low: int = 0,
    high: int = 200,
    *,
    clusters: np.ndarray | None = None,
    seed: int = 0,
) -> AgeRangeResult:
    """Errors over true ages from `low` to `high`, inclusive; records of unknown age (negative, nan) are skipped.

    Args:
        predicted: Years (`facejax.decoding.expected_age`).
        true: Years.
        low: Youngest.
        high: Oldest.
        clusters: (n,) person of each record, for the bootstrap.
        seed: Seed of the bootstrap.
    """
    chosen = np.flatnonzero((true >= max(low, 0)) & (true <= high))
    if not len(chosen):
        nan = float("nan")
        return AgeRangeResult(low, high, 0, nan, (nan, nan), nan, nan, nan)
    errors = predicted.astype(np.float64) - true
    draws = resample(
        lambda records: float(np.abs(errors[records]).mean()),
        chosen,
        None if clusters is None else clusters[chosen],
        seed=seed,
    )
    some = errors[chosen]
    return AgeRangeResult(
        low,
        high,
        len(chosen),
        float(np.abs(some).mean()),
        interval95(draws),
        float(np.abs(predicted[chosen].clip(low, high).astype(np.float64) - true[chosen]).mean()),
        float(some.mean()),
        float((np.abs(some) <= 5).mean()),
    )
