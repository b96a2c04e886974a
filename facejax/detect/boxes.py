"""Arithmetic on boxes [x1, y1, x2, y2] in pixels, on the host.

MTCNN mixes two conventions, and parity with its published results needs both: its first two suppressions take a box
as the real interval x2 - x1, its regressions and its last suppression count both end pixels (x2 - x1 + 1).
"""

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

# Pairs of boxes that are compared at once: bounds the memory in photos with tens of thousands of candidates, and keeps
# each array of numbers below 128 KiB, from where on malloc asks the system for memory anew each time.
_PAIRS = 2**13


def overlap(
    boxes: Float[np.ndarray, "n 4"],
    others: Float[np.ndarray, "m 4"],
    *,
    relative_to: Literal["union", "smaller"] = "union",
    end_pixel: float = 0.0,
) -> Float[np.ndarray, "n m"]:
    """Intersection of every box with every other, as a part of their union (IoU) or of the smaller one.

    Args:
        boxes: [x1, y1, x2, y2] in pixels.
        others: [x1, y1, x2, y2] in pixels.
        relative_to: What the intersection is divided by; ``smaller`` is MTCNN's "Min" rule.
        end_pixel: Added to each width and height: 1 where x2 and y2 are pixels that belong to the box.

    Returns:
        Values in [0, 1]; 0 for two boxes without area.
    """
    columns, other_columns = list(boxes.T[:, :, None]), list(others.T[:, None, :])
    areas = _areas(columns, end_pixel), _areas(other_columns, end_pixel)
    return _overlap(columns, other_columns, *areas, relative_to, end_pixel)


def nms(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    threshold: float,
    *,
    key: Int[np.ndarray, " n"] | None = None,
    relative_to: Literal["union", "smaller"] = "union",
    end_pixel: float = 0.0,
) -> Int[np.ndarray, " kept"]:
    """Indices of the boxes that greedy non-maximum suppression keeps: one key after the other, best score first.

    A box goes when its `overlap` with a kept box of a higher score is above `threshold`; of equal scores the earlier
    box is the higher. Only boxes of one key are compared; without keys all are.
    """
    key = np.zeros(len(scores), np.int64) if key is None else key
    order = np.lexsort((-scores, key))
    key, columns = key[order], list(boxes[order].T.copy())
    areas = _areas(columns, end_pixel)
    # Compared are a box and those behind it: all pairs of a key, in runs of boxes that nothing before them removed.
    behind = np.searchsorted(key, key, "right") - np.arange(len(key)) - 1
    run = np.cumsum(behind) // _PAIRS
    kept = np.ones(len(key), bool)
    for start, stop in itertools.pairwise(np.flatnonzero(np.diff(run, prepend=-1, append=-1)).tolist()):
        row = start + np.flatnonzero(kept[start:stop])
        count = behind[row]
        high = np.repeat(row, count)
        low = np.arange(len(high)) + np.repeat(row + 1 - np.cumsum(count) + count, count)
        # NumPy takes three times as long where it is to complain of wrong indices.
        (*higher, areas_high), (*lower, areas_low) = (
            [values.take(box, mode="clip") for values in (*columns, areas)] for box in (high, low)
        )
        clash = np.flatnonzero(_overlap(higher, lower, areas_high, areas_low, relative_to, end_pixel) > threshold)
        high, low = high[clash], low[clash]
        # Who is removed by whom is settled from the highest box on, with each turn one link further down every chain.
        before, settled = kept, None
        while settled is None or not np.array_equal(settled, kept):
            settled, kept = kept, before.copy()
            kept[low[settled[high]]] = False
    return order[kept]


def _areas(columns: list[np.ndarray], end_pixel: float) -> np.ndarray:
    x1, y1, x2, y2 = columns
    return (x2 - x1 + end_pixel) * (y2 - y1 + end_pixel)


def _overlap(
    columns: list[np.ndarray],
    others: list[np.ndarray],
    areas: np.ndarray,
    other_areas: np.ndarray,
    relative_to: Literal["union", "smaller"],
    end_pixel: float,
) -> np.ndarray:
    """`overlap` of boxes, as x1, y1, x2 and y2, that are broadcast against each other."""

    def shared(low: int, high: int) -> np.ndarray:
        side = np.minimum(columns[high], others[high]) - np.maximum(columns[low], others[low])
        return np.maximum(side + end_pixel, 0)

    intersection = shared(0, 2) * shared(1, 3)
    smaller = relative_to == "smaller"
    whole = np.minimum(areas, other_areas) if smaller else areas + other_areas - intersection
    # Where nothing is whole nothing is shared either.
    return intersection / np.where(whole > 0, whole, 1)


def calibrate(
    boxes: Float[np.ndarray, "n 4"], offsets: Float[np.ndarray, "n 4"], *, end_pixel: float
) -> Float[np.ndarray, "n 4"]:
    """Boxes moved by a network's regression: each edge by its offset times the box's width or height."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(end_pixel)
    return boxes + offsets * np.tile(size, 2)


def squares(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """The squares about the same centres whose side is the longer side of each box."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side], axis=1)
