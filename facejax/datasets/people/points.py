"""Landmarks and face box of a person in a photo, from the few vertices that they need, without rendering."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from facejax.datasets.people.assets import displace, load_pack
from facejax.datasets.people.camera import Camera, Framing, framing, place, project
from facejax.datasets.people.expression import Expression
from facejax.datasets.people.identity import Identity, shape_weights

LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")  # MTCNN's order, as seen in the image
CONTOUR_STRIDE = 7  # every n-th vertex of the face's front is enough for its box


@dataclasses.dataclass(frozen=True, eq=False)
class FacePoints:
    """The labelled points of one person's head at rest.

    Attributes:
        rest: Positions, in the order of the reduced head.
        frame: Where the face is.
    """

    rest: Float[np.ndarray, "points 3"]
    frame: Framing

    def in_photo(
        self, expression: Expression, camera: Camera
    ) -> tuple[Float[np.ndarray, "5 2"], tuple[float, float, float, float]]:
        """Landmarks and box of the face in the photo, pixels.

        Returns:
            Eyes, nose tip and mouth corners in MTCNN's order; and the box [x1, y1, x2, y2] from hairline to chin and
            cheek to cheek. Rounded, so that they compare equal where libraries differ in the last bit.
        """
        parts = _index()[1]
        xy = self._project(expression, camera)
        landmarks = np.stack([xy[parts[name]].mean(0) for name in LANDMARKS]).round(2)
        contour = xy[parts["contour"]]
        (x1, y1), (x2, y2) = contour.min(0).tolist(), contour.max(0).tolist()
        return landmarks, (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2))

    def _project(self, expression: Expression, camera: Camera) -> np.ndarray:
        template, targets = _cut()
        points = displace(self.rest, targets, load_pack().target_index, expression.targets())
        return project(place(points, template[:, 1], self.frame, camera), self.frame, camera)


@functools.cache
def _index() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    pack = load_pack()
    wanted = {**pack.key_vertices, "contour": pack.contour[::CONTOUR_STRIDE]}
    kept = np.unique(np.concatenate(list(wanted.values())))
    return kept, {name: np.searchsorted(kept, vertices) for name, vertices in wanted.items()}


@functools.cache
def _cut() -> tuple[np.ndarray, np.ndarray]:
    """Template positions and targets of the points alone."""
    pack, kept = load_pack(), _index()[0]
    return pack.vertices[kept], np.ascontiguousarray(pack.targets[:, kept])


@functools.lru_cache(maxsize=8)
def face_points(identity: Identity) -> FacePoints:
    """The labelled points of a person."""
    template, targets = _cut()
    rest = displace(template, targets, load_pack().target_index, shape_weights(identity))
    return FacePoints(rest, framing({name: rest[_index()[1][name]] for name in load_pack().key_vertices}))
