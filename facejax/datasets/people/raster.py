"""Which triangle each pixel sees: a z-buffer rasteriser in NumPy, with a cost by covered pixels, not by boxes."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

# Shared edges are widened by this much (pixels) so that rounding leaves no crack between neighbours.
EDGE_SLACK = 1e-3


class Fragments(NamedTuple):
    """The visible surface, one entry per covered pixel.

    Attributes:
        pixel: Flat index ``row * width + column``, ascending.
        triangle: Row of the triangle array that is visible there.
        weights: Barycentric weights of its three corners at the pixel's centre; they sum to one.
        depth: Interpolated depth, larger is nearer.
    """

    pixel: Int[np.ndarray, " pixels"]
    triangle: Int[np.ndarray, " pixels"]
    weights: Float[np.ndarray, "pixels 3"]
    depth: Float[np.ndarray, " pixels"]

    def interpolate(
        self, values: Float[np.ndarray, "vertices channels"], triangles: Int[np.ndarray, "triangles 3"]
    ) -> Float[np.ndarray, "pixels channels"]:
        """Interpolates `values` of the vertices at each visible pixel; channels are contiguous in memory."""
        count = len(self.pixel)
        corners = np.take(triangles, self.triangle, axis=0).astype(np.int32, copy=False).ravel()
        starts = np.arange(0, 3 * count + 1, 3, dtype=np.int32)
        mix = scipy.sparse.csr_array((self.weights.ravel(), corners, starts), (count, len(values)))
        return np.asfortranarray(mix @ np.ascontiguousarray(values, np.float32))


def rasterize(
    xy: Float[np.ndarray, "vertices 2"],
    depth: Float[np.ndarray, " vertices"],
    triangles: Int[np.ndarray, "triangles 3"],
    height: int,
    width: int,
) -> Fragments:
    """Visible triangle and barycentric weights of every covered pixel.

    Each triangle is cut into pixel rows and each row into its exact span, so only covered pixels are generated.
    Weights and depth are affine in the image (no perspective correction: head triangles are too small to show it).

    Args:
        xy: Corners in pixels; the centre of the top left pixel is (0.5, 0.5).
        depth: Depth of the corners, larger is nearer.
        triangles: Corner indices; clockwise as seen in the image (y down) is the back and is culled.
        height: Rows of the image.
        width: Columns of the image.
    """
    x, y = (np.ascontiguousarray(axis, np.float32) for axis in xy.T)
    depth = depth.astype(np.float32)
    # Indices have the platform's native width: NumPy would convert others at every use.
    a, b, c = np.ascontiguousarray(triangles.T, np.intp)
    area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
    first = np.ceil(np.minimum(np.minimum(y[a], y[b]), y[c]) - 0.5 - EDGE_SLACK).clip(0, height).astype(np.int32)
    last = np.floor(np.maximum(np.maximum(y[a], y[b]), y[c]) - 0.5 + EDGE_SLACK).clip(-1, height - 1).astype(np.int32)
    seen = np.flatnonzero((area < -1e-6) & (last >= first))
    area, first, last = area[seen], first[seen], last[seen]
    a, b, c = a[seen], b[seen], c[seen]

    # The weights of corners b and c are affine: slope_x * (x - ax) + slope_y * (y - ay).
    slopes_x = (y[c] - y[a]) / area, (y[a] - y[b]) / area
    slopes_y = (x[a] - x[c]) / area, (x[b] - x[a]) / area
    rows_each = last - first + 1
    owner = np.repeat(np.arange(len(seen)), rows_each)
    row = np.arange(len(owner), dtype=np.int32) + (first - np.cumsum(rows_each) + rows_each).astype(np.int32)[owner]
    down = row.astype(np.float32) + np.float32(0.5) - y[a][owner]
    sx_b, sx_c = slopes_x[0][owner], slopes_x[1][owner]
    weight_b, weight_c = slopes_y[0][owner] * down, slopes_y[1][owner] * down
    origin = x[a][owner]

    left = np.full(len(owner), -np.inf, np.float32)
    right = np.full(len(owner), np.inf, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        for weight, slope in ((weight_b, sx_b), (weight_c, sx_c), (1 - weight_b - weight_c, -sx_b - sx_c)):
            root = origin - weight / slope
            np.maximum(left, np.where(slope > 0, root, -np.inf), out=left)  # `where=` of a ufunc is slower
            np.minimum(right, np.where(slope < 0, root, np.inf), out=right)
            right[(slope == 0) & (weight < 0)] = -np.inf
    start = np.ceil(left - 0.5 - EDGE_SLACK).clip(0, width).astype(np.int32)
    stop = np.floor(right - 0.5 + EDGE_SLACK).clip(-1, width - 1).astype(np.int32)
    span = np.maximum(stop - start + 1, 0)

    line = np.repeat(np.arange(len(owner)), span)
    step = np.arange(len(line), dtype=np.int32) - (np.cumsum(span) - span).astype(np.int32)[line]
    pixel = (row * width + start)[line] + step
    right_of_start = step.astype(np.float32)
    offset = start.astype(np.float32) + np.float32(0.5) - origin
    weight_b += sx_b * offset
    weight_c += sx_c * offset
    to_b, to_c = (depth[b] - depth[a])[owner], (depth[c] - depth[a])[owner]
    depth_start = depth[a][owner] + weight_b * to_b + weight_c * to_c
    fragment_depth = depth_start[line] + (sx_b * to_b + sx_c * to_c)[line] * right_of_start

    nearest = np.full(height * width, -np.inf, np.float32)
    np.maximum.at(nearest, pixel, fragment_depth)
    winner = np.full(height * width, -1)
    front = np.flatnonzero(fragment_depth >= nearest[pixel])
    winner[pixel[front]] = front
    covered = np.flatnonzero(winner >= 0)
    chosen = winner[covered]
    line, step = line[chosen], right_of_start[chosen]
    weights = np.empty((3, len(covered)), np.float32)  # one corner at a time: long rows are fast
    weights[1] = weight_b[line] + sx_b[line] * step
    weights[2] = weight_c[line] + sx_c[line] * step
    weights[0] = 1 - weights[1] - weights[2]
    return Fragments(covered, seen[owner[line]], weights.T, fragment_depth[chosen])
