"""The image pyramids of many photos, laid out on one strip that is divided into canvases of a fixed size.

P-Net is applied to a photo at a dozen scales. Running it separately on each would compile it for every size of every
photo, or waste most of its work on padding. Here all levels of all photos of a batch share canvases: only one shape is
compiled, and a level larger than a canvas continues on the next ones, so that memory does not grow with the photo.
"""

import math

import numpy as np
from jaxtyping import Int

# Side of P-Net's window, and the step between windows, in pixels.
WINDOW, STRIDE = 12, 2
# Overlap of neighbouring pieces in pixels, so that no window is lost.
OVERLAP = WINDOW - STRIDE
# Size of a canvas in pixels: its activations fit in a CPU's L2 cache. P-Net's second layer needs an even number of
# columns, of which there are WIDTH / 2 - 1.
HEIGHT, WIDTH = 256, 130
# Rows of the strip from one canvas to the next; a canvas yields the windows that start in these rows.
STEP = HEIGHT - OVERLAP


# One level of a photo's pyramid.
LEVEL = np.dtype(
    [
        ("photo", np.int64),  # index in the batch
        ("level", np.int64),  # index in the photo's pyramid
        ("scale", np.float64),  # size of the level relative to the photo
        ("size", np.int64, 2),  # height and width in pixels
    ]
)

# Some columns of a level over its full height, and their position on the strip, in pixels.
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
    """The pyramids (`LEVEL`) of photos, one after another, each starting with its largest level.

    In the largest level a window covers the smallest face; in the smallest level it covers the photo's shorter side.
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
    """Places levels on the strip in shelves; returns tiles (`TILE`), shelf by shelf, and the height of the strip.

    Levels are sorted by decreasing height, so that those of a shelf have similar heights. A level that does not fit in
    the rest of its shelf is cut and continues on the next one. With many photos about an eighth of the strip is empty
    or processed twice.
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
    """Number of canvases needed for all windows of a strip; canvas k starts at row k * `STEP`."""
    return math.ceil(max(0, height - OVERLAP) / STEP)
