"""The template head of all people: mesh, shape targets and the tables derived from them.

The mesh faces +z, y is up, x grows towards the person's left (the right side of a frontal photo); one unit
is one decimetre. Skin is painted in a *chart*: the frontal view of the template, so that the chart position of a
surface point is simply its template x and y, whatever the person or expression.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, UInt8

PACK = pathlib.Path(__file__).parent / "pack.npz"
CHART_SCALE = 144  # chart pixels per unit
CHART_LEFT, CHART_TOP = -1.0, 8.6
CHART_SHAPE = (404, 288)  # rows, columns

MOUTH_CORNERS = ((-0.245, 6.612, 1.415), (0.245, 6.612, 1.415))  # the person's right, left

# Material of a triangle; the inside of the mouth is part of the body mesh but painted separately.
MATERIALS = ("skin", "left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue", "lashes", "mouth")


def chart_xy(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in the chart of template positions."""
    return (x - CHART_LEFT) * CHART_SCALE, (CHART_TOP - y) * CHART_SCALE


def displace(
    start: Float[np.ndarray, "points 3"],
    targets: Float[np.ndarray, "targets points 3"],
    target_index: Mapping[str, int],
    weights: Mapping[str, float],
) -> Float[np.ndarray, "points 3"]:
    """`start` displaced by weighted targets, summed in sorted order so that rounding is the same on every machine.

    Raises:
        KeyError: A target is unknown.
    """
    shape = start.copy()
    for name in sorted(weights):
        if abs(weights[name]) > 1e-4:
            shape += np.float32(weights[name]) * targets[target_index[name]]
    return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Pack:
    """The template head and its shape targets.

    Attributes:
        vertices: Template positions.
        triangles: Corner indices, counter-clockwise seen from outside.
        material: Index in `MATERIALS` of each triangle.
        targets: Displacement of every vertex for each shape target.
        target_index: Row of `targets` by name.
        openness: Share of the surroundings visible from each vertex of the template, 0 to 1.
        bent_normal: Mean unoccluded direction of each vertex, shortened by occlusion.
        lips: Lip mask in the chart, 0 to 255.
        provenance: Where the data come from and under which licence.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    triangles: Int[np.ndarray, "triangles 3"]
    material: UInt8[np.ndarray, " triangles"]
    targets: Float[np.ndarray, "targets vertices 3"]
    target_index: Mapping[str, int]
    openness: Float[np.ndarray, " vertices"]
    bent_normal: Float[np.ndarray, "vertices 3"]
    lips: UInt8[np.ndarray, "rows columns"]
    provenance: Mapping[str, str]

    def morph(
        self, start: Float[np.ndarray, "vertices 3"], weights: Mapping[str, float]
    ) -> Float[np.ndarray, "vertices 3"]:
        """`start` displaced by weighted targets; see `displace`."""
        return displace(start, self.targets, self.target_index, weights)

    @functools.cached_property
    def skin(self) -> np.ndarray:
        """Mask of the vertices of the body's outer surface."""
        mask = np.zeros(len(self.vertices), bool)
        mask[self.triangles[self.material == 0]] = True
        return mask

    @functools.cached_property
    def eye_vertices(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices of the person's left and right eyeball."""
        left, right = (np.unique(self.triangles[self.material == m]) for m in (1, 2))
        return left, right

    @functools.cached_property
    def eye_centers(self) -> Float[np.ndarray, "2 3"]:
        """Middle of the template's left and right eyeball."""
        boxes = (self.vertices[eye] for eye in self.eye_vertices)
        return np.stack([(box.min(0) + box.max(0)) / 2 for box in boxes])

    @functools.cached_property
    def key_vertices(self) -> Mapping[str, np.ndarray]:
        """Vertices by which faces are framed and labelled; each name's position is the mean of its vertices.

        ``right_*`` is the person's right: the left one in the image, which MTCNN lists first.
        """
        x, y, z = self.vertices.T
        middle = np.flatnonzero(self.skin & (np.abs(x) < 0.02) & (z > 0.9))
        nose = middle[(y[middle] > 6.8) & (y[middle] < 7.1)]
        left_eye, right_eye = self.eye_vertices
        outer = [np.flatnonzero(self.skin & (np.abs(self.vertices - at) < 0.035).all(1)) for at in MOUTH_CORNERS]
        return {
            "right_eye": right_eye,
            "left_eye": left_eye,
            "nose": nose[z[nose].argsort()[-2:]],
            "right_mouth": outer[0],
            "left_mouth": outer[1],
            "chin": middle[(np.abs(y[middle] - 6.25) < 0.06) & (z[middle] > 1.3)],
            "forehead": middle[np.abs(y[middle] - 7.85) < 0.08],
        }

    @functools.cached_property
    def contour(self) -> np.ndarray:
        """Vertices whose projected bounding box is the face as MTCNN crops it: hairline to chin, cheek to cheek."""
        x, y, z = self.vertices.T
        return np.flatnonzero(self.skin & (z > 0.62) & (y > 6.22) & (y < 8.06) & (np.abs(x) < 0.72))

    @functools.cached_property
    def corners(self) -> Int[np.ndarray, "3 triangles"]:
        """The first, second and third corners of all triangles, each contiguous in memory."""
        return np.ascontiguousarray(self.triangles.T, np.intp)

    @functools.cached_property
    def _triangles_around(self) -> scipy.sparse.csr_array:
        """Vertices x triangles: 1 where the triangle has the vertex."""
        count = len(self.triangles)
        ones, triangle = np.ones(3 * count, np.float32), np.tile(np.arange(count), 3)
        return scipy.sparse.csr_array((ones, (self.corners.ravel(), triangle)), (len(self.vertices), count))

    def normals(self, vertices: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
        """Outward unit normals, weighted by the area of the triangles around each vertex."""
        a, b, c = (np.ascontiguousarray(vertices.T)[:, corner] for corner in self.corners)
        (ux, uy, uz), (vx, vy, vz) = b - a, c - a
        face = np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], 1)
        normal = self._triangles_around @ face
        x, y, z = normal.T
        return normal / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-9))[:, None]

    @functools.cached_property
    def _neighbours(self) -> scipy.sparse.csr_array:
        """Vertices x vertices: 1 where they share an edge."""
        edges = np.concatenate([self.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
        count = len(self.vertices)
        return scipy.sparse.csr_array((np.ones(len(edges), np.float32), (edges[:, 0], edges[:, 1])), (count, count))

    def neighbour_mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over the vertices that share an edge, for each vertex (first axis)."""
        count = np.diff(self._neighbours.indptr).astype(np.float32)
        return (self._neighbours @ values) / count.reshape(-1, *[1] * (values.ndim - 1))


@functools.cache
def load_pack() -> Pack:
    """The pack shipped with the package, read once per process.

    Raises:
        FileNotFoundError: It is missing; the message says which tool builds it.
    """
    if not PACK.exists():
        raise FileNotFoundError(
            f"{PACK} is missing: reinstall facejax, or build it with `python tools/build_people_pack.py`"
        )
    with np.load(PACK, allow_pickle=False) as data:
        arrays = dict(data)
    return Pack(
        vertices=arrays["vertices"],
        triangles=arrays["triangles"].astype(np.int32),
        material=arrays["material"],
        targets=arrays["targets"].astype(np.float32),
        target_index={str(name): row for row, name in enumerate(arrays["target_names"])},
        openness=arrays["openness"].astype(np.float32) / 255,
        bent_normal=arrays["bent_normal"].astype(np.float32) / 127,
        lips=arrays["lips"],
        provenance=json.loads(str(arrays["provenance"])),
    )
