"""Photos as integral images on the device, and everything that MTCNN looks at as means of boxes of them.

MTCNN looks at each photo in a dozen sizes and at a hundred crops of it. Both are "area" resizing with whole-pixel
windows (PyTorch's ``interpolate(mode="area")``, which facenet-pytorch uses): pixel y of an output of h rows is the mean
of the rows floor(y H / h) to ceil((y + 1) H / h) of the input. From an integral image that mean costs four reads,
whatever the scale, and needs no shape known before: one compiled function serves photos of all sizes.
"""

import dataclasses
import functools
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Up to 8.4 million pixels the sums of 8-bit values stay below 2^31.
MAX_PIXELS = 8_000_000
# Up to this length the products of coordinates below stay below 2^31.
MAX_SIDE = 2**15

# Columns of a region: place of its first pixel in the buffer, row stride, its height and width in pixels, and the
# height and width that it is resized to.
REGION = ("origin", "stride", "height", "width", "out_height", "out_width")

# Columns of a tile of a pyramid level in a canvas: its level, what leads from canvas to level coordinates, and the end
# of the rows and columns where P-Net's first convolution sees whole windows.
TILE = (*REGION, "shift_y", "shift_x", "end_y", "end_x")

# Lengths of the buffer that are compiled; the last is reached only by photos of a few pixels' height.
_BUFFER_SIZES = (2**18, 2**20, 2**22, 2**23, 2**24)


@dataclasses.dataclass(frozen=True)
class PhotoBuffer:
    """Integral images of some photos, one behind the other.

    Attributes:
        sums: Integral images on the device, flattened, int32, padded to one of few lengths.
        origins: Where each photo's integral image begins.
        sizes: Height and width of each photo in pixels.
    """

    sums: Int[Array, "entries 3"]
    origins: Int[np.ndarray, " photos"]
    sizes: Int[np.ndarray, "photos 2"]


def integral_buffer(photos: Sequence[np.ndarray]) -> PhotoBuffer:
    """Puts uint8 photos (height, width, 3) of any sizes, each at most `MAX_PIXELS` large, on the device."""
    sizes = np.array([photo.shape[:2] for photo in photos], np.int64).reshape(-1, 2)
    ends = np.cumsum(np.prod(sizes + 1, axis=1))
    length = next(size for size in _BUFFER_SIZES if size >= ends[-1])
    sums = np.zeros((length, 3), np.int32)
    origins = np.concatenate([[0], ends[:-1]])
    for photo, origin, end in zip(photos, origins, ends, strict=True):
        sums[origin:end] = cv2.integral(photo, sdepth=cv2.CV_32S).reshape(-1, 3)
    return PhotoBuffer(jnp.asarray(sums), origins, sizes)


def regions(
    buffer: PhotoBuffer,
    photo: Int[np.ndarray, " n"],
    rectangle: Int[np.ndarray, "n 4"],
    out_size: Int[np.ndarray, "n 2"],
) -> Int[np.ndarray, "n 6"]:
    """Table of `REGION` columns for rectangles [x1, y1, x2, y2) of photos that are resized to `out_size` (h, w)."""
    stride = buffer.sizes[photo, 1] + 1
    left, top, right, bottom = rectangle.T
    origin = buffer.origins[photo] + top * stride + left
    return np.stack([origin, stride, bottom - top, right - left, *out_size.T], axis=1).astype(np.int32)


def area_means(
    sums: Int[Array, "entries 3"], region: tuple[Array, ...], y: Array, x: Array
) -> Float[Array, "3 *shape"]:
    """Pixels (y, x) of resized regions, as (mean - 127.5) / 128.

    Args:
        sums: Integral images (`PhotoBuffer`).
        region: The `REGION` columns, each of a shape that broadcasts with `y` and `x`.
        y: Row in the resized region. Rows beyond it give the last row.
        x: Column in the resized region.

    Returns:
        Channel planes of the broadcast shape.
    """
    origin, stride, height, width, out_height, out_width = region
    y = jnp.clip(y, 0, out_height - 1)
    x = jnp.clip(x, 0, out_width - 1)
    top, left = jax.lax.div(y * height, out_height), jax.lax.div(x * width, out_width)
    bottom = jax.lax.div((y + 1) * height + out_height - 1, out_height)
    right = jax.lax.div((x + 1) * width + out_width - 1, out_width)

    def corner(row: Array, column: Array) -> Array:
        return sums.at[origin + row * stride + column].get(mode="clip")

    total = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
    scale = 1 / (128.0 * ((bottom - top) * (right - left)).astype(jnp.float32))
    pixels = total.astype(jnp.float32) * scale[..., None] - 127.5 / 128
    return jnp.moveaxis(pixels, -1, 0)


@jax.jit
def canvas_planes(
    sums: Int[Array, "entries 3"], table: Int[Array, "canvases tiles 10"], tile_map: Int[Array, "canvases cells cells"]
) -> tuple[Float[Array, "3 2 2 canvases cells cells"], Bool[Array, "2 2 canvases cells cells"]]:
    """P-Net's input: pixels in phases, and where its first convolution sees whole windows of one tile.

    Args:
        sums: Integral images (`PhotoBuffer`).
        table: The `TILE` columns of each canvas's tiles.
        tile_map: Which of them each cell of 2x2 pixels belongs to; -1 between tiles, where pixels have no meaning.
    """
    image = jnp.arange(len(table)).reshape(-1, 1, 1)
    columns = [column[None, None] for column in jnp.moveaxis(table[image, jnp.maximum(tile_map, 0)], -1, 0)]
    *region, shift_y, shift_x, end_y, end_x = columns
    phase, cell = jnp.arange(2), 2 * jnp.arange(tile_map.shape[-1])
    y = shift_y + phase.reshape(2, 1, 1, 1, 1) + cell.reshape(1, 1, 1, -1, 1)
    x = shift_x + phase.reshape(1, 2, 1, 1, 1) + cell.reshape(1, 1, 1, 1, -1)
    return area_means(sums, tuple(region), y, x), (y < end_y) & (x < end_x)


@functools.partial(jax.jit, static_argnames="side")
def crop_planes(
    sums: Int[Array, "entries 3"], table: Int[Array, "batch 6"], side: int
) -> Float[Array, "3 {side} {side} batch"]:
    """R- and O-Net's input: regions (rows of `REGION` columns), all resized to `side`; the batch stands last."""
    y, x = jnp.arange(side).reshape(-1, 1, 1), jnp.arange(side).reshape(1, -1, 1)
    return area_means(sums, tuple(column.reshape(1, 1, -1) for column in table.T), y, x)
