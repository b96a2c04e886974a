"""The camera: pose of the head and perspective."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

PIVOT = np.array([0.0, 6.1, 0.35], np.float32)  # the head turns about the top of the neck
NECK = (5.35, 6.05)  # template heights between which the turn of the head fades into that of the shoulders


@dataclasses.dataclass(frozen=True)
class Camera:
    """Pose of a head in a photo.

    Attributes:
        yaw: Turn to the image's right, radians.
        pitch: Nod down, radians.
        roll: Tilt, anticlockwise as seen, radians.
        size: Height from forehead to chin of a frontal face, pixels.
        center: Image position of the face's middle, pixels.
        distance: Distance of the camera, in face heights; small values give a strong perspective.
        body_yaw: Turn of the shoulders, radians.
    """

    yaw: float
    pitch: float
    roll: float
    size: float
    center: tuple[float, float]
    distance: float = 6.0
    body_yaw: float = 0.0

    @property
    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """Rotation matrix of the head, for column vectors."""
        return _rotation(self.yaw, self.pitch, self.roll)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (about_z @ about_x @ about_y).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Framing:
    """What a camera needs to know about a head at rest: where its face is and how tall."""

    middle: Float[np.ndarray, "3"]
    height: float


def framing(rest: Mapping[str, Float[np.ndarray, "points 3"]]) -> Framing:
    """Framing from the key points of a head without expression (`Pack.key_vertices`)."""
    at = {name: points.mean(0) for name, points in rest.items()}
    eyes = (at["left_eye"] + at["right_eye"]) / 2
    height = float(at["forehead"][1] - at["chin"][1])
    middle = np.array([0.0, (at["forehead"][1] + at["chin"][1]) / 2, eyes[2] - 0.2 * height], np.float32)
    return Framing(middle, height)


def place(
    vertices: Float[np.ndarray, "points 3"],
    template_height: Float[np.ndarray, " points"],
    frame: Framing,
    camera: Camera,
) -> Float[np.ndarray, "points 3"]:
    """Points of the head in the camera's axes (x right, y up, z towards it), relative to the middle of the face.

    Args:
        vertices: Positions in the person's own axes.
        template_height: Template y of the same points; tells the head from the shoulders.
        frame: Framing of the head at rest, so that an opening jaw does not shift the photo.
        camera: The pose.
    """
    middle = turn(frame.middle[None], np.array([7.0], np.float32), camera)
    return turn(vertices, template_height, camera) - middle


def project(placed: Float[np.ndarray, "points 3"], frame: Framing, camera: Camera) -> Float[np.ndarray, "points 2"]:
    """Image position, pixels, of points in the camera's axes (`place`)."""
    away = camera.distance * frame.height
    scale = camera.size / frame.height * away / (away - placed[:, 2])
    return np.stack([camera.center[0] + scale * placed[:, 0], camera.center[1] - scale * placed[:, 1]], 1)


def turn(vertices: np.ndarray, template_height: np.ndarray, camera: Camera, *, pivot: bool = True) -> np.ndarray:
    """Turns points (or, without pivot, directions) with the head, the less the nearer they are to the shoulders."""
    origin = PIVOT if pivot else np.zeros(3, np.float32)
    share = np.clip((template_height - NECK[0]) / (NECK[1] - NECK[0]), 0, 1).astype(np.float32)
    share = share * share * (3 - 2 * share)
    rest = 1 - share
    # One axis at a time: long rows are fast. Not with @: BLAS rounding may depend on the number of threads.
    x, y, z = np.ascontiguousarray(vertices.T) - origin[:, None]
    turned = np.empty((3, len(x)), np.float32)
    shoulders = _rotation(camera.body_yaw, camera.pitch * 0.15, camera.roll * 0.2)
    for axis, (head, body) in enumerate(zip(camera.rotation, shoulders, strict=True)):
        of_head = x * head[0] + y * head[1] + z * head[2]
        of_body = x * body[0] + y * body[1] + z * body[2]
        turned[axis] = of_head * share + of_body * rest + origin[axis]
    return turned.T
