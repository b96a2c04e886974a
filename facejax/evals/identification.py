"""Identification by distances of features: one photo per person (paper Table 1), and search in a gallery (1:N)."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from facejax.evals.bootstrap import interval95, resample

_BLOCK = 4096  # probes whose similarities are in memory at once


def normalize(features: Float[np.ndarray, "n features"]) -> Float[np.ndarray, "n features"]:
    """Rows scaled to length 1 (L2), float32; a row of zeros stays."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return (features / np.maximum(lengths, 1e-12)).astype(np.float32)


def nearest_in_gallery(
    gallery: Float[np.ndarray, "m features"], probes: Float[np.ndarray, "n features"], k: int = 1
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The k nearest rows of the gallery and their cosine similarities, nearest first, for each probe.

    Args:
        gallery: Rows of length 1 (`normalize`), so that the smallest Euclidean distance is the largest cosine.
        probes: Likewise.
        k: Neighbours of each probe, at most the number of rows of the gallery.
    """
    k = min(k, len(gallery))
    indices, values = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.float32)]
    for start in range(0, len(probes), _BLOCK):
        similarity = probes[start : start + _BLOCK] @ gallery.T
        best = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similarity, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        indices.append(best)
        values.append(np.take_along_axis(similarity, best, axis=1))
    return np.concatenate(indices), np.concatenate(values)


def one_photo_each(
    identities: Int[np.ndarray, " n"], repeats: int, seed: int
) -> Iterator[tuple[Int[np.ndarray, " persons"], Int[np.ndarray, " rest"]]]:
    """Yields (training, test) indices: a random photo of each person with two or more, and all their other photos.

    Raises:
        ValueError: Nobody has two photos.
    """
    persons, counts = np.unique(identities, return_counts=True)
    if not (counts >= 2).any():
        raise ValueError(f"expected people with two photos or more, got {len(persons)} people with one each")
    photos = [np.flatnonzero(identities == person) for person in persons[counts >= 2]]
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        train = np.array([rng.choice(mine) for mine in photos])
        yield train, np.setdiff1d(np.concatenate(photos), train)


@dataclasses.dataclass(frozen=True)
class IdentificationResult:
    """Rank-1 identification of Table 1.

    Attributes:
        accuracy: Rank-1 accuracy of each repeat, in [0, 1].
        rank5: Rank-5 accuracy of each repeat: the person is among the five nearest.
        persons: Number of people.
        test_photos: Number of photos that are identified in each repeat.
        interval95: Interval of the mean accuracy, by bootstrap over people. The repeats share their photos, so their
            standard deviation shows how much the choice of the training photo matters, not how certain the mean is.
    """

    accuracy: Float[np.ndarray, " repeats"]
    rank5: Float[np.ndarray, " repeats"]
    persons: int
    test_photos: int
    interval95: tuple[float, float]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation over the repeats (population)."""
        return float(self.accuracy.std())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        return {
            "n": self.test_photos,
            "persons": self.persons,
            "repeats": len(self.accuracy),
            "accuracy": self.mean,
            "std": self.std,
            "interval95": list(self.interval95),
            "rank5": float(self.rank5.mean()),
            "accuracy_by_repeat": self.accuracy.tolist(),
        }


def identify(
    features: Float[np.ndarray, "n features"], identities: Int[np.ndarray, " n"], repeats: int = 10, seed: int = 0
) -> IdentificationResult:
    """1-NN identification (Euclidean, L2-normed) from one random training photo of each person.

    Args:
        features: Features of the photos; rows of any length.
        identities: Person of each photo; those with a single photo are left out, as in the paper.
        repeats: Number of random choices of the training photos.
        seed: Seed of these choices.
    """
    rows = normalize(features)
    accuracy, rank5, tested, hits = [], [], 0, []
    for train, test in one_photo_each(identities, repeats, seed):
        nearest, _ = nearest_in_gallery(rows[train], rows[test], 5)
        found = identities[train][nearest] == identities[test][:, None]
        accuracy.append(found[:, 0].mean())
        rank5.append(found.any(axis=1).mean())
        tested, persons = len(test), len(train)
        hits.append((identities[test], found[:, 0]))
    who = np.concatenate([part for part, _ in hits])
    hit = np.concatenate([part for _, part in hits])
    # Each person is reduced to their hits and photos over all repeats, so that drawing people is fast.
    _, member = np.unique(who, return_inverse=True)
    hit_sum, count = np.bincount(member, hit), np.bincount(member)
    draws = resample(lambda some: float(hit_sum[some].sum() / count[some].sum()), np.arange(len(count)), seed=seed)
    return IdentificationResult(np.array(accuracy), np.array(rank5), persons, tested, interval95(draws))


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Open-set search: some probes show people who are not in the gallery and must not be identified as anybody.

    Attributes:
        rates: By false alarm rate: detection and identification rate (enrolled probes whose nearest match is right and
            near enough), mean over the repeats, in [0, 1].
        enrolled: Number of people in the gallery.
        known_probes: Number of probes that show them, mean over the repeats.
        unknown_probes: Number of probes that show others, mean over the repeats.
    """

    rates: dict[float, float]
    enrolled: int
    known_probes: float
    unknown_probes: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for report.json."""
        return {
            "enrolled": self.enrolled,
            "known_probes": self.known_probes,
            "unknown_probes": self.unknown_probes,
            "rates": {str(far): rate for far, rate in self.rates.items()},
        }


def search(
    features: Float[np.ndarray, "n features"],
    identities: Int[np.ndarray, " n"],
    repeats: int = 10,
    seed: int = 0,
    false_alarms: Sequence[float] = (0.01, 0.1),
) -> SearchResult:
    """1:N search with one photo of every second person (drawn) in the gallery and all remaining photos as probes.

    Args:
        features: Features of the photos.
        identities: Person of each photo. People with one photo are never enrolled: they are strangers.
        repeats: Number of random galleries.
        seed: Seed of the galleries.
        false_alarms: Fractions of the strangers that may be identified as somebody; each sets a threshold.
    """
    rows = normalize(features)
    rng = np.random.default_rng(seed)
    rates: dict[float, list[float]] = {far: [] for far in false_alarms}
    known_counts, unknown_counts, enrolled = [], [], 0
    for train, _ in one_photo_each(identities, repeats, seed):
        gallery = rng.permutation(train)[: max(len(train) // 2, 1)]
        probes = np.setdiff1d(np.arange(len(identities)), gallery)
        nearest, similarity = nearest_in_gallery(rows[gallery], rows[probes], 1)
        right = identities[gallery][nearest[:, 0]] == identities[probes]
        known = np.isin(identities[probes], identities[gallery])
        strangers = np.sort(similarity[~known, 0])[::-1]
        for far in false_alarms:
            allowed = int(far * len(strangers))
            # Above the first stranger who must not be identified.
            threshold = strangers[allowed] if allowed < len(strangers) else -np.inf
            rates[far].append(float((right & (similarity[:, 0] > threshold))[known].mean()))
        known_counts.append(known.sum())
        unknown_counts.append((~known).sum())
        enrolled = len(gallery)
    means = {far: float(np.mean(values)) for far, values in rates.items()}
    return SearchResult(means, enrolled, float(np.mean(known_counts)), float(np.mean(unknown_counts)))
