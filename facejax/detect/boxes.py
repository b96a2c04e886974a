"""Arithmetic on boxes [x1, y1, x2, y2] in pixels, on the host.

MTCNN mixes two conventions, and parity with its published results needs both: its first two suppressions take a box
as the real interval x2 - x1, its regressions and its last suppression count both end pixels (x2 - x1 + 1).
"""

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

# Pairs of boxes that are compared at once: bounds the memory in photos with tens of thousands of candidates, and keeps
# each array of numbers below 128 KiB, from where on malloc asks the system for memory anew each time.
_PAIRS = 2**13


def overlap(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection of every box [x1, y1, x2, y2] with every other, as a part of their union (IoU).

    Returns:
        Values in [0, 1]; 0 for two boxes without area.
    """
    low, high, other_low, other_high = boxes[:, None, :2], boxes[:, None, 2:], others[None, :, :2], others[None, :, 2:]
    areas = _area(low, high, 0.0), _area(other_low, other_high, 0.0)
    return _overlap((low, high), (other_low, other_high), *areas, "union", 0.0)


def best_first(scores: Float32[np.ndarray, " n"], key: Int64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Order of one key after the other, in each the best score first, and of equal scores the earlier.

    Args:
        scores: At least 0.
        key: From 0 to 2^31.
    """
    # Floats from 0 on are in the order of their bits. One number to sort by: NumPy takes a tenth of the time of a
    # sort by two where the keys are in order already.
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

    A box goes when what it shares with a kept box of a higher score is above `threshold`; of equal scores the earlier
    box is the higher. Only boxes of one key are compared.

    Args:
        boxes: [x1, y1, x2, y2] in pixels.
        scores: At least 0.
        threshold: Of the shared part, 0 to 1.
        key: From 0 to 2^31.
        relative_to: What the intersection of two is divided by: their union, or, MTCNN's "Min" rule, the smaller one.
        end_pixel: Added to each width and height: 1 where x2 and y2 are pixels that belong to the box.
    """
    order = best_first(scores, key)
    key, ends = key.take(order), boxes.reshape(-1, 2)
    low, high = ends.take(2 * order, axis=0), ends.take(2 * order + 1, axis=0)
    areas = _area(low, high, end_pixel)
    # Compared are a box and those behind it: all pairs of a key, in runs of boxes that nothing before them removed.
    behind = np.searchsorted(key, key, "right") - np.arange(len(key)) - 1
    run = np.cumsum(behind) // _PAIRS
    kept = np.ones(len(key), bool)
    for start, stop in itertools.pairwise(np.searchsorted(run, np.arange(run.max(initial=-1) + 2)).tolist()):
        row = start + np.flatnonzero(kept[start:stop])
        count = behind[row]
        better = np.repeat(row, count)
        worse = np.arange(len(better)) + np.repeat(row + 1 - np.cumsum(count) + count, count)
        # NumPy takes three times as long where it is to complain of wrong indices.
        (low_1, high_1, area_1), (low_2, high_2, area_2) = (
            [values.take(box, axis=0, mode="clip") for values in (low, high, areas)] for box in (better, worse)
        )
        shared = _overlap((low_1, high_1), (low_2, high_2), area_1, area_2, relative_to, end_pixel)
        clash = np.flatnonzero(shared > threshold)
        better, worse = better[clash], worse[clash]
        while len(better):
            # Boxes that none removes stay, what they remove goes, and the rest is settled without either.
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
    """What boxes share, each as its first and its last [x, y], that are broadcast against each other."""
    side = np.minimum(corners[1], others[1]) - np.maximum(corners[0], others[0])
    side += end_pixel
    np.maximum(side, 0, out=side)
    intersection = side[..., 0] * side[..., 1]
    smaller = relative_to == "smaller"
    whole = np.minimum(area, other_area) if smaller else area + other_area - intersection
    # Where nothing is whole nothing is shared either.
    return intersection / np.maximum(whole, np.finfo(whole.dtype).tiny)


def calibrate(
    boxes: Float[np.ndarray, "n 4"], offsets: Float[np.ndarray, "n 4"], *, end_pixel: float
) -> Float[np.ndarray, "n 4"]:
    """Boxes moved by a network's regression: each edge by its offset times the box's width or height."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(end_pixel)
    return boxes + offsets * np.concatenate([size, size], axis=1)


def squares(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """The squares about the same centres whose side is the longer side of each box."""
    x1, y1, x2, y2 = boxes.T
    width, height, half = x2 - x1, y2 - y1, np.float32(0.5)
    side = np.maximum(width, height)
    left, top = x1 + width * half - side * half, y1 + height * half - side * half
    return np.stack([left, top, left + side, top + side], axis=1)
