import numpy as np
import pytest
from skimage import transform

from facejax.detect import align_eyes, centre_crop, crop_face, make_cropper, warp_five_points
from facejax.detect.align import _TEMPLATE


def spots(points, height=160, width=200, radius=4.0):
    """A dark picture with a bright round spot at each point, whose centre of mass is the point."""
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for px, py in points:
        image += 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2))
    return np.repeat(image.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def centre_of_mass(image, near, reach=14):
    x0, y0 = (round(v) for v in near)
    y, x = np.mgrid[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1]
    weight = image[y, x, 0].astype(float)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize(
    ("left", "right"), [((60.3, 70.2), (132.6, 95.9)), ((64.0, 98.4), (130.5, 61.1)), ((70.0, 50.0), (120.0, 100.0))]
)
def test_eyes_are_level_to_a_fraction_of_a_pixel(left, right):
    left, right = np.array(left), np.array(right)
    rotated = align_eyes(spots([left, right]), left, right)
    assert rotated.shape == (160, 200, 3)
    # Closed form: the rotation by the eyes' angle about the centre of the pixel grid.
    centre, (dx, dy) = np.array([99.5, 79.5]), right - left
    cos, sin = dx / np.hypot(dx, dy), dy / np.hypot(dx, dy)
    expected = [np.array([[cos, sin], [-sin, cos]]) @ (point - centre) + centre for point in (left, right)]
    assert abs(expected[0][1] - expected[1][1]) < 1e-9
    for point in expected:
        assert np.abs(centre_of_mass(rotated, point) - point).max() < 0.1


def test_level_eyes_change_nothing_and_half_a_turn_flips():
    image = np.random.default_rng(0).integers(0, 256, (31, 40, 3), dtype=np.uint8)
    left, right = np.array([10.0, 12.0]), np.array([30.0, 12.0])
    np.testing.assert_array_equal(align_eyes(image, left, right), image)
    turned = align_eyes(image, right, left).astype(int)
    assert np.abs(turned - image[::-1, ::-1])[1:-1, 1:-1].max() <= 1


def test_pixels_between_pixels_are_interpolated_linearly():
    image = np.random.default_rng(4).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    got = align_eyes(image, np.array([20.0, 20.0]), np.array([50.0, 32.0]))
    about, turn = np.array([39.5, 29.5]), transform.SimilarityTransform(rotation=np.arctan2(12, 30))
    there, back = (transform.SimilarityTransform(translation=sign * about) for sign in (-1, 1))
    oracle = transform.warp(image / 255.0, there + turn + back, order=1) * 255
    assert np.abs(got - oracle)[2:-2, 2:-2].mean() < 0.5  # OpenCV interpolates in steps of 1/32 pixel


def test_rotation_has_black_corners():
    image = np.full((100, 100, 3), 200, np.uint8)
    rotated = align_eyes(image, np.array([30.0, 30.0]), np.array([60.0, 60.0]))
    assert (rotated[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    assert (rotated[40:60, 40:60] == 200).all()


def test_crop_is_the_box_without_margin():
    image = np.random.default_rng(1).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_face(image, np.array([10.7, 20.2, 50.9, 90.5])), image[20:90, 10:50])
    np.testing.assert_array_equal(crop_face(image, np.array([-15.0, -3.0, 40.0, 500.0])), image[:, :40])
    # 40 % of 20 x 30 pixels on every side.
    np.testing.assert_array_equal(crop_face(image, np.array([50, 40, 70, 70.0]), margin=0.4), image[28:82, 42:78])


def test_crop_outside_the_photo_is_refused():
    image = np.zeros((100, 120, 3), np.uint8)
    for bbox in ([130.0, 10, 150, 40], [10.2, 10, 10.9, 40], [40.0, 10, 30, 40]):
        with pytest.raises(ValueError, match="120x100"):
            crop_face(image, np.array(bbox))


def test_crop_is_aligned_in_its_own_coordinates():
    eyes = np.array([[80.0, 60.0], [110.0, 72.0]])
    landmarks = np.concatenate([eyes, np.zeros((3, 2))])
    image = spots(eyes, radius=2.5)
    bbox = np.array([60.0, 35.0, 135.0, 115.0])
    crop = crop_face(image, bbox, landmarks)
    corner = bbox[:2]
    np.testing.assert_array_equal(crop, align_eyes(image[35:115, 60:135], eyes[0] - corner, eyes[1] - corner))
    rows = np.flatnonzero(crop.max((1, 2)) > 100)
    assert np.ptp(rows) <= 8
    np.testing.assert_array_equal(crop_face(image, bbox, landmarks, align=False), image[35:115, 60:135])


def test_centre_crop_takes_the_middle():
    image = np.random.default_rng(2).integers(0, 256, (250, 250, 3), dtype=np.uint8)
    np.testing.assert_array_equal(centre_crop(image), image[61:189, 61:189])


def test_a_large_photo_is_averaged_and_a_small_one_interpolated():
    stripes = np.zeros((750, 750, 3), np.uint8)
    stripes[:, ::3] = 150  # the middle pixel of every three, which a kernel of size two would use, is black
    assert (centre_crop(stripes) == 50).all()
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 50, axis=0).repeat(3, axis=2)
    # Pixel i of the photo enlarged five times is at (i + 0.5) / 5 - 0.5 of the small one, whose value there is 5 x.
    np.testing.assert_allclose(centre_crop(ramp)[:, :, 0], np.tile(np.arange(61, 189) - 2.0, (128, 1)), atol=0.51)


def test_five_point_warp_equals_scikit_image():
    rng = np.random.default_rng(3)
    angle, scale = 0.4, 0.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = _TEMPLATE @ turn.T + [70, 30] + rng.normal(0, 2, (5, 2))
    image = spots(landmarks, radius=2.0)
    expected = transform.SimilarityTransform.from_estimate(landmarks, _TEMPLATE * 2)
    oracle = transform.warp(image / 255.0, expected.inverse, output_shape=(224, 224), order=1) * 255
    got = warp_five_points(image, landmarks)
    assert got.shape == (224, 224, 3)
    assert np.abs(got - oracle).max() < 6  # OpenCV interpolates in steps of 1/32 pixel
    assert np.abs(got - oracle).mean() < 0.2


def test_the_template_is_the_published_one():
    """SphereFace's for 96 x 112 pixels, in the middle of 112 x 112, as insightface has it."""
    sphereface = [30.2946, 51.6963, 65.5318, 51.5014, 48.0252, 71.7366, 33.5493, 92.3655, 62.7299, 92.2041]
    np.testing.assert_allclose(_TEMPLATE - np.array([8, 0]), np.reshape(sphereface, (5, 2)), atol=1e-9)


def test_cuts_by_their_names():
    image = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    bbox, landmarks = np.array([20.0, 10, 100, 110]), np.array([[40.0, 40], [75, 50], [60, 65], [45, 80], [70, 85]])
    np.testing.assert_array_equal(make_cropper("box")(image, bbox, landmarks), image[10:110, 20:100])
    np.testing.assert_array_equal(make_cropper("eyes")(image, bbox, landmarks), crop_face(image, bbox, landmarks))
    np.testing.assert_array_equal(
        make_cropper("five_points")(image, bbox, landmarks), warp_five_points(image, landmarks)
    )
    with pytest.raises(ValueError, match=r"'eye'; did you mean 'eyes'\? There are: box, eyes, five_points"):
        make_cropper("eye")


def test_five_points_on_one_spot_are_refused():
    with pytest.raises(ValueError, match="five different landmarks"):
        warp_five_points(np.zeros((50, 50, 3), np.uint8), np.ones((5, 2)))
