"""The image pyramids of many photos, laid out on one strip that is cut into canvases of one size.

P-Net looks at a photo in a dozen sizes. Run on each by itself it would compile for every size of every photo, or waste
most of its work on padding. Here all levels of all photos of a batch share canvases: one shape is compiled, and a
level larger than a canvas runs on over the next ones, so that memory does not grow with the photo.
"""

import math

import numpy as np
from jaxtyping import Int

# Side of P-Net's window, and the step between windows, in pixels.
WINDOW, STRIDE = 12, 2
# Pixels that neighbouring pieces share, so that no window is lost: what a window needs beyond its step.
OVERLAP = WINDOW - STRIDE
# Pixels of a canvas: its activations fit in a CPU's second-level cache. P-Net's second layer takes an even number of
# columns, of which there are WIDTH / 2 - 1.
HEIGHT, WIDTH = 256, 130
# Rows of the strip from one canvas to the next, of which each gives the windows of its own.
STEP = HEIGHT - OVERLAP


# One size of a photo.
LEVEL = np.dtype(
    [
        ("photo", np.int64),  # index in the batch
        ("level", np.int64),  # index in the photo's pyramid
        ("scale", np.float64),  # size of the level as a part of the photo's
        ("size", np.int64, 2),  # height and width in pixels
    ]
)

# Columns of a level, in its whole height, and their place on the strip, in pixels.
TILE = np.dtype(
    [
        ("photo", np.int64),
        ("level", np.int64),
        ("scale", np.float64),
        ("level_size", np.int64, 2),
        ("start", np.int64),  # first column in the level; even
        ("width", np.int64),
        ("place", np.int64, 2),  # first row and column on the strip; both even
    ]
)


def levels(sizes: Int[np.ndarray, "photos 2"], min_face: float, factor: float) -> np.ndarray:
    """The pyramids (`LEVEL`) of photos, one behind the other, each from its largest level on.

    That finds the smallest face in one window; the smallest level has the photo's shorter side in one window.
    """
    first = WINDOW / min_face
    shorter = sizes.min(axis=1) * first
    most, left = 0, shorter.max(initial=0)
    while left >= WINDOW:
        most, left = most + 1, left * factor
    sides = np.full((len(sizes), most), factor)
    sides[:, :1] = shorter[:, None]
    counts = (np.multiply.accumulate(sides, axis=1) >= WINDOW).sum(axis=1)
    scales = np.array([first * factor**number for number in range(most)])
    found = np.empty(counts.sum(), LEVEL)
    found["photo"] = np.repeat(np.arange(len(sizes)), counts)
    found["level"] = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    found["scale"] = scales[found["level"]]
    found["size"] = sizes[found["photo"]] * found["scale"][:, None] + 1  # rounded down
    return found


def lay_out(pieces: np.ndarray) -> tuple[np.ndarray, int]:
    """Places levels on the strip, one shelf above the other; returns tiles (`TILE`), shelf by shelf, and the height.

    The highest level comes first, so that those of one shelf are nearly alike in height. Where one does not fit in what
    is left of its shelf it is cut, and goes on on the next. With many photos about an eighth of the strip stays empty
    or is seen twice.
    """
    order = np.lexsort(-pieces["size"].T[::-1])
    tiles = []
    top = bottom = 0
    x = WIDTH
    for index, (height, whole) in zip(order.tolist(), pieces["size"][order].tolist(), strict=True):
        left = whole
        while left > 0:
            room = WIDTH - x
            if left > room and room < 2 * WINDOW:
                top, x, room = bottom, 0, WIDTH
                bottom = top + height + height % 2
            width = min(left, room)
            tiles += (index, whole - left, width, top, x)
            x += width + width % 2
            left = left - width + OVERLAP if left > width else 0
    index, start, width, *place = np.array(tiles, np.int64).reshape(-1, 5).T
    placed = np.empty(len(index), TILE)
    for name in ("photo", "level", "scale"):
        placed[name] = pieces[name][index]
    placed["level_size"] = pieces["size"][index]
    placed["start"], placed["width"], placed["place"] = start, width, np.stack(place, axis=1)
    return placed, bottom


def canvases(height: int) -> int:
    """Number of canvases that hold all windows of a strip; canvas k begins in row k * `STEP`."""
    return math.ceil(max(0, height - OVERLAP) / STEP)
