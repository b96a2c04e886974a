"""Causal smoothing of per-frame outputs over time; frames may be missing."""

import math

import numpy as np
from jaxtyping import Float


class ExponentialSmoother:
    """Smooths scores as they arrive; weights decay with time rather than per call, so that new scores win after a gap.

    The mean of all scores so far, each weighted by exp(-age / seconds): the first output equals the first input, and
    late or missing frames need no special case.
    """

    def __init__(self, seconds: float):
        """`seconds`: age at which a score has 1/e of the weight of a new one.

        Raises:
            ValueError: It is not positive.
        """
        if not seconds > 0:
            raise ValueError(f"expected seconds > 0, got {seconds}")
        self.seconds = seconds
        self._time = -math.inf
        self._sum: np.ndarray | float = 0.0
        self._weight = 0.0

    def __call__(self, time: float, scores: Float[np.ndarray, " classes"]) -> Float[np.ndarray, " classes"]:
        """Smoothed scores at `time` (seconds), float64; probabilities stay probabilities.

        Raises:
            ValueError: `time` is before that of the last call.
        """
        if time < self._time:
            raise ValueError(f"expected times in order, got {time} after {self._time}")
        fade = math.exp(-(time - self._time) / self.seconds)
        self._sum = fade * self._sum + scores.astype(np.float64)
        self._weight = fade * self._weight + 1
        self._time = time
        return self._sum / self._weight
