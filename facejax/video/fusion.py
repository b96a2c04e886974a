"""Score fusion: combines several classifiers, or the same one on features of several backbones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import softmax


def standardize(scores: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    """Softmax of the scores over their standard deviation: puts decision values and probabilities on one scale.

    Scores of -inf (classes that a classifier never saw) become 0.
    """
    finite = scores[np.isfinite(scores)]
    spread = max(float(finite.std()), 1e-12) if finite.size else 1.0
    return softmax(scores / spread, axis=1)


def fuse(members: Sequence[Float[np.ndarray, "n classes"]]) -> Float[np.ndarray, "n classes"]:
    """Mean of the members' standardised scores; rows sum to 1.

    Args:
        members: Scores of the same clips, one array per classifier.

    Raises:
        ValueError: There are none, or their shapes differ.
    """
    if not members or len({member.shape for member in members}) != 1:
        raise ValueError(f"expected arrays of one shape, got {[member.shape for member in members]}")
    return np.mean([standardize(member) for member in members], axis=0)
