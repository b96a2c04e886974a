"""Photos as integral images on the device, from which all inputs of MTCNN are computed as box means.

MTCNN processes each photo at a dozen scales, plus a hundred crops of it. Both use "area" resizing with
whole-pixel windows (PyTorch's ``interpolate(mode="area")``, which facenet-pytorch uses): pixel y of an output of h rows
is the mean of the rows floor(y H / h) to ceil((y + 1) H / h) of the input. With an integral image that mean takes four
reads at any scale and does not depend on static shapes: a single compiled function handles photos of all sizes.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, UInt8

# Up to 8.4 million pixels the sums of 8-bit values stay below 2^31.
MAX_PIXELS = 8_000_000
# Up to this length the products of coordinates below stay below 2^31.
MAX_SIDE = 2**15

# Columns of a region: position of its first pixel in the buffer, row stride, its height and width in pixels, and the
# height and width that it is resized to.
REGION = ("origin", "stride", "height", "width", "out_height", "out_width")

# Buffer lengths to compile for; the last is only reached by photos that are a few pixels high. Photos are transferred
# to an accelerator in any of these lengths; sums only use every second one, since all code that reads them is compiled
# for each.
_BUFFER_SIZES = (2**18, 2**19, 2**20, 2**21, 2**22, 2**23, 2**24)
# Minimum length of the host memory for photos: that of a large group, so that the next group fits in it too.
_SPARE_SIZE = 2**22
# Numbers of doubling steps to compile for summing columns: for photos of less than 1024 rows, and for all.
_DOUBLINGS = (10, 16)


@dataclasses.dataclass(frozen=True)
class PhotoBuffer:
    """Concatenated integral images of several photos.

    Attributes:
        sums: Integral images on the device, flattened, int32 modulo 2^32, padded to one of a few lengths.
        origins: Start of each photo's integral image.
        sizes: Height and width of each photo in pixels.
        pixels: Host memory that the device reads until `sums` are computed; None if the host computed the sums.
    """

    sums: Int[Array, "entries 3"]
    origins: Int[np.ndarray, " photos"]
    sizes: Int[np.ndarray, "photos 2"]
    pixels: UInt8[np.ndarray, "memory 3"] | None


def integral_buffer(photos: Sequence[np.ndarray], spare: list[np.ndarray] | None) -> PhotoBuffer:
    """Puts uint8 photos (height, width, 3) of any sizes, with at most `MAX_PIXELS` pixels each, on the device.

    Args:
        photos: At least one photo.
        spare: A list of reusable host memory (`PhotoBuffer.pixels`): the sums are computed on the device, so that only
            a quarter of the bytes is transferred, from memory that is taken from this list if there is any (touching
            new pages costs more than the copy). None computes the sums on the host with OpenCV, which is faster if the
            device is the CPU. The two kinds of sums differ by terms that cancel in every box.
    """
    sizes = np.array([photo.shape[:2] for photo in photos], np.int64)
    ends = np.cumsum(np.prod(sizes + 1, axis=1))
    length = next(size for size in _BUFFER_SIZES[::2] if size >= ends[-1])
    origins = np.concatenate([[0], ends[:-1]])
    if spare is None:
        sums = _aligned_empty(length)
        for photo, part in zip(photos, _parts(sums, origins, sizes), strict=True):
            cv2.integral(photo, sum=part, sdepth=cv2.CV_32S)
        return PhotoBuffer(jax.device_put(sums), origins, sizes, None)
    try:
        pixels = spare.pop()
    except IndexError:
        pixels = None
    if pixels is None or len(pixels) < length:
        pixels = np.empty((max(length, _SPARE_SIZE), 3), np.uint8)
    for photo, part in zip(photos, _parts(pixels, origins, sizes), strict=True):
        cv2.copyMakeBorder(photo, 1, 0, 1, 0, cv2.BORDER_CONSTANT, dst=part)
    # Padded by repeating the last photo, so that few numbers of photos are compiled.
    layout = np.empty((2, max(64, 1 << (len(photos) - 1).bit_length())), np.int32)
    layout[:, : len(photos)] = origins, sizes[:, 1] + 1
    layout[:, len(photos) :] = layout[:, len(photos) - 1, None]
    doublings = next(number for number in _DOUBLINGS if sizes[:, 0].max() < 2**number)
    used = next(size for size in _BUFFER_SIZES if size >= ends[-1])
    return PhotoBuffer(_integral_images(pixels[:used], layout, doublings, length), origins, sizes, pixels)


def _parts(memory: np.ndarray, origins: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Views of each photo's integral image, which has one more row and column than the photo, in a buffer's memory."""
    for origin, (height, width) in zip(origins.tolist(), (sizes + 1).tolist(), strict=True):
        yield memory[origin : origin + height * width].reshape(height, width, 3)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _integral_images(
    pixels: UInt8[Array, "entries 3"], layout: Int[Array, "2 photos"], doublings: int, length: int
) -> Int[Array, "{length} 3"]:
    """Integral images of photos laid out as in a `PhotoBuffer`, each with a leading row and column of zeros, mod 2^32.

    Args:
        pixels: The photos.
        layout: Start of each photo, and its row stride.
        doublings: Every photo has fewer than 2 ** `doublings` rows.
        length: Length of the sums; those beyond the length of `pixels` are zero.
    """
    # Cumulative sums along the whole buffer, in two steps: the sum of everything before a row cancels.
    lines = jnp.cumsum(pixels.astype(jnp.int32).reshape(-1, 512, 3), axis=1)
    before = jnp.cumsum(lines[:, -1], axis=0) - lines[:, -1]
    sums = (lines + before[:, None]).reshape(-1, 3)
    # Then along the columns, over twice as many rows with each step.
    entry, (origins, strides) = jnp.arange(len(pixels), dtype=jnp.int32), layout
    photo = jnp.searchsorted(origins, entry, side="right", method="compare_all") - 1
    origin, stride = origins[photo], strides[photo]
    row = (entry - origin) // stride

    for turn in range(doublings):
        rows = 1 << turn
        above = sums.at[entry - rows * stride].get(mode="clip")
        # The barrier keeps the steps apart: if fused, each would repeat the work of those before it twice.
        sums = jax.lax.optimization_barrier(sums + jnp.where((row >= rows)[:, None], above, 0))
    return jnp.pad(sums, ((0, length - len(sums)), (0, 0)))


def _aligned_empty(length: int) -> Int[np.ndarray, "{length} 3"]:
    """An array that `jax.device_put` uses without a copy on a CPU, so that the parts without photos stay untouched."""
    memory = np.empty(3 * length + 16, np.int32)
    start = -memory.ctypes.data % 64 // memory.itemsize
    return memory[start : start + 3 * length].reshape(length, 3)


def regions(
    buffer: PhotoBuffer,
    photo: Int[np.ndarray, " n"],
    rectangle: Int[np.ndarray, "n 4"],
    out_size: Int[np.ndarray, "*n 2"],
) -> Int32[np.ndarray, "n 6"]:
    """Table of `REGION` columns for rectangles [x1, y1, x2, y2) of photos, resized to `out_size` (h, w)."""
    stride = buffer.sizes[:, 1].take(photo) + 1
    left, top, right, bottom = rectangle.T
    table = np.empty((len(photo), len(REGION)), np.int32)
    table[:, 0] = buffer.origins.take(photo) + top * stride + left
    table[:, 1], table[:, 2], table[:, 3] = stride, bottom - top, right - left
    table[:, 4:] = out_size
    return table


def area_means(
    sums: Int[Array, "entries 3"], region: tuple[Array, ...], y: Array, x: Array
) -> Float[Array, "*shape 3"]:
    """Pixels (y, x) of resized regions, as (mean - 127.5) / 128.

    Args:
        sums: Integral images (`PhotoBuffer`).
        region: The `REGION` columns, each of a shape that broadcasts with `y` and with `x`.
        y: Row in the resized region; clipped to its last row.
        x: Column in the resized region; clipped likewise.

    Returns:
        Pixels of the shape that `y` and `x` broadcast to.
    """
    origin, stride, height, width, out_height, out_width = region
    top, bottom = _window(y, height, out_height)
    left, right = _window(x, width, out_width)
    # Without the barrier XLA on CPU would fuse this into the reads below, and divide again for every pixel and channel.
    above, below, left, right, part_y, part_x = jax.lax.optimization_barrier(
        (origin + top * stride, origin + bottom * stride, left, right, 1 / (bottom - top), 1 / (128 * (right - left)))
    )

    def corner(row: Array, column: Array) -> Array:
        return sums.at[row + column].get(mode="clip")

    total = corner(below, right) - corner(above, right) - corner(below, left) + corner(above, left)
    return total.astype(jnp.float32) * (part_y * part_x)[..., None] - 127.5 / 128


def _window(index: Array, length: Array, out_length: Array) -> tuple[Array, Array]:
    """First and last (exclusive) input pixel that output pixel `index` of a resized side averages."""
    index = jnp.clip(index, 0, out_length - 1)
    first, beyond, out_length = jnp.broadcast_arrays(index * length, (index + 1) * length, out_length)
    return jax.lax.div(first, out_length), jax.lax.div(beyond + out_length - 1, out_length)


@functools.partial(jax.jit, static_argnames="side")
def crop_pixels(
    sums: Int[Array, "entries 3"], table: Int[Array, "batch 6"], side: int
) -> Float[Array, "batch {side} {side} 3"]:
    """Input of R- and O-Net: regions (rows of `REGION` columns), all resized to `side`."""
    pixel = jnp.arange(side, dtype=jnp.int32)
    y, x = pixel.reshape(1, -1, 1), pixel.reshape(1, 1, -1)
    return area_means(sums, tuple(column.reshape(-1, 1, 1) for column in table.T), y, x)
