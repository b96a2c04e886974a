"""Tracks faces through a video by the positions of their boxes."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from facejax.detect.boxes import overlap

# A face is assigned to a track when their boxes overlap by this much (IoU) ...
_MIN_OVERLAP = 0.2
# ... or, after frames without it, when the centres are within this fraction of the box size and the sizes are similar.
_REACH, _MAX_REACH, _SIZE_RATIO = 0.6, 1.5, 1.7
# Weight of the newest observation in the velocity estimate.
_VELOCITY_GAIN = 0.4


@dataclasses.dataclass
class _Track:
    number: int
    box: np.ndarray
    velocity: np.ndarray
    seen: float

    def expected(self, time: float) -> np.ndarray:
        """Predicted box at `time`, at constant velocity for at most a third of a second."""
        return self.box + self.velocity * min(time - self.seen, 1 / 3)


class FaceTracker:
    """Assigns track numbers to the boxes of successive frames.

    Boxes are matched to tracks so that the sum of overlaps with the predicted boxes is largest (Hungarian method). A
    track without a box is kept for `max_gap` seconds, which bridges missed detections and people passing in front;
    after that, its number is never reused. However far apart two consecutive frames are, a track of the first may
    continue in the second. Only positions are compared, not appearance: two faces that swap places behind an obstacle
    may swap numbers.
    """

    def __init__(self, max_gap: float | int = 1.0):
        """`max_gap`: seconds without a box after which a track ends, unless it was in the previous frame.

        Raises:
            ValueError: `max_gap` is negative.
        """
        if max_gap < 0:
            raise ValueError(f"expected max_gap >= 0 seconds, got {max_gap}")
        self.max_gap = float(max_gap)
        self._tracks: list[_Track] = []
        self._next = 1
        self._last = -math.inf

    @property
    def alive(self) -> list[int]:
        """Numbers of the tracks that may still be continued."""
        return [track.number for track in self._tracks]

    def update(self, time: float, boxes: Float[np.ndarray, "n 4"]) -> list[int]:
        """Track number, from 1, of each box [x1, y1, x2, y2] of the frame at `time` (seconds, ascending)."""
        self._tracks = [
            track for track in self._tracks if track.seen >= self._last or time - track.seen <= self.max_gap
        ]
        self._last = time
        boxes = boxes.astype(np.float64)
        numbers = [0] * len(boxes)
        for track_index, box_index in self._pairs(time, boxes):
            track, box = self._tracks[track_index], boxes[box_index]
            passed = max(time - track.seen, 1e-3)
            track.velocity = (1 - _VELOCITY_GAIN) * track.velocity + _VELOCITY_GAIN * (box - track.box) / passed
            track.box, track.seen = box, time
            numbers[box_index] = track.number
        for index, number in enumerate(numbers):
            if not number:
                numbers[index] = self._next
                self._tracks.append(_Track(self._next, boxes[index], np.zeros(4), time))
                self._next += 1
        return numbers

    def _pairs(self, time: float, boxes: np.ndarray) -> list[tuple[int, int]]:
        if not self._tracks or not len(boxes):
            return []
        expected = np.stack([track.expected(time) for track in self._tracks])
        waited = np.array([time - track.seen for track in self._tracks])
        merit = overlap(expected, boxes)
        merit[merit < _MIN_OVERLAP] = 0
        # Boxes without enough overlap may still be close; that counts less than any sufficient overlap.
        nearness = _nearness(expected, boxes, np.minimum(_REACH + waited, _MAX_REACH))
        merit = np.where(merit > 0, 1 + merit, nearness)
        rows, columns = linear_sum_assignment(-merit)
        return [
            (row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if merit[row, column] > 0
        ]


def _nearness(boxes: np.ndarray, others: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """1 for equal centres, falling to 0 at a distance of `reach` box sizes; 0 if the sizes differ too much."""
    centres, other_centres = ((part[:, :2] + part[:, 2:]) / 2 for part in (boxes, others))
    sizes, other_sizes = (
        np.sqrt(np.maximum((part[:, 2:] - part[:, :2]).prod(axis=1), 1e-6)) for part in (boxes, others)
    )
    distance = np.linalg.norm(centres[:, None] - other_centres[None], axis=2) / sizes[:, None]
    ratio = other_sizes[None] / sizes[:, None]
    alike = np.maximum(ratio, 1 / ratio) <= _SIZE_RATIO
    return np.where(alike, np.clip(1 - distance / reach[:, None], 0, 1), 0)
