"""Numbers that stay with a person's face through a video, by where the boxes move."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from facejax.detect.boxes import overlap

# A face is taken for a track's when their boxes overlap by this much (IoU) ...
_MIN_OVERLAP = 0.2
# ... or, after frames without it, when the centres are at most this part of the box's size apart and sizes are alike.
_REACH, _MAX_REACH, _SIZE_RATIO = 0.6, 1.5, 1.7
# How fast the velocity follows what is seen.
_VELOCITY_GAIN = 0.4


@dataclasses.dataclass
class _Track:
    number: int
    box: np.ndarray
    velocity: np.ndarray
    seen: float

    def expected(self, time: float) -> np.ndarray:
        """Where the box is at `time`, moving on as it did; for a third of a second at most."""
        return self.box + self.velocity * min(time - self.seen, 1 / 3)


class FaceTracker:
    """Gives the boxes of one frame after another the numbers of their tracks.

    Boxes and tracks are paired so that the sum of overlaps with the expected places is largest (Hungarian method). A
    track that finds no box waits for `max_gap` seconds, through a blink of the detector or somebody passing by; its
    number is never used again after that. However far apart the frames are, a track of one may go on in the next.
    Only places are compared, not looks: two faces that change places behind an obstacle may change numbers.
    """

    def __init__(self, max_gap: float | int = 1.0):
        """`max_gap`: seconds without a box after which a track has ended that was not in the frame before.

        Raises:
            ValueError: It is negative.
        """
        if max_gap < 0:
            raise ValueError(f"expected max_gap >= 0 seconds, got {max_gap}")
        self.max_gap = float(max_gap)
        self._tracks: list[_Track] = []
        self._next = 1
        self._last = -math.inf

    @property
    def alive(self) -> list[int]:
        """Numbers of the tracks that may still find a box."""
        return [track.number for track in self._tracks]

    def update(self, time: float, boxes: Float[np.ndarray, "n 4"]) -> list[int]:
        """The track's number, from 1, of each box [x1, y1, x2, y2] of the frame at `time` (seconds, ascending)."""
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
        # What does not overlap may still be near; it counts less than any overlap that is enough.
        nearness = _nearness(expected, boxes, np.minimum(_REACH + waited, _MAX_REACH))
        merit = np.where(merit > 0, 1 + merit, nearness)
        rows, columns = linear_sum_assignment(-merit)
        return [
            (row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if merit[row, column] > 0
        ]


def _nearness(boxes: np.ndarray, others: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """1 for the same centre, 0 from a distance of `reach` box sizes on, and 0 where the sizes differ too much."""
    centres, other_centres = ((part[:, :2] + part[:, 2:]) / 2 for part in (boxes, others))
    sizes, other_sizes = (
        np.sqrt(np.maximum((part[:, 2:] - part[:, :2]).prod(axis=1), 1e-6)) for part in (boxes, others)
    )
    distance = np.linalg.norm(centres[:, None] - other_centres[None], axis=2) / sizes[:, None]
    ratio = other_sizes[None] / sizes[:, None]
    alike = np.maximum(ratio, 1 / ratio) <= _SIZE_RATIO
    return np.where(alike, np.clip(1 - distance / reach[:, None], 0, 1), 0)
