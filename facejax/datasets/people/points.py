"""Landmarks and face box of a person in a photo, from the few vertices that they need: no rendering."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from facejax.datasets.people.assets import displace, load_pack
from facejax.datasets.people.camera import Camera, Framing, framing, place, project
from facejax.datasets.people.expression import Expression
from facejax.datasets.people.identity import Identity, shape_weights

LANDMARKS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")  # MTCNN's order, as seen in the image
CONTOUR_STRIDE = 7  # every so many vertices of the face's front are enough for its box


@dataclasses.dataclass(frozen=True, eq=False)
class FacePoints:
    """The labelled points of one person's head at rest.

    Attributes:
        rest: Positions, in the order of the cut-down head.
        frame: Where the face is.
    """

    rest: Float[np.ndarray, "points 3"]
    frame: Framing

    def landmarks(self, expression: Expression, camera: Camera) -> Float[np.ndarray, "5 2"]:
        """Eyes, nose tip and mouth corners in the photo, pixels, in MTCNN's order."""
        xy = self._project(expression, camera)
        return np.stack([xy[_parts()[name]].mean(0) for name in LANDMARKS])

    def box(self, expression: Expression, camera: Camera) -> tuple[float, float, float, float]:
        """Box [x1, y1, x2, y2] in the photo, pixels: hairline to chin, cheek to cheek."""
        xy = self._project(expression, camera)[_parts()["contour"]]
        (x1, y1), (x2, y2) = xy.min(0).tolist(), xy.max(0).tolist()
        return x1, y1, x2, y2

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


def _parts() -> dict[str, np.ndarray]:
    return _index()[1]


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
    return FacePoints(rest, framing({name: rest[_parts()[name]] for name in load_pack().key_vertices}))
