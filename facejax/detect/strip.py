"""The strip of pyramids (`pyramid`) as P-Net's sampling and its results see it: tables of tiles, windows of levels."""

import dataclasses

import numpy as np
from jaxtyping import Int, Int32, UInt8

from facejax.detect import pyramid, sampling

# A byte tells the tiles of a canvas apart by their numbers modulo this.
_SLOTS = 256
assert _SLOTS >= pyramid.MAX_TILES
# Windows in a row of a canvas.
_COLUMNS = (pyramid.WIDTH - pyramid.OVERLAP) // pyramid.STRIDE


@dataclasses.dataclass(frozen=True)
class Strip:
    """Tiles, and where on the strip they lie.

    Every cell of 2 x 2 pixels is said to be of some tile of its shelf, also right of the last and below the lower ones:
    those pixels lie beyond the tile's end, and no window is there.

    Attributes:
        tiles: Rows of `pyramid.TILE`.
        canvases: How many the strip is cut into.
        table: The `sampling.TILE` columns of all tiles.
        first: First tile of each shelf.
        shelf: That of each row of cells.
        columns: Number, modulo 256, of the tile that each cell of a row belongs to.
    """

    tiles: np.ndarray
    canvases: int
    table: Int32[np.ndarray, "tiles 10"]
    first: Int[np.ndarray, " shelves"]
    shelf: Int[np.ndarray, " rows"]
    columns: UInt8[np.ndarray, "shelves columns"]

    @classmethod
    def of_photos(cls, buffer: sampling.PhotoBuffer, min_face: float, factor: float) -> "Strip":
        """The pyramids of all photos; without canvases where all photos are too small for a window."""
        tiles, height = pyramid.lay_out(pyramid.levels(buffer.sizes, min_face, factor))
        photo, size, place = tiles["photo"], tiles["level_size"], tiles["place"]
        whole = np.concatenate([np.zeros_like(size), buffer.sizes[photo, ::-1]], axis=1)
        start = np.stack([np.zeros_like(tiles["start"]), tiles["start"]], axis=1)
        ends = np.stack([size[:, 0], tiles["start"] + tiles["width"]], axis=1) - 2
        table = np.concatenate([sampling.regions(buffer, photo, whole, size), start - place, ends], axis=1)
        new = np.diff(place[:, 0], prepend=-1) > 0
        first, canvases = np.flatnonzero(new), pyramid.canvases(height)
        rows = np.arange(0, canvases * pyramid.STEP + pyramid.OVERLAP, 2)
        begins = np.zeros((len(first), pyramid.WIDTH // 2), np.uint8)
        begins[np.cumsum(new)[~new] - 1, place[~new, 1] // 2] = 1
        shelf = np.searchsorted(place[first, 0], rows, "right") - 1
        begins[:, 0] = first.astype(np.uint8)
        return cls(tiles, canvases, table.astype(np.int32), first, shelf, np.cumsum(begins, axis=1, dtype=np.uint8))

    def canvas_tables(
        self, canvases: Int[np.ndarray, " canvases"]
    ) -> tuple[Int32[np.ndarray, "canvases own 10"], UInt8[np.ndarray, "canvases canvas_rows columns"]]:
        """What `sampling.canvas_pixels` takes for the canvases of these numbers: tables, and maps of the tiles in them.

        Each has the tiles of the shelves that it touches.
        """
        row = canvases[:, None] * pyramid.STEP
        shelf = self.shelf[row // 2 + np.arange(pyramid.HEIGHT // 2)]
        first = self.first[shelf[:, :1]]
        # Slot i has the tile whose number is i modulo the slots, of those from the first on. Behind the last tile of
        # all it is repeated: no cell belongs to the copies.
        own = self.table.take(first + (np.arange(_SLOTS) - first) % _SLOTS, axis=0, mode="clip")
        own[..., sampling.TILE.index("shift_y")] += row.astype(np.int32)
        return own, self.columns.take(shelf, axis=0)

    def windows(self, seen: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the windows `seen` on the strip, those of levels: row and column in the level, tile, index in `seen`.

        Args:
            seen: Numbers of windows, counted along the rows of all canvases.
        """
        row, column = np.divmod(seen, _COLUMNS)
        shelf = self.shelf[row]
        first = self.first[shelf]
        tile = first + (self.columns[shelf, column] - first.astype(np.uint8))
        place, size = self.tiles["place"][tile], self.tiles["level_size"][tile]
        y, x = row - place[:, 0] // 2, column - place[:, 1] // 2
        # Windows that lie in a tile and not between tiles; P-Net's size rule, rounding up in its maximum.
        inside = np.flatnonzero((y < (size[:, 0] - 1) // 2 - 4) & (x < (self.tiles["width"][tile] - 1) // 2 - 4))
        tile = tile[inside]
        y, x = y[inside], x[inside] + self.tiles["start"][tile] // 2
        # One level after another, row by row: which of two equal scores is the first must not depend on the layout.
        level = self.tiles["photo"][tile] * 2**15 + self.tiles["level"][tile]
        order = np.argsort((level * sampling.MAX_SIDE + y) * sampling.MAX_SIDE + x)
        return np.stack([y, x], axis=1)[order], tile[order], inside[order]
