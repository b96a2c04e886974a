"""Augmentation: exact on known inputs, and the distribution of torchvision's RandomResizedCrop by its definition."""

import numpy as np
import pytest

from facejax.data.transforms import RandomHorizontalFlip, RandomResizedCrop, Resize


def test_flip():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    rng = np.random.default_rng(0)
    assert (RandomHorizontalFlip(1.0)(image, rng) == image[:, ::-1]).all()
    assert (RandomHorizontalFlip(0.0)(image, rng) == image).all()
    flipped = [(RandomHorizontalFlip()(image, rng) != image).any() for _ in range(1000)]
    assert 420 < sum(flipped) < 580


def test_parts_follow_torchvision_s_definition():
    crop, rng = RandomResizedCrop(224), np.random.default_rng(1)
    parts = np.array([crop.part(256, 256, rng) for _ in range(4000)])
    top, left, height, width = parts.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 256).all()
    assert (left + width <= 256).all()
    area, ratio = height * width / 256**2, width / height
    assert 0.078 < area.min() < 0.09
    assert area.max() > 0.95
    assert 0.74 < ratio.min() < 0.77
    assert 1.30 < ratio.max() < 1.35
    # Ratios are log-uniform: r is as likely as 1 / r, for areas that always fit.
    assert np.log(ratio[area < 0.7]).mean() == pytest.approx(0, abs=0.012)
    # A draw is rejected if a side exceeds the photo: with area s and ratio r this is s max(r, 1/r) > 1. So the
    # accepted area has mean E[s; s <= 1/m] / P(s <= 1/m), m = exp|u|, u uniform in +-log(4/3); integrated on a grid.
    u = (np.arange(2000) + 0.5) / 2000 * np.log(4 / 3)
    limit = np.minimum(np.exp(-u), 1)
    mean = ((limit**2 - 0.08**2) / 2).mean() / (limit - 0.08).mean()
    assert area.mean() == pytest.approx(mean, abs=0.015)
    # Positions are uniform over the free range.
    free = height < 200
    assert (top[free] / (256 - height[free])).mean() == pytest.approx(0.5, abs=0.03)


def test_an_aspect_ratio_is_that_of_width_to_height():
    crop, rng = RandomResizedCrop(32, scale=(0.1, 0.3), ratio=(2.0, 2.0)), np.random.default_rng(0)
    height, width = np.array([crop.part(400, 400, rng)[2:] for _ in range(50)]).T
    assert np.abs(width - 2 * height).max() <= 2  # rounded to whole pixels


def test_parts_may_touch_every_edge():
    crop, rng = RandomResizedCrop(32, scale=(0.25, 0.25), ratio=(1.0, 1.0)), np.random.default_rng(0)
    places = {crop.part(4, 4, rng) for _ in range(300)}
    assert places == {(top, left, 2, 2) for top in range(3) for left in range(3)}


@pytest.mark.parametrize(("size", "part"), [((100, 1000), (0, 433, 100, 133)), ((1000, 100), (433, 0, 133, 100))])
def test_fallback_is_the_centre(size, part):
    crop = RandomResizedCrop(32, scale=(1.0, 1.0))
    assert crop.part(*size, np.random.default_rng(0)) == part


def test_pixels_are_the_part_s():
    y, x = np.mgrid[:50, :60]
    image = np.stack([4 * x, 5 * y, 0 * x], axis=2).astype(np.uint8)
    crop = RandomResizedCrop(16)
    top, left, height, width = crop.part(50, 60, np.random.default_rng(3))
    out = crop(image, np.random.default_rng(3))
    assert out.shape == (16, 16, 3)
    assert min(height, width) > 16  # so that no pixel of the result lies beyond the centre of an edge pixel
    columns, rows = (np.arange(16) + 0.5) * width / 16 - 0.5 + left, (np.arange(16) + 0.5) * height / 16 - 0.5 + top
    np.testing.assert_allclose(out[..., 0], np.tile(4 * columns, (16, 1)), atol=0.6)  # a linear ramp stays linear
    np.testing.assert_allclose(out[..., 1], np.tile(5 * rows[:, None], (1, 16)), atol=0.6)


def test_resize():
    image = np.full((10, 20, 3), 7, np.uint8)
    assert Resize(12)(image, np.random.default_rng(0)).shape == (12, 12, 3)


@pytest.mark.parametrize("transform", [Resize(4), RandomResizedCrop(4, scale=(1.0, 1.0), ratio=(1.0, 1.0))])
def test_sizes_are_changed_by_the_two_nearest_pixels(transform):
    rng, edge, stripes = np.random.default_rng(0), np.zeros((2, 2, 3), np.uint8), np.zeros((12, 12, 3), np.uint8)
    edge[:, 1] = 200
    assert transform(edge, rng)[:, :, 0].tolist() == [[0, 50, 150, 200]] * 4
    stripes[:, ::3] = 150  # the pixel in the middle of each three is black
    assert not transform(stripes, rng).any()
