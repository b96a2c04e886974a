"""The image pyramids of many photos, cut into tiles and packed into canvases of one size.

P-Net looks at a photo in a dozen sizes. Run on each by itself it would compile for every size of every photo, or waste
most of its work on padding. Here all levels of all photos of a batch share canvases: one shape is compiled, and a
level larger than a canvas is cut into overlapping tiles, so that memory does not grow with the photo.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# Side of a canvas in pixels: its activations fit in a CPU's second-level cache.
CANVAS = 256
# Side of P-Net's window, and the step between windows, in pixels.
WINDOW, STRIDE = 12, 2
# Most tiles that a canvas holds: levels are never smaller than the window.
MAX_TILES = (CANVAS // WINDOW) ** 2


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of a pyramid level, and its place in a canvas; everything in pixels of the level.

    Attributes:
        photo: Index of the photo in the batch.
        level: Index of the level in the photo's pyramid.
        scale: Size of the level as a part of the photo's.
        level_size: Height and width of the level.
        start: First row and column of the tile in the level; both even.
        size: Height and width of the tile.
        canvas: Index of the canvas, set by `pack`.
        place: First row and column in the canvas; both even.
    """

    photo: int
    level: int
    scale: float
    level_size: tuple[int, int]
    start: tuple[int, int]
    size: tuple[int, int]
    canvas: int = 0
    place: tuple[int, int] = (0, 0)


def scales(height: int, width: int, min_face: float, factor: float) -> list[float]:
    """Scales of a photo's pyramid: from the smallest face in one window to the photo's shorter side in one window."""
    first = WINDOW / min_face
    count, shorter = 0, min(height, width) * first
    while shorter >= WINDOW:
        shorter *= factor
        count += 1
    return [first * factor**k for k in range(count)]


def tiles(sizes: Int[np.ndarray, "photos 2"], min_face: float, factor: float) -> list[Tile]:
    """All levels of all photos, cut so that each tile fits in a canvas and no window of a level is lost or doubled."""
    result = []
    for photo, (height, width) in enumerate(sizes.tolist()):
        for level, scale in enumerate(scales(height, width, min_face, factor)):
            level_size = (int(height * scale + 1), int(width * scale + 1))
            for y, tile_height in _cuts(level_size[0]):
                for x, tile_width in _cuts(level_size[1]):
                    result.append(Tile(photo, level, scale, level_size, (y, x), (tile_height, tile_width)))
    return result


def _cuts(length: int) -> list[tuple[int, int]]:
    """Starts and lengths of the pieces of one side; neighbours share the pixels that a window needs beyond its step."""
    step = CANVAS - (WINDOW - STRIDE)
    count = max(1, math.ceil((length - (WINDOW - STRIDE)) / step))
    return [(k * step, min(CANVAS, length - k * step)) for k in range(count)]


def pack(pieces: Sequence[Tile]) -> tuple[list[Tile], int]:
    """Places tiles in canvases without overlap; returns them, in another order, and the number of canvases.

    Guillotine packing: the largest tile first, into the free rectangle where the least is left beside it.
    """
    free: list[tuple[int, int, int, int, int]] = []
    placed, canvases = [], 0
    for tile in sorted(pieces, key=lambda tile: (-max(tile.size), -min(tile.size))):
        height, width = (side + side % 2 for side in tile.size)
        best, best_left = -1, CANVAS + 1
        for i, (_, _, _, room_y, room_x) in enumerate(free):
            left = min(room_y - height, room_x - width)
            if 0 <= left < best_left:
                best, best_left = i, left
        if best < 0:
            free.append((canvases, 0, 0, CANVAS, CANVAS))
            canvases += 1
        canvas, y, x, room_y, room_x = free.pop(best)
        placed.append(dataclasses.replace(tile, canvas=canvas, place=(y, x)))
        below, beside = room_y - height, room_x - width
        # The cut that leaves the larger rectangle whole.
        if below > beside:
            rest = ((canvas, y + height, x, below, room_x), (canvas, y, x + width, height, beside))
        else:
            rest = ((canvas, y + height, x, below, width), (canvas, y, x + width, room_y, beside))
        free.extend(room for room in rest if min(room[3:]) >= WINDOW)
    return placed, canvases
