"""Score fusion: several classifiers, or the same on features of several backbones, decide together."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

_STEPS = 10  # weights are multiples of 1/10


def standardize(scores: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    """Softmax of the scores over their standard deviation: puts decision values and probabilities on one scale.

    Scores of -inf (classes that a classifier never saw) become 0.
    """
    finite = scores[np.isfinite(scores)]
    spread = max(float(finite.std()), 1e-12) if finite.size else 1.0
    scaled = scores / spread
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def fuse(
    members: Sequence[Float[np.ndarray, "n classes"]], weights: Sequence[float | int] | None = None
) -> Float[np.ndarray, "n classes"]:
    """Weighted mean of the members' standardised scores; rows sum to 1.

    Args:
        members: Scores of the same clips, one array a classifier.
        weights: One a member, any positive scale; equal where left out.

    Raises:
        ValueError: Shapes or the number of weights differ.
    """
    if not members or len({member.shape for member in members}) != 1:
        raise ValueError(f"expected arrays of one shape, got {[member.shape for member in members]}")
    weights = [1.0] * len(members) if weights is None else list(weights)
    if len(weights) != len(members) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"expected {len(members)} weights >= 0 with a sum above 0, got {weights}")
    total = sum(weights)
    return np.sum([w / total * standardize(member) for w, member in zip(weights, members, strict=True)], axis=0)


def choose_weights(
    members: Sequence[Float[np.ndarray, "n classes"]], labels: Int[np.ndarray, " n"]
) -> tuple[float, ...]:
    """The weights (multiples of 1/10, sum 1) of the best accuracy; among equals the ones nearest to equal weights.

    Args:
        members: Scores that were made *out of fold* on training clips: on validation clips this would be peeking.
        labels: Classes of these clips.
    """
    grids = itertools.product(range(_STEPS + 1), repeat=len(members) - 1)
    choices = [(*some, _STEPS - sum(some)) for some in grids if sum(some) <= _STEPS]
    even = _STEPS / len(members)

    def merit(choice: tuple[int, ...]) -> tuple[float, float]:
        hits = (fuse(members, choice).argmax(axis=1) == labels).mean()
        return float(hits), -sum((weight - even) ** 2 for weight in choice)

    best = max(choices, key=merit)
    return tuple(weight / _STEPS for weight in best)
