"""The rasteriser against brute force: every pixel centre against every triangle."""

import numpy as np
import pytest

from facejax.datasets.people.raster import rasterize


def brute_force(xy, depth, triangles, height, width):
    """Nearest front-facing triangle of each pixel (-1: none), its weights, and how close an edge was."""
    best = np.full((height, width), -1)
    nearest = np.full((height, width), -np.inf)
    weights = np.zeros((height, width, 3))
    margin = np.full((height, width), np.inf)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    for number, corners in enumerate(triangles):
        (ax, ay), (bx, by), (cx, cy) = xy[corners].astype(np.float64)
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:
            continue
        b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
        c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
        at = np.stack([1 - b - c, b, c], -1)
        z = at @ depth[corners]
        inside = at.min(-1) >= 0
        margin = np.minimum(margin, np.abs(at).min(-1))
        margin = np.where(inside & (np.abs(z - nearest) < 1e-3), 0, margin)
        front = inside & (z > nearest)
        best[front], nearest[front], weights[front] = number, z[front], at[front]
    return best, nearest, weights, margin


@pytest.mark.parametrize("seed", range(4))
def test_random_triangles_match_brute_force(seed):
    rng = np.random.default_rng(seed)
    height, width = 37, 29
    xy = rng.uniform(-8, 40, (60, 2)).astype(np.float32)  # many reach beyond the image
    depth = rng.uniform(-1, 1, 60).astype(np.float32)
    triangles = rng.integers(0, 60, (80, 3))
    best, nearest, weights, margin = brute_force(xy, depth, triangles, height, width)
    got = rasterize(xy, depth, triangles, height, width)
    seen = np.full(height * width, -1)
    seen[got.pixel] = got.triangle
    clear = margin.ravel() > 1e-3  # neither on an edge nor a tie
    assert clear.mean() > 0.8
    assert (seen[clear] == best.ravel()[clear]).all()
    both = clear[got.pixel]
    np.testing.assert_allclose(got.weights[both], weights.reshape(-1, 3)[got.pixel][both], atol=1e-3)
    np.testing.assert_allclose(got.depth[both], nearest.ravel()[got.pixel][both], atol=1e-3)


def test_neighbours_leave_no_crack():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-3, 53, 12), np.linspace(-3, 53, 12)), -1).reshape(-1, 2)
    xy = (grid + rng.normal(0, 0.6, grid.shape)).astype(np.float32)
    corner = np.arange(11)[:, None] * 12 + np.arange(11)
    a, b, c, d = (corner.ravel() + offset for offset in (0, 1, 12, 13))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    got = rasterize(xy, np.zeros(len(xy), np.float32), triangles, 50, 50)
    assert len(got.pixel) == 50 * 50
    assert len(np.unique(got.pixel)) == 50 * 50


def test_backs_and_slivers_are_not_seen():
    xy = np.array([[2, 2], [2, 12], [12, 2], [2, 2.0001]], np.float32)
    front, back, sliver = [0, 1, 2], [0, 2, 1], [0, 3, 2]
    depth = np.zeros(4, np.float32)
    assert len(rasterize(xy, depth, np.array([front]), 16, 16).pixel) > 30
    assert len(rasterize(xy, depth, np.array([back]), 16, 16).pixel) == 0
    assert len(rasterize(xy, depth, np.array([sliver]), 16, 16).pixel) == 0
