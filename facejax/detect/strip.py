"""The strip of pyramids (`pyramid`) as tables for sampling P-Net's input and for locating its windows."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from facejax.detect import pyramid, sampling

# Columns of a tile of a pyramid level: its level, the shift from strip to level coordinates, and the end of the rows
# and columns of the level where P-Net's first convolution has whole windows.
TILE = (*sampling.REGION, "shift_y", "shift_x", "end_y", "end_x")

# Cells in a row of the strip, rows of cells in a canvas, and windows in a row.
_CELLS, _CELL_ROWS = pyramid.WIDTH // 2, pyramid.HEIGHT // 2
_WINDOWS = (pyramid.WIDTH - pyramid.OVERLAP) // pyramid.STRIDE
# Capacity of the tables in tiles, shelves and rows of cells, so that few sizes are compiled; larger tables have two,
# four ... times the capacity.
_ROOM = (1024, 512, 8192)


class Tables(NamedTuple):
    """The tables of a strip that `canvas_pixels` reads; entries after the last tile, shelf and row are never used.

    Every cell of 2 x 2 pixels is assigned to a tile of its shelf, even to the right of the last tile and below lower
    tiles: these pixels lie beyond the tile's end, where there are no windows.

    Attributes:
        tiles: The `TILE` columns of all tiles.
        cells: For each shelf, index of the tile that each cell of a row belongs to.
        shelf: Index of the shelf of each row of cells.
    """

    tiles: Int32[np.ndarray, "tiles 10"]
    cells: Int32[np.ndarray, "shelves cells"]
    shelf: Int32[np.ndarray, " rows"]


@dataclasses.dataclass(frozen=True)
class Strip:
    """Tiles and their positions on the strip.

    Attributes:
        tiles: Rows of `pyramid.TILE`.
        canvases: Number of canvases of the strip.
        tables: The tables, on the host.
    """

    tiles: np.ndarray
    canvases: int
    tables: Tables

    @classmethod
    def of_photos(cls, buffer: sampling.PhotoBuffer, min_face: float, factor: float) -> "Strip":
        """The pyramids of all photos; has no canvases if all photos are too small for a window."""
        tiles, height = pyramid.lay_out(pyramid.levels(buffer.sizes, min_face, factor))
        photo, (top, left) = tiles["photo"], tiles["place"].T
        canvases = pyramid.canvases(height)
        shelves = np.flatnonzero(np.diff(top, prepend=-1))
        rows = (canvases * pyramid.STEP + pyramid.OVERLAP) // 2
        needed = zip((len(tiles), len(shelves), rows), _ROOM, strict=True)
        times = 1 << (max(-(-number // room) for number, room in needed) - 1).bit_length()
        room = [times * number for number in _ROOM]

        table = np.zeros((room[0], len(TILE)), np.int32)
        used = table[: len(tiles)]
        whole = np.zeros((len(tiles), 4), np.int64)
        whole[:, 2:] = buffer.sizes[photo, ::-1]
        used[:, :6] = sampling.regions(buffer, photo, whole, tiles["level_size"])
        used[:, 6], used[:, 7] = -top, tiles["start"] - left
        used[:, 8], used[:, 9] = tiles["level_size"][:, 0] - 2, tiles["start"] + tiles["width"] - 2

        # Tiles are numbered shelf by shelf, each from the left.
        cells = np.zeros((room[1], _CELLS), np.int32)
        shelf_of_tile = np.repeat(np.arange(len(shelves)), np.diff(shelves, append=len(tiles)))
        flat = cells.reshape(-1)[: len(shelves) * _CELLS]
        flat[(shelf_of_tile * _CELLS + left // 2)[1:]] = 1
        np.cumsum(flat, out=flat)

        shelf = np.zeros(room[2], np.int32)
        shelf[top[shelves[1:]] // 2] = 1
        np.cumsum(shelf, out=shelf)
        return cls(tiles, canvases, Tables(table, cells, shelf))

    def windows(self, seen: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Locates those of the windows `seen` that are in a level: row and column in the level, tile, index in `seen`.

        Args:
            seen: Indices of windows, counted along the rows of all canvases.
        """
        row, column = np.divmod(seen, _WINDOWS)
        tile = self.tables.cells.reshape(-1).take(self.tables.shelf.take(row) * _CELLS + column)
        (top, left), start = self.tiles["place"].T // 2, self.tiles["start"] // 2
        rows, columns = ((size - 1) // 2 - 4 for size in (self.tiles["level_size"][:, 0], self.tiles["width"]))
        y, x = row - top.take(tile), column - left.take(tile)
        # Windows within a tile, not between tiles; by P-Net's output size, which rounds up in its max pooling.
        inside = np.flatnonzero((y < rows.take(tile)) & (x < columns.take(tile)))
        tile = tile.take(inside)
        y, x = y.take(inside), x.take(inside) + start.take(tile)
        # Sorted by level, row by row: the order of equal scores must not depend on the layout.
        level = (self.tiles["photo"] * 2**15 + self.tiles["level"]).take(tile)
        order = np.argsort((level * sampling.MAX_SIDE + y) * sampling.MAX_SIDE + x)
        return y.take(order), x.take(order), tile.take(order), inside.take(order)


@jax.jit
def canvas_pixels(
    sums: Int[Array, "entries 3"], tables: Tables, canvases: Int[Array, " canvases"]
) -> tuple[Float[Array, "canvases height width 3"], Bool[Array, "canvases height width"]]:
    """P-Net's input: pixels, and where its first convolution has whole windows of a single tile.

    Args:
        sums: Integral images of the photos (`sampling.PhotoBuffer`).
        tables: Tables of the strip.
        canvases: Indices of the canvases.
    """
    row = canvases.reshape(-1, 1) * (pyramid.STEP // 2) + jnp.arange(_CELL_ROWS, dtype=jnp.int32).reshape(1, -1)
    tile = tables.cells[tables.shelf[row]]
    # The four pixels of a cell are kept separate, with one plane per table column, so that the arithmetic runs along
    # rows of cells.
    columns = jax.lax.optimization_barrier(jnp.moveaxis(tables.tiles, -1, 0))
    columns = jax.lax.optimization_barrier(columns[:, tile])
    *region, shift_y, shift_x, end_y, end_x = columns[:, None, None]
    phase = jnp.arange(2, dtype=jnp.int32)
    y = shift_y + 2 * row.reshape(1, 1, *row.shape, 1) + phase.reshape(2, 1, 1, 1, 1)
    x = shift_x + 2 * jnp.arange(_CELLS, dtype=jnp.int32).reshape(1, 1, 1, 1, -1) + phase.reshape(1, 2, 1, 1, 1)

    def in_order(phases: Array) -> Array:
        """From [y % 2, x % 2, canvas, y // 2, x // 2] to [canvas, y, x]."""
        shape = (len(canvases), pyramid.HEIGHT, pyramid.WIDTH, *phases.shape[5:])
        return jnp.moveaxis(phases, (0, 1), (2, 4)).reshape(shape)

    return in_order(sampling.area_means(sums, tuple(region), y, x)), in_order((y < end_y) & (x < end_x))
