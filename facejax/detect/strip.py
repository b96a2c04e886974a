"""The strip of pyramids (`pyramid`) as P-Net's sampling and its results see it: tables of tiles, windows of levels."""

import numpy as np
from jaxtyping import Int, Int32, UInt8

from facejax.detect import pyramid, sampling

# Windows in a row of a canvas.
_COLUMNS = (pyramid.WIDTH - pyramid.OVERLAP) // pyramid.STRIDE


def strip_tables(buffer: sampling.PhotoBuffer, tiles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `sampling.TILE` columns of all tiles, and which of them each cell of the strip belongs to (-1: none)."""
    photo, size, place = tiles["photo"], tiles["level_size"], tiles["place"]
    whole = np.concatenate([np.zeros_like(size), buffer.sizes[photo, ::-1]], axis=1)
    start = np.stack([np.zeros_like(tiles["start"]), tiles["start"]], axis=1)
    ends = np.stack([size[:, 0], tiles["start"] + tiles["width"]], axis=1) - 2
    table = np.concatenate([sampling.regions(buffer, photo, whole, size), start - place, ends], axis=1)
    rows = count * pyramid.STEP + pyramid.OVERLAP
    tile_map = np.full((rows // 2, pyramid.WIDTH // 2), -1, np.int32)
    corners = np.column_stack([place, size[:, 0], tiles["width"]]).tolist()
    for index, (y, x, height, width) in enumerate(corners):
        tile_map[y // 2 : (y + height + 1) // 2, x // 2 : (x + width + 1) // 2] = index
    return table.astype(np.int32), tile_map


def canvas_tables(
    table: Int32[np.ndarray, "tiles 10"],
    tile_map: Int32[np.ndarray, "rows columns"],
    shelves: Int[np.ndarray, " tiles"],
    canvases: Int[np.ndarray, " canvases"],
) -> tuple[Int32[np.ndarray, "canvases own 10"], UInt8[np.ndarray, "canvases canvas_rows columns"]]:
    """The same for some canvases of the strip, each with the tiles of the shelves that it touches.

    Args:
        table: From `strip_tables`.
        tile_map: From `strip_tables`.
        shelves: First row of each tile's shelf.
        canvases: Their numbers.
    """
    row = canvases * pyramid.STEP
    first = np.searchsorted(shelves, shelves[np.searchsorted(shelves, row, "right") - 1])
    # Behind the last tile it is repeated: no cell belongs to the copies.
    own = table.take(first[:, None] + np.arange(pyramid.MAX_TILES), axis=0, mode="clip")
    own[..., sampling.TILE.index("shift_y")] += row[:, None].astype(np.int32)
    cells = tile_map[row[:, None] // 2 + np.arange(pyramid.HEIGHT // 2)]
    # A byte holds the number of each of the `pyramid.MAX_TILES` tiles.
    return own, np.maximum(cells - first[:, None, None].astype(np.int32), 0).astype(np.uint8)


def windows(seen: np.ndarray, tiles: np.ndarray, tile_map: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the windows `seen` on the strip, those of tiles: row and column in the level, tile, index in `seen`."""
    row, column = np.divmod(seen, _COLUMNS)
    index = tile_map[row, column]
    window = np.stack([row, column], axis=1) - tiles["place"][index] // 2
    # Windows that lie in a tile and not between tiles; P-Net's size rule, rounding up in its maximum.
    size = np.stack([tiles["level_size"][index, 0], tiles["width"][index]], axis=1)
    inside = np.flatnonzero((index >= 0) & (window < (size - 1) // 2 - 4).all(axis=1))
    index, window = index[inside], window[inside]
    window[:, 1] += tiles["start"][index] // 2
    # One level after another, row by row: which of two equal scores is the first must not depend on the layout.
    order = np.lexsort((window[:, 1], window[:, 0], tiles["level"][index], tiles["photo"][index]))
    return window[order], index[order], inside[order]
