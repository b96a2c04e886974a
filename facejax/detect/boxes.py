"""Arithmetic on boxes [x1, y1, x2, y2] in pixels, on the host.

MTCNN mixes two conventions, and parity with its published results needs both: its first two suppressions take a box
as the real interval x2 - x1, its regressions and its last suppression count both end pixels (x2 - x1 + 1).
"""

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

# Pairs of boxes that are compared at once: bounds the memory in photos with tens of thousands of candidates, and keeps
# the numbers of all pairs in the cache.
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
    return _overlap(boxes.T[:, :, None], others.T[:, None, :], relative_to, end_pixel)


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
    key, columns = key[order], np.ascontiguousarray(boxes[order].T)
    # Compared are a box and those behind it: all pairs of a key, in runs of boxes that nothing before them removed.
    behind = np.searchsorted(key, key, "right") - np.arange(len(key)) - 1
    run = np.cumsum(behind) // _PAIRS
    kept = np.ones(len(key), bool)
    for start, stop in itertools.pairwise(np.flatnonzero(np.diff(run, prepend=-1, append=-1)).tolist()):
        row = start + np.flatnonzero(kept[start:stop])
        count = behind[row]
        high = np.repeat(row, count)
        low = high + 1 + np.arange(len(high)) - np.repeat(np.cumsum(count) - count, count)
        higher, lower = np.repeat(columns[:, row], count, axis=1), columns.take(low, axis=1)
        clash = _overlap(higher, lower, relative_to, end_pixel) > threshold
        high, low = high[clash], low[clash]
        # Who is removed by whom is settled from the highest box on, with each turn one link further down every chain.
        before, settled = kept, None
        while settled is None or not np.array_equal(settled, kept):
            settled, kept = kept, before.copy()
            kept[low[settled[high]]] = False
    return order[kept]


def _overlap(
    columns: Float[np.ndarray, "4 *n"],
    others: Float[np.ndarray, "4 *m"],
    relative_to: Literal["union", "smaller"],
    end_pixel: float,
) -> Float[np.ndarray, "*both"]:
    """`overlap` of boxes that are broadcast against each other; x1, y1, x2 and y2 come first."""

    def area(x1: np.ndarray, y1: np.ndarray, x2: np.ndarray, y2: np.ndarray) -> np.ndarray:
        return (x2 - x1 + end_pixel) * (y2 - y1 + end_pixel)

    low, high = np.maximum(columns[:2], others[:2]), np.minimum(columns[2:], others[2:])
    width, height = np.maximum(high - low + end_pixel, 0)
    intersection = width * height
    own, other = area(*columns), area(*others)
    whole = np.minimum(own, other) if relative_to == "smaller" else own + other - intersection
    return np.divide(intersection, whole, out=np.zeros_like(intersection), where=whole > 0)


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
