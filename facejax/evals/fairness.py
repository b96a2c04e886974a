"""A metric by group of people: n, value and interval of each group, the gap, and the worst-served group."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facejax.evals.bootstrap import Metric, interval95, resample
from facejax.evals.tasks import format_interval
from facejax.tasks import ETHNICITY, GENDER

# Groups with fewer records or people are shown, but are neither best nor worst: their value is mostly chance.
MIN_RECORDS = 30
MIN_PERSONS = 10


@dataclasses.dataclass(frozen=True)
class GroupResult:
    """Result of one group.

    Attributes:
        name: Name of the group.
        n: Number of records.
        clusters: Number of different people among them; None if people are not identified.
        value: The metric; nan without records.
        interval95: Bootstrap percentile interval; nan if there is only one person (or record).
        counted: Whether it is large enough for gap and worst group.
    """

    name: str
    n: int
    clusters: int | None
    value: float
    interval95: tuple[float, float]
    counted: bool


@dataclasses.dataclass(frozen=True)
class FairnessResult:
    """A metric by the groups of one attribute.

    Attributes:
        metric: Name of the metric.
        attribute: ``gender``, ``ethnicity``, ``age`` or a combination.
        higher_is_better: Whether higher values of the metric are better.
        groups: All groups with records, in the attribute's order.
        unknown: Number of records without the attribute; they are skipped.
        best: Name of the best-served group; empty if fewer than two groups are large enough.
        worst: Name of the worst-served group.
        gap: Absolute difference between the two; nan likewise.
        gap_interval95: Bootstrap interval of the difference between these two groups. They were picked as
            the extremes, so a gap between many small groups is partly chance.
    """

    metric: str
    attribute: str
    higher_is_better: bool
    groups: tuple[GroupResult, ...]
    unknown: int
    best: str
    worst: str
    gap: float
    gap_interval95: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json; None for nan."""
        return to_jsonable(dataclasses.asdict(self))

    def markdown(self) -> list[str]:
        """Lines of a Markdown table, in percent unless the metric is an error (in its own unit)."""
        scale, unit, points = (100.0, " %", " points") if self.higher_is_better else (1.0, "", "")
        lines = [f"| {self.attribute} | n | people | {self.metric}{unit} [95 % interval] |", "|---|---|---|---|"]
        for group in self.groups:
            value = format_interval(group.value, group.interval95, scale=scale)
            note = "" if group.counted else " (not compared)"
            people = "-" if group.clusters is None else group.clusters
            lines.append(f"| {group.name} | {group.n} | {people} | {value}{note} |")
        if not all(group.counted for group in self.groups):
            least = f"{MIN_RECORDS} records or {MIN_PERSONS} people"
            lines += ["", f"Not compared: groups with fewer than {least}, which are too few for a conclusion."]
        if self.worst:
            gap = format_interval(self.gap, self.gap_interval95, scale=scale) + points
            lines += ["", f"Gap {gap}: {self.best} is served best, {self.worst} worst. Unknown group: {self.unknown}."]
        return lines


def to_jsonable(value: Any) -> Any:
    """Nested values in JSON form: lists for tuples, None for nan."""
    if isinstance(value, dict):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def by_group(
    name: str,
    metric: Metric,
    attribute: str,
    group: Int[np.ndarray, " n"],
    names: Sequence[str],
    *,
    clusters: np.ndarray | None = None,
    higher_is_better: bool = True,
    samples: int = 1000,
    seed: int = 0,
) -> FairnessResult:
    """Computes the metric within each group of people.

    Args:
        name: Name of the metric.
        metric: Maps indices of records to its value.
        attribute: What the groups are defined by.
        group: Index of each record's group in `names`, -1 for unknown.
        names: Names of the groups.
        clusters: (n,) person of each record, so that the bootstrap draws people; None draws records.
        higher_is_better: True for a metric such as accuracy, False for an error.
        samples: Bootstrap draws.
        seed: Seed of the draws.
    """
    results, draws = [], {}
    for index, label in enumerate(names):
        records = np.flatnonzero(group == index)
        if not len(records):
            continue
        persons = None if clusters is None else clusters[records]
        draws[label] = resample(metric, records, persons, samples=samples, seed=seed + index)
        count = None if persons is None else len(np.unique(persons))
        enough = len(records) >= MIN_RECORDS and (count is None or count >= MIN_PERSONS)
        value = float(metric(records))
        results.append(GroupResult(label, len(records), count, value, interval95(draws[label]), enough))
    compared = sorted((result for result in results if result.counted), key=lambda result: result.value)
    best = worst = ""
    gap, gap_interval = float("nan"), (float("nan"), float("nan"))
    if len(compared) > 1:
        low, high = compared[0], compared[-1]
        if low.value != high.value:  # if all are served equally, none is worst
            best, worst = (high.name, low.name) if higher_is_better else (low.name, high.name)
        gap, gap_interval = high.value - low.value, interval95(draws[high.name] - draws[low.name])
    unknown = int((group < 0).sum())
    return FairnessResult(name, attribute, higher_is_better, tuple(results), unknown, best, worst, gap, gap_interval)


def mean_by_attribute(
    name: str,
    values: np.ndarray,
    known: np.ndarray,
    people: Mapping[str, np.ndarray],
    *,
    clusters: np.ndarray | None = None,
    higher_is_better: bool = True,
    seed: int = 0,
) -> list[FairnessResult]:
    """`by_group` of a metric that is a mean over records, for each attribute of the people (`attribute_groups`).

    Args:
        name: Name of the metric.
        values: (n,) its value for each record: whether a prediction is right, or an error.
        known: (n,) bool: which records count.
        people: Arrays (n,) by attribute, see `attribute_groups`.
        clusters: See `by_group`.
        higher_is_better: See `by_group`.
        seed: Seed of the draws.
    """
    return [
        by_group(
            name,
            lambda records: float(np.mean(values[records])),
            attribute,
            np.where(known, group, -1),
            names,
            clusters=clusters,
            higher_is_better=higher_is_better,
            seed=seed,
        )
        for attribute, (group, names) in attribute_groups(people).items()
    ]


def attribute_groups(
    labels: Mapping[str, np.ndarray],
) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """Group of each record and the groups' names, by attribute: ``gender``, ``ethnicity``, both together, ``age``.

    Args:
        labels: Arrays (n,) by attribute, -1 for unknown; attributes that are absent give no groups.
    """
    named = {"gender": GENDER, "ethnicity": ETHNICITY}
    groups = {
        attribute: age_groups(values) if attribute == "age" else (values, named[attribute])
        for attribute, values in labels.items()
    }
    if "gender" in groups and "ethnicity" in groups:
        groups["gender, ethnicity"] = intersection(*groups["gender"], *groups["ethnicity"])
    return groups


def intersection(
    first: Int[np.ndarray, " n"], first_names: Sequence[str], second: Int[np.ndarray, " n"], second_names: Sequence[str]
) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Group and names of two attributes together ("female, black"); -1 where either is unknown."""
    names = tuple(f"{a}, {b}" for a in first_names for b in second_names)
    known = (first >= 0) & (second >= 0)
    return np.where(known, first * len(second_names) + second, -1), names


def age_groups(
    years: Float[np.ndarray, " n"] | Int[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Group and names of ages: ``0-9``, ``10-19``, ..., ``70+``; -1 for unknown (negative or nan)."""
    names = (*(f"{low}-{low + 9}" for low in range(0, 70, 10)), "70+")
    group = np.searchsorted(np.arange(0, 80, 10), years, side="right") - 1
    return np.where(np.isfinite(years) & (years >= 0), group, -1), names
