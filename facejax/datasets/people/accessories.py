"""What hides parts of a face: glasses on the head, and hands, microphones or passers-by in front of it."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facejax.datasets.people.assets import Pack


@dataclasses.dataclass(frozen=True)
class Glasses:
    """A pair of glasses.

    Attributes:
        wide: Half width of a lens, units.
        high: Half height of a lens.
        square: Exponent of the lens's outline: 2 is round, larger is more rectangular.
        colour: Colour of the frame, sRGB 0 to 255.
        rim: Thickness of the frame, units.
        tint: Share of light that the lenses absorb; high for sunglasses.
    """

    wide: float
    high: float
    square: float
    colour: tuple[float, float, float]
    rim: float
    tint: float


def sample_glasses(rng: np.random.Generator) -> Glasses:
    """Draws glasses: thin or thick, round or square, occasionally dark."""
    dark = rng.random() < 0.12
    shade = rng.choice([rng.uniform(10, 50), rng.uniform(110, 190)], p=[0.75, 0.25])
    red, green, blue = (float(v) for v in np.clip(shade + rng.normal(0, 12, 3), 5, 230))
    return Glasses(
        wide=float(rng.uniform(0.20, 0.26)),
        high=float(rng.uniform(0.13, 0.19) + (0.02 if dark else 0)),
        square=float(rng.uniform(2.0, 5.0)),
        colour=(red, green, blue),
        rim=float(rng.choice([rng.uniform(0.008, 0.018), rng.uniform(0.02, 0.045)])),
        tint=float(rng.uniform(0.75, 0.95)) if dark else float(rng.uniform(0.0, 0.12)),
    )


def glasses_points(
    glasses: Glasses, pack: Pack, rest: Float[np.ndarray, "vertices 3"]
) -> list[Float[np.ndarray, "_ 3"]]:
    """Outlines of both lenses, the bridge and both temples, in the person's axes."""
    angle = np.linspace(0, 2 * np.pi, 33)
    cos, sin = np.cos(angle), np.sin(angle)
    outline = np.stack(
        [
            np.sign(cos) * np.abs(cos) ** (2 / glasses.square) * glasses.wide,
            np.sign(sin) * np.abs(sin) ** (2 / glasses.square) * glasses.high,
        ],
        1,
    )
    lines = []
    eyes = [rest[vertices] for vertices in reversed(pack.eye_vertices)]
    front = max(float(eye[:, 2].max()) for eye in eyes) + 0.13

    def bend(xy: np.ndarray) -> np.ndarray:
        """Lenses follow the curve of the face."""
        return np.concatenate([xy, front - 0.30 * xy[:, :1] ** 2], 1).astype(np.float32)

    for eye in eyes:
        middle = (eye.min(0) + eye.max(0))[:2] / 2
        lines.append(bend(outline + middle * [1.04, 1] - [0, 0.03]))
    (right, left), height = lines, float(lines[0][:, 1].mean()) + glasses.high * 0.35
    inner = right[:, 0].max(), left[:, 0].min()
    lines.append(bend(np.array([[inner[0], height], [np.mean(inner), height + 0.02], [inner[1], height]])))
    for lens, side in ((right, -1), (left, 1)):
        hinge = lens[lens[:, 0].argmax() if side > 0 else lens[:, 0].argmin()]
        ear = np.array([side * 0.74 * np.ptp(rest[:, 0]) / np.ptp(pack.vertices[:, 0]), height, 0.3], np.float32)
        steps = np.linspace(0, 1, 9, dtype=np.float32)[:, None]
        start = np.array([hinge[0], height, hinge[2]], np.float32)
        lines.append(start * (1 - steps) + ear * steps)
    return lines


def draw_glasses(
    canvas: UInt8[np.ndarray, "rows columns 4"],
    nearest: Float[np.ndarray, "rows columns"],
    glasses: Glasses,
    lines: list[tuple[Float[np.ndarray, "_ 2"], Float[np.ndarray, " _"]]],
    pixels_per_unit: float,
) -> None:
    """Draws glasses on a premultiplied canvas, in place.

    Args:
        canvas: Changed in place.
        nearest: Depth of the head at each pixel.
        glasses: What they look like.
        lines: Canvas position and depth of the points of each line of `glasses_points`.
        pixels_per_unit: Scale of the canvas.
    """
    rows, columns = nearest.shape
    dark = [c * 0.5 for c in glasses.colour]
    for xy, _ in lines[:2]:
        (left, top), (right, bottom) = xy.min(0).astype(int).clip(0) - 1, xy.max(0).astype(int) + 2
        window = canvas[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if not window.size:
            continue
        lens = np.zeros(window.shape[:2], np.uint8)
        cv2.fillPoly(lens, [np.round((xy - [max(left, 0), max(top, 0)]) * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        share = (lens.astype(np.float32) * (glasses.tint / 255))[..., None]
        alpha = window[..., 3:].astype(np.float32)
        paint = np.concatenate([np.array(dark, np.float32) * alpha / 255, alpha], 2)
        window[:] = (window * (1 - share) + paint * share).astype(np.uint8)
    thickness = max(1, round(glasses.rim * pixels_per_unit))
    for xy, depth in lines:
        column, row = xy.astype(np.int32).T
        seen = depth >= nearest[row.clip(0, rows - 1), column.clip(0, columns - 1)] - 0.03
        fixed = np.round(xy * 8).astype(np.int32)
        runs = [fixed[i : i + 2] for i in range(len(xy) - 1) if seen[i] and seen[i + 1]]
        if runs:
            cv2.polylines(canvas, runs, False, (*glasses.colour, 255.0), thickness, cv2.LINE_AA, 3)


def hide(
    image: Float[np.ndarray, "rows columns 3"],
    landmarks: Float[np.ndarray, "5 2"],
    skin: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Draws a hand, a microphone or a blurred shape in front of a face, in place.

    Args:
        image: sRGB 0 to 255.
        landmarks: Landmarks of the face (MTCNN's order); what is hidden leaves the expression readable.
        skin: sRGB 0 to 255 of the face as lit in the photo.
        rng: Source of randomness.
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = mouth - eyes
    scale = float(np.hypot(*down)) + 1e-3
    across = np.array([down[1], -down[0]])
    side = float(rng.choice([-1, 1]))
    cover = np.zeros(image.shape[:2], np.uint8)
    paint = image.copy()
    kind = rng.choice(3, p=[0.55, 0.25, 0.2])
    if kind == 0:
        wrist = mouth + side * across * rng.uniform(0.7, 1.2) + down * rng.uniform(0.9, 1.6)
        tip = mouth + side * across * rng.uniform(0.25, 0.8) + down * rng.uniform(-0.3, 0.5)
        _hand(paint, cover, wrist, tip, scale, np.array(skin) * rng.uniform(0.8, 1.05), rng)
    elif kind == 1:
        at = mouth + side * across * rng.uniform(0.0, 0.5) + down * rng.uniform(0.55, 1.0)
        grey = float(rng.uniform(15, 60))
        _capsule(paint, cover, at, at + down * 0.1, scale * 0.42, (grey,) * 3)
        _capsule(paint, cover, at + down * 0.3, at + down * 3 + side * across, scale * 0.2, (grey * 0.7,) * 3)
    else:
        at = eyes + side * across * rng.uniform(1.1, 1.7) + down * rng.uniform(-1, 2)
        colour = tuple(float(v) for v in rng.uniform(20, 200) + rng.normal(0, 15, 3))
        _capsule(paint, cover, at, at + down * rng.uniform(0.5, 3), scale * rng.uniform(1.0, 1.6), colour)
        paint, cover = cv2.GaussianBlur(paint, (0, 0), scale * 0.1), cv2.GaussianBlur(cover, (0, 0), scale * 0.12)
    share = (cover.astype(np.float32) / 255)[..., None]
    image += (paint - image) * share


def _capsule(
    paint: np.ndarray, cover: np.ndarray, start: np.ndarray, stop: np.ndarray, width: float, colour: tuple[float, ...]
) -> None:
    ends = [tuple(np.round(p * 8).astype(int).tolist()) for p in (start, stop)]
    cv2.line(cover, ends[0], ends[1], 255, max(1, round(width)), cv2.LINE_AA, 3)
    for share, shade in ((1.0, 0.72), (0.78, 0.9), (0.45, 1.0)):  # rounder towards the middle
        lit = tuple(float(c) * shade for c in colour)
        cv2.line(paint, ends[0], ends[1], lit, max(1, round(width * share)), cv2.LINE_AA, 3)


def _hand(
    paint: np.ndarray,
    cover: np.ndarray,
    wrist: np.ndarray,
    tip: np.ndarray,
    scale: float,
    colour: np.ndarray,
    rng: np.random.Generator,
) -> None:
    along = (tip - wrist) / (np.hypot(*(tip - wrist)) + 1e-6)
    across = np.array([along[1], -along[0]])
    flesh = tuple(float(c) for c in colour)
    palm = tip - along * scale * 0.9
    _capsule(paint, cover, wrist - along * scale, palm, scale * 0.95, flesh)
    curl = float(rng.uniform(0.3, 1.0))
    spread = float(rng.uniform(0.24, 0.34))
    for finger, reach in enumerate((0.85, 1.0, 0.95, 0.75)):
        offset = across * (finger - 1.5) * spread * scale
        end = palm + offset * 1.15 + along * scale * reach * curl
        _capsule(paint, cover, palm + offset * 0.8 - along * scale * 0.2, end, scale * 0.24, flesh)
    thumb = across * (-1 if rng.random() < 0.5 else 1) * scale
    _capsule(paint, cover, palm - along * scale * 0.4 + thumb * 0.3, palm + thumb * 0.75, scale * 0.26, flesh)
