"""Draws faces on a photo."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from facejax.inference.results import Face

# RGB; consecutive track numbers get different colours.
COLOURS = ((0, 200, 120), (255, 170, 0), (60, 150, 255), (240, 90, 140), (170, 120, 255), (0, 200, 220), (200, 200, 60))
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_faces(
    image: UInt8[np.ndarray, "height width 3"], faces: Sequence["Face"]
) -> UInt8[np.ndarray, "height width 3"]:
    """A copy of an RGB photo with boxes, landmarks and captions; lines and text scale with the photo."""
    canvas = image.copy()
    unit = max(max(image.shape[:2]) / 1000, 0.4)
    thickness = max(1, round(2 * unit))
    # Captions avoid the middles of faces and other captions where possible.
    taken = [_middle(_within(face.box, image.shape)) for face in faces]
    # The largest face last, so that its box and caption are on top.
    order = sorted(range(len(faces)), key=lambda i: float(np.prod(faces[i].box[2:] - faces[i].box[:2])))
    for index in order:
        face = faces[index]
        colour = COLOURS[(index if face.track is None else face.track) % len(COLOURS)]
        x1, y1, x2, y2 = (int(edge) for edge in np.round(_within(face.box, image.shape, 2 * thickness)))
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)
        for x, y in np.round(face.landmarks).astype(int).tolist():
            cv2.circle(canvas, (x, y), max(1, round(1.5 * unit)), colour, -1, cv2.LINE_AA)
    for index in reversed(order):
        face = faces[index]
        lines = face.caption()
        if face.track is not None:
            lines = [f"#{face.track}", *lines]
        if lines:
            colour = COLOURS[(index if face.track is None else face.track) % len(COLOURS)]
            _draw_caption(canvas, lines, _within(face.box, image.shape), colour, unit, taken)
    return canvas


def _within(box: np.ndarray, shape: tuple[int, ...], beyond: int = 0) -> np.ndarray:
    """A box clipped to the photo, or to `beyond` pixels outside it: OpenCV limits the range of coordinates."""
    return np.clip(box, -beyond, np.array([shape[1], shape[0]] * 2) + beyond)


def _middle(box: np.ndarray) -> tuple[int, int, int, int]:
    """The central half of a box in each direction."""
    x1, y1, x2, y2 = box.tolist()
    quarter_x, quarter_y = (x2 - x1) / 4, (y2 - y1) / 4
    return int(x1 + quarter_x), int(y1 + quarter_y), int(x2 - quarter_x), int(y2 - quarter_y)


def _draw_caption(canvas, lines, box, colour, unit, taken) -> None:
    """Draws lines of text above the box, or where there is room; `taken` lists the rectangles to avoid."""
    scale, weight = 0.55 * unit, max(1, round(unit))
    sizes = [cv2.getTextSize(line, _FONT, scale, weight)[0] for line in lines]
    pad = max(2, round(4 * unit))
    row = max(height for _, height in sizes) + pad
    width, height = max(width for width, _ in sizes) + 2 * pad, row * len(lines) + pad
    left, top = _place(canvas.shape, box, width, height, taken)
    taken.append((left, top, left + width, top + height))
    region = canvas[top : top + height, left : left + width]
    region[:] = (region * 0.25).astype(np.uint8)
    canvas[top : top + height, left : left + max(2, round(3 * unit))] = colour
    for index, line in enumerate(lines):
        at = (left + pad + round(2 * unit), top + row * (index + 1) - pad // 2)
        cv2.putText(canvas, line, at, _FONT, scale, (255, 255, 255), weight, cv2.LINE_AA)


def _place(shape, box, width, height, taken) -> tuple[int, int]:
    """Left and top of a caption: above the box, below it or inside its top, whichever covers least of `taken`."""
    x1, y1, _, y2 = (int(edge) for edge in box)
    room_x, room_y = max(shape[1] - width, 0), max(shape[0] - height, 0)
    places = [(min(max(x1, 0), room_x), min(max(y, 0), room_y)) for y in (y1 - height, y2, y1)]

    def covered(place: tuple[int, int]) -> int:
        left, top = place
        sides = (
            (min(left + width, other[2]) - max(left, other[0]), min(top + height, other[3]) - max(top, other[1]))
            for other in taken
        )
        return sum(max(across, 0) * max(down, 0) for across, down in sides)

    return min(places, key=covered)
