"""Clip descriptors from features of faces (paper section 3.3): statistics over time, or over faces and then time."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from facejax.naming import did_you_mean

STATISTICS = {"mean": np.mean, "max": np.max, "min": np.min, "std": np.std}
LEVELS = ("frames", "faces_then_frames")


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """How a clip's vector is computed; a value that can be stored with a classifier.

    Attributes:
        levels: ``frames``: statistics over all faces, of which there is one per frame (AFEW); or
            ``faces_then_frames``: statistics over the faces of each frame, then over the frames (VGAF), so
            that a crowded frame counts no more than another.
        statistics: Names in `STATISTICS`, concatenated in this order; std is the population's (divided by n).
    """

    levels: str = "frames"
    statistics: tuple[str, ...] = ("mean", "max", "min", "std")

    def __post_init__(self):
        if not self.statistics:
            raise ValueError(f"expected at least one statistic, among {', '.join(STATISTICS)}")
        for name in self.statistics:
            if name not in STATISTICS:
                raise ValueError(f"no statistic {name!r}{did_you_mean(name, STATISTICS)}")
        if self.levels not in LEVELS:
            raise ValueError(f"levels must be one of {', '.join(LEVELS)}, got {self.levels!r}")

    def size(self, num_features: int) -> int:
        """Length of the vector: 4 D for the paper's two descriptors."""
        factor = len(self.statistics)
        return num_features * (factor if self.levels == "frames" else factor**2)

    def __call__(
        self, features: Float[np.ndarray, "n features"], frames: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " descriptor"]:
        """The clip's vector, float32, of length 1 (L2); zeros if the clip has no face.

        Args:
            features: One row per face.
            frames: Frame number of each face.
        """
        if not len(features):
            return np.zeros(self.size(features.shape[1]), np.float32)
        rows = features.astype(np.float64)
        if self.levels == "faces_then_frames":
            rows = np.stack([self._summary(rows[frames == frame]) for frame in np.unique(frames)])
        vector = self._summary(rows)
        return (vector / max(np.linalg.norm(vector), 1e-12)).astype(np.float32)

    def _summary(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([STATISTICS[name](rows, axis=0) for name in self.statistics])


AFEW = Descriptor("frames", ("mean", "max", "min", "std"))
VGAF = Descriptor("faces_then_frames", ("mean", "std"))


def describe_clips(
    clips: Iterable[tuple[np.ndarray, np.ndarray]], descriptor: Descriptor
) -> Float[np.ndarray, "clips descriptor"]:
    """One vector per clip, from its (features, frames) (`FeatureTable.per_clip`)."""
    return np.stack([descriptor(features, frames) for features, frames in clips])
