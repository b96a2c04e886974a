"""Operations on boxes [x1, y1, x2, y2] in pixels, on the host.

MTCNN mixes two conventions, and parity with its published results needs both: its first two suppressions use a width of
x2 - x1, its regressions and its last suppression count both end pixels (x2 - x1 + 1).
"""

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

# Pairs of boxes that are compared at once: bounds the memory for photos with tens of thousands of candidates, and keeps
# each array below 128 KiB, above which malloc requests new memory from the system each time.
_PAIRS = 2**13


def overlap(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union (IoU) of every box [x1, y1, x2, y2] with every other box.

    Returns:
        Values in [0, 1]; 0 for two boxes without area.
    """
    low, high, other_low, other_high = boxes[:, None, :2], boxes[:, None, 2:], others[None, :, :2], others[None, :, 2:]
    areas = _area(low, high, 0.0), _area(other_low, other_high, 0.0)
    return _overlap((low, high), (other_low, other_high), *areas, "union", 0.0)


def best_first(scores: Float32[np.ndarray, " n"], key: Int64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Sorting order: by key, then by decreasing score, then by index.

    Args:
        scores: At least 0.
        key: From 0 to 2^31.
    """
    # Non-negative floats sort like their bits. Sorting by one number takes NumPy a tenth of the time of sorting by two
    # if the keys are already in order.
    return np.argsort((key << 32) - scores.view(np.int32), kind="stable")


def nms(
    boxes: Float32[np.ndarray, "n 4"],
    scores: Float32[np.ndarray, " n"],
    threshold: float,
    *,
    key: Int64[np.ndarray, " n"],
    relative_to: Literal["union", "smaller"] = "union",
    end_pixel: float = 0.0,
) -> Int[np.ndarray, " kept"]:
    """Indices of the boxes that greedy non-maximum suppression keeps, in the order of `best_first`.

    A box is removed if its overlap with a kept box of a higher score is above `threshold`; of boxes with equal scores
    the earlier one ranks higher. Only boxes with the same key are compared.

    Args:
        boxes: [x1, y1, x2, y2] in pixels.
        scores: At least 0.
        threshold: Maximum overlap, 0 to 1.
        key: From 0 to 2^31.
        relative_to: What the intersection of two boxes is divided by: their union, or the smaller one (MTCNN's "Min").
        end_pixel: Added to each width and height: 1 if x2 and y2 are pixels that belong to the box.
    """
    order = best_first(scores, key)
    key, ends = key.take(order), boxes.reshape(-1, 2)
    low, high = ends.take(2 * order, axis=0), ends.take(2 * order + 1, axis=0)
    areas = _area(low, high, end_pixel)
    # Each box is compared with those after it: all pairs of a key, in runs, skipping boxes that earlier runs removed.
    behind = np.searchsorted(key, key, "right") - np.arange(len(key)) - 1
    run = np.cumsum(behind) // _PAIRS
    kept = np.ones(len(key), bool)
    for start, stop in itertools.pairwise(np.searchsorted(run, np.arange(run.max(initial=-1) + 2)).tolist()):
        row = start + np.flatnonzero(kept[start:stop])
        count = behind[row]
        better = np.repeat(row, count)
        worse = np.arange(len(better)) + np.repeat(row + 1 - np.cumsum(count) + count, count)
        # Bounds checking would take NumPy three times as long, hence mode="clip".
        (low_1, high_1, area_1), (low_2, high_2, area_2) = (
            [values.take(box, axis=0, mode="clip") for values in (low, high, areas)] for box in (better, worse)
        )
        shared = _overlap((low_1, high_1), (low_2, high_2), area_1, area_2, relative_to, end_pixel)
        clash = np.flatnonzero(shared > threshold)
        better, worse = better[clash], worse[clash]
        while len(better):
            # Boxes that no other box removes are kept, those they remove are dropped, and the remaining pairs are
            # settled in the next round.
            open_to_removal = np.zeros(len(key), bool)
            open_to_removal[worse] = True
            kept[worse[~open_to_removal.take(better)]] = False
            unsettled = np.flatnonzero(kept.take(better) & kept.take(worse))
            better, worse = better.take(unsettled), worse.take(unsettled)
    return order[kept]


def _area(low: np.ndarray, high: np.ndarray, end_pixel: float) -> np.ndarray:
    side = high - low + end_pixel
    return side[..., 0] * side[..., 1]


def _overlap(
    corners: tuple[np.ndarray, np.ndarray],
    others: tuple[np.ndarray, np.ndarray],
    area: np.ndarray,
    other_area: np.ndarray,
    relative_to: Literal["union", "smaller"],
    end_pixel: float,
) -> np.ndarray:
    """Overlap of boxes, each given as its first and last [x, y], broadcast against each other."""
    side = np.minimum(corners[1], others[1]) - np.maximum(corners[0], others[0])
    side += end_pixel
    np.maximum(side, 0, out=side)
    intersection = side[..., 0] * side[..., 1]
    smaller = relative_to == "smaller"
    whole = np.minimum(area, other_area) if smaller else area + other_area - intersection
    # If the denominator is 0, so is the intersection.
    return intersection / np.maximum(whole, np.finfo(whole.dtype).tiny)


def calibrate(
    boxes: Float[np.ndarray, "n 4"], offsets: Float[np.ndarray, "n 4"], *, end_pixel: float
) -> Float[np.ndarray, "n 4"]:
    """Boxes adjusted by a network's regression: each edge moves by its offset times the box's width or height."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(end_pixel)
    return boxes + offsets * np.concatenate([size, size], axis=1)


def squares(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Squares with the same centres as the boxes, whose side is the longer side of each box."""
    x1, y1, x2, y2 = boxes.T
    width, height, half = x2 - x1, y2 - y1, np.float32(0.5)
    side = np.maximum(width, height)
    left, top = x1 + width * half - side * half, y1 + height * half - side * half
    return np.stack([left, top, left + side, top + side], axis=1)
