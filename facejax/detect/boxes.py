"""Arithmetic on boxes [x1, y1, x2, y2] in pixels, on the host.

MTCNN mixes two conventions, and parity with its published results needs both: its first two suppressions take a box
as the real interval x2 - x1, its regressions and its last suppression count both end pixels (x2 - x1 + 1).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

# Rows of the overlap matrix that are held at once: bounds the memory in photos with tens of thousands of candidates.
_BLOCK = 512


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
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    size = np.maximum(high - low + end_pixel, 0)
    intersection = size[..., 0] * size[..., 1]
    area = np.prod(boxes[:, 2:] - boxes[:, :2] + end_pixel, axis=1)[:, None]
    other_area = np.prod(others[:, 2:] - others[:, :2] + end_pixel, axis=1)[None, :]
    whole = np.minimum(area, other_area) if relative_to == "smaller" else area + other_area - intersection
    return np.divide(intersection, whole, out=np.zeros_like(intersection), where=whole > 0)


def nms(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    threshold: float,
    *,
    relative_to: Literal["union", "smaller"] = "union",
    end_pixel: float = 0.0,
) -> Int[np.ndarray, " kept"]:
    """Indices of the boxes that greedy non-maximum suppression keeps, best score first.

    A box goes when its `overlap` with a kept box of a higher score is above `threshold`; of equal scores the earlier
    box is the higher.
    """
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(0, order.dtype)
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        if len(kept):
            earlier = overlap(boxes[kept], boxes[block], relative_to=relative_to, end_pixel=end_pixel)
            block = block[~(earlier > threshold).any(axis=0)]
        near = boxes[block]
        clash = overlap(near, near, relative_to=relative_to, end_pixel=end_pixel) > threshold
        alive = np.ones(len(block), bool)
        for i in range(len(block)):
            if alive[i]:
                alive[i + 1 :] &= ~clash[i, i + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return kept


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
