import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.detect import pyramid, sampling

SIZES = np.array([[12, 12], [20, 20], [33, 700], [512, 431], [1100, 640], [15, 3000], [1, 1]])


def area_resize(image, size):
    """Means over whole-pixel windows, as PyTorch's adaptive average pooling defines them."""
    (height, width), (rows, columns) = image.shape[:2], size
    result = np.zeros((rows, columns, 3))
    for r in range(rows):
        for c in range(columns):
            top, bottom = r * height // rows, -(-(r + 1) * height // rows)
            left, right = c * width // columns, -(-(c + 1) * width // columns)
            result[r, c] = image[top:bottom, left:right].mean((0, 1), dtype=np.float64)
    return result


@pytest.mark.parametrize("out_size", [(24, 24), (48, 48), (7, 53), (61, 80)])
def test_area_means_equal_the_definition(out_size):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((30, 20), (61, 80))]
    buffer = sampling.integral_buffer(photos)
    rectangle = np.array([[3, 5, 70, 60], [0, 0, 80, 61]])
    table = sampling.regions(buffer, np.array([1, 1]), rectangle, np.array([out_size, out_size]))
    y, x = jnp.arange(out_size[0]).reshape(-1, 1), jnp.arange(out_size[1]).reshape(1, -1)
    for row, (left, top, right, bottom) in zip(table, rectangle, strict=True):
        got = jax.jit(sampling.area_means)(buffer.sums, tuple(row.reshape(-1, 1, 1)), y, x)
        expected = (area_resize(photos[1][top:bottom, left:right], out_size) - 127.5) / 128
        np.testing.assert_allclose(np.moveaxis(np.asarray(got), 0, -1), expected, atol=1e-6)


def test_integral_images_are_exact_at_the_largest_photo():
    photo = np.full((2500, 3200, 3), 255, np.uint8)
    assert photo.shape[0] * photo.shape[1] == sampling.MAX_PIXELS
    assert cv2.integral(photo, sdepth=cv2.CV_32S)[-1, -1].tolist() == [255 * sampling.MAX_PIXELS] * 3


def test_scales_go_from_the_smallest_face_to_the_whole_photo():
    got = pyramid.scales(350, 500, 20.0, 0.709)
    assert got[0] == 12 / 20
    np.testing.assert_allclose(np.divide(got[1:], got[:-1]), 0.709)
    assert 350 * got[-1] >= 12 > 350 * got[-1] * 0.709
    assert pyramid.scales(19, 500, 20.0, 0.709) == []


def test_every_window_of_every_level_is_in_one_tile():
    seen = {}
    for tile in pyramid.tiles(SIZES, 20.0, 0.709):
        assert max(tile.size) <= pyramid.CANVAS
        key = (tile.photo, tile.level)
        rows, columns = ((side - 1) // 2 - 4 for side in tile.level_size)
        count = seen.setdefault(key, np.zeros((rows, columns), int))
        (y, x), (height, width) = (start // 2 for start in tile.start), ((side - 1) // 2 - 4 for side in tile.size)
        count[y : y + height, x : x + width] += 1
    assert {photo for photo, _ in seen} == {1, 2, 3, 4}
    assert all((count == 1).all() for count in seen.values())


def test_packed_tiles_do_not_overlap():
    tiles = pyramid.tiles(np.concatenate([SIZES] * 3), 20.0, 0.709)
    placed, count = pyramid.pack(tiles)
    assert len(placed) == len(tiles)
    used = np.zeros((count, pyramid.CANVAS, pyramid.CANVAS), int)
    for tile in placed:
        (y, x), (height, width) = tile.place, tile.size
        assert y % 2 == x % 2 == 0
        assert y + height <= pyramid.CANVAS
        assert x + width <= pyramid.CANVAS
        # The cells of 2x2 pixels are not shared either.
        used[tile.canvas, y : y + height + height % 2, x : x + width + width % 2] += 1
    assert used.max() == 1
    assert (used.sum((1, 2)) > 0).all()
    assert used.mean() > 0.7
