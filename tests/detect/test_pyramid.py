import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.detect import pyramid, sampling, strip

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


@pytest.mark.parametrize("spare", [None, []], ids=["host", "device"])
@pytest.mark.parametrize("out_size", [(24, 24), (48, 48), (7, 53), (61, 80)])
def test_area_means_equal_the_definition(out_size, spare):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((30, 20), (61, 80))]
    buffer = sampling.integral_buffer(photos, spare)
    rectangle = np.array([[3, 5, 70, 60], [0, 0, 80, 61]])
    table = sampling.regions(buffer, np.array([1, 1]), rectangle, np.array([out_size, out_size]))
    y, x = jnp.arange(out_size[0]).reshape(-1, 1), jnp.arange(out_size[1]).reshape(1, -1)
    for row, (left, top, right, bottom) in zip(table, rectangle, strict=True):
        got = jax.jit(sampling.area_means)(buffer.sums, tuple(row.reshape(-1, 1, 1)), y, x)
        expected = (area_resize(photos[1][top:bottom, left:right], out_size) - 127.5) / 128
        np.testing.assert_allclose(got, expected, atol=1e-6)


def assert_sums_are_those_of_opencv(photos):
    """For every box that starts at the first pixel."""
    buffer = sampling.integral_buffer(photos, spare=[])
    sums = np.asarray(buffer.sums)
    for photo, origin in zip(photos, buffer.origins, strict=True):
        height, width = photo.shape[:2]
        got = sums[origin:][: (height + 1) * (width + 1)].reshape(height + 1, width + 1, 3)
        boxes = got - got[:1] - got[:, :1] + got[0, 0]
        np.testing.assert_array_equal(boxes, cv2.integral(photo, sdepth=cv2.CV_32S))


@pytest.mark.parametrize("tall", [700, 5000])
def test_sums_on_the_device_are_those_of_opencv(tall):
    rng = np.random.default_rng(1)
    shapes = ((1, 1), (1, 900), (tall, 3), (300, 200), (37, 41))
    assert_sums_are_those_of_opencv([rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes])


def test_sums_on_the_device_may_pass_2_to_the_31(monkeypatch):
    """White photos before the last ones: flat, in a buffer that is just long enough, since more would take longer."""
    monkeypatch.setattr(sampling, "_DOUBLINGS", (3,))
    monkeypatch.setattr(sampling, "_BUFFER_SIZES", (10 * 2**20,))
    white = [np.full((7, 2**15 - 1, 3), 255, np.uint8)] * 37
    assert sum(photo[..., 0].sum(dtype=np.int64) for photo in white) > 2**31
    rng = np.random.default_rng(1)
    last = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((1, 1), (1, 900), (7, 410))]
    assert_sums_are_those_of_opencv(white + last)


def test_integral_images_are_exact_at_the_largest_photo():
    photo = np.full((2500, 3200, 3), 255, np.uint8)
    assert photo.shape[0] * photo.shape[1] == sampling.MAX_PIXELS
    assert cv2.integral(photo, sdepth=cv2.CV_32S)[-1, -1].tolist() == [255 * sampling.MAX_PIXELS] * 3


def test_scales_go_from_the_smallest_face_to_the_whole_photo():
    levels = pyramid.levels(np.array([[19, 500], [350, 500], [24, 20]]), 20.0, 0.709)
    assert set(levels["photo"]) == {1, 2}  # the first is smaller than the smallest face
    got = levels["scale"][levels["photo"] == 1]
    assert got[0] == 12 / 20
    np.testing.assert_allclose(got[1:] / got[:-1], 0.709)
    assert 350 * got[-1] >= 12 > 350 * got[-1] * 0.709
    first, last = levels[levels["photo"] == 1], levels[-1]
    np.testing.assert_array_equal(first["level"], np.arange(len(got)))
    np.testing.assert_array_equal(first["size"], [(int(350 * scale + 1), int(500 * scale + 1)) for scale in got])
    assert (last["level"], last["size"].tolist()) == (0, [15, 13])
    assert not len(pyramid.levels(np.zeros((0, 2), int), 20.0, 0.709))


def test_every_window_of_every_level_is_in_one_tile():
    seen = {}
    tiles, _ = pyramid.lay_out(pyramid.levels(SIZES, 20.0, 0.709))
    for tile in tiles:
        height, width = tile["level_size"]
        count = seen.setdefault((tile["photo"], tile["level"]), np.zeros((width - 1) // 2 - 4, int))
        start = tile["start"] // 2
        count[start : start + (tile["width"] - 1) // 2 - 4] += 1
        assert tile["start"] + tile["width"] <= width
        assert height >= pyramid.WINDOW
    assert {photo for photo, _ in seen} == {1, 2, 3, 4}
    assert all((count == 1).all() for count in seen.values())


# So many small levels that the tables need a larger capacity for tiles or shelves; and more tiles than 16 bits count.
@pytest.mark.parametrize(
    ("sizes", "min_face", "factor"),
    [
        (SIZES, 20.0, 0.709),
        (np.concatenate([np.full((1100, 2), 20), SIZES]), 20.0, 0.709),
        (np.full((600, 2), (30, 230)), 20.0, 0.709),
        (np.full((2400, 2), 16), 12.0, 0.99),
    ],
)
def test_windows_of_the_strip_are_those_of_the_levels(sizes, min_face, factor):
    photos = [np.zeros((*size, 3), np.uint8) for size in sizes]
    tiles = strip.Strip.of_photos(sampling.integral_buffer(photos, None), min_face, factor)
    of_strip = tiles.canvases * (pyramid.STEP // 2) * ((pyramid.WIDTH - pyramid.OVERLAP) // 2)
    y, x, tile, seen = tiles.windows(np.arange(of_strip))
    got = np.column_stack([tiles.tiles["photo"][tile], tiles.tiles["level"][tile], y, x])
    expected = [
        (level["photo"], level["level"], y, x)
        for level in pyramid.levels(sizes, min_face, factor)
        for y, x in np.ndindex(*((side - 1) // 2 - 4 for side in level["size"]))
    ]
    np.testing.assert_array_equal(got, expected)
    assert len(np.unique(seen)) == len(seen)


def test_canvases_show_the_levels():
    """Each pixel of each tile, and where the first convolution has whole windows."""
    rng = np.random.default_rng(2)
    sizes = [(20 + number % 7, 20 + number % 11) for number in range(400)] + [(150, 211), (33, 320)]
    photos = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    buffer = sampling.integral_buffer(photos, None)
    tiles = strip.Strip.of_photos(buffer, 20.0, 0.709)
    assert tiles.canvases > 1
    pixels, valid = map(np.asarray, strip.canvas_pixels(buffer.sums, tiles.tables, np.arange(tiles.canvases)))
    levels = {}
    for tile in tiles.tiles:
        photo, (height, width), start = tile["photo"], tile["level_size"], tile["start"]
        if (key := (photo, tile["level"])) not in levels:
            levels[key] = (area_resize(photos[photo], (height, width)) - 127.5) / 128
        top, left = tile["place"]
        for number in range(tiles.canvases):
            begin = number * pyramid.STEP
            first, stop = max(top, begin), min(top + height, begin + pyramid.HEIGHT)
            if first >= stop:
                continue
            part = np.s_[number, first - begin : stop - begin, left : left + tile["width"]]
            expected = levels[key][first - top : stop - top, start : start + tile["width"]]
            np.testing.assert_allclose(pixels[part], expected, atol=1e-5)
            rows, columns = np.arange(first - top, stop - top), np.arange(tile["width"])
            np.testing.assert_array_equal(valid[part], (rows < height - 2)[:, None] & (columns < tile["width"] - 2))


def test_tiles_do_not_overlap_and_fill_the_strip():
    tiles, height = pyramid.lay_out(pyramid.levels(np.concatenate([SIZES] * 3), 20.0, 0.709))
    used = np.zeros((height, pyramid.WIDTH), int)
    for tile in tiles:
        (y, x), rows, columns = tile["place"], tile["level_size"][0], tile["width"]
        assert y % 2 == x % 2 == tile["start"] % 2 == 0
        # The cells of 2x2 pixels are not shared either.
        part = used[y : y + rows + rows % 2, x : x + columns + columns % 2]
        assert part.shape == (rows + rows % 2, columns + columns % 2)
        part += 1
    assert used.max() == 1
    assert used.mean() > 0.9
    assert (np.diff(tiles["place"][:, 0]) >= 0).all()


def test_canvases_hold_every_window_of_the_strip():
    for height in range(2, 1100, 2):
        windows = max(0, (height - 1) // 2 - 4)
        count = pyramid.canvases(height)
        assert (count - 1) * pyramid.STEP // 2 < windows <= count * pyramid.STEP // 2 or count == windows == 0
    assert pyramid.STEP % 2 == 0
    assert pyramid.WIDTH // 2 % 2 == 1
