"""Backgrounds: rooms, streets, trees, stages and studio walls, out of focus."""

import cv2
import numpy as np
from jaxtyping import Float

from facejax.datasets.people.noise import white

KINDS = ("studio", "room", "outdoors", "crowd", "lights")
SHARES = (0.22, 0.30, 0.22, 0.14, 0.12)


def sample_background(
    rng: np.random.Generator, rows: int, columns: int, kind: str | None = None
) -> Float[np.ndarray, "rows columns 3"]:
    """Draws a background, sRGB 0 to 255, of a given kind (one of `KINDS`) or of a random one."""
    small = 96, max(2, round(96 * columns / rows))
    drawn = KINDS[rng.choice(len(KINDS), p=SHARES)]
    kind = drawn if kind is None else kind
    image = {"studio": _studio, "room": _room, "outdoors": _outdoors, "crowd": _crowd, "lights": _lights}[kind](
        rng, *small
    )
    if kind not in ("studio", "lights"):
        image = cv2.GaussianBlur(image, (0, 0), float(rng.choice([0.6, 1.2, 2.5, 4.0])))
    image = cv2.resize(image.astype(np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255)


def _muted(rng: np.random.Generator, value: float | None = None) -> np.ndarray:
    """A colour typical of walls and clothes: mostly near grey, occasionally strong."""
    value = float(rng.beta(1.3, 1.5)) if value is None else value
    saturation = float(rng.beta(1.2, 5.0)) if rng.random() < 0.88 else float(rng.uniform(0.3, 0.8))
    hue = (
        float(rng.choice([rng.normal(0.07, 0.04), rng.normal(0.58, 0.06), rng.uniform(0, 1)], p=[0.5, 0.3, 0.2])) % 1.0
    )
    pixel = np.array([[[hue * 360, saturation, value]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _clouds(rng: np.random.Generator, rows: int, columns: int, coarse: int = 3, octaves: int = 4) -> np.ndarray:
    """Sum of noises from coarse to fine, mean 0 and standard deviation about 1."""
    total = np.zeros((rows, columns), np.float32)
    for octave in range(octaves):
        cells = coarse * 2**octave
        grid = white(rng, cells, max(2, cells * columns // rows))
        total += cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total


def _gradient(rng: np.random.Generator, rows: int, columns: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    share = ((np.cos(angle) * x + np.sin(angle) * y) / 2.4 + 0.5)[..., None]
    return (first * (1 - share) + second * share).astype(np.float32)


def _studio(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    colour = _muted(rng)
    image = _gradient(rng, rows, columns, colour, colour * rng.uniform(0.5, 1.3))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    glow = np.exp(-((x - rng.normal(0, 0.4)) ** 2 + (y - rng.normal(0, 0.4)) ** 2) / rng.uniform(0.3, 1.5))
    image *= (1 + glow[..., None] * rng.uniform(-0.2, 0.4)).astype(np.float32)
    return image + _clouds(rng, rows, columns)[..., None] * float(rng.choice([0, 3, 10]))


def _room(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    wall = _muted(rng)
    image = _gradient(rng, rows, columns, wall, wall * rng.uniform(0.6, 1.1))
    for _ in range(int(rng.integers(2, 9))):  # doors, windows, frames, shelves
        x, y = int(rng.integers(-20, columns)), int(rng.integers(-20, rows))
        wide, high = int(rng.integers(6, columns // 2)), int(rng.integers(8, rows))
        colour = _muted(rng, float(rng.uniform(0.85, 1)) if rng.random() < 0.2 else None)
        cv2.rectangle(image, (x, y), (x + wide, y + high), colour.tolist(), -1)
        if rng.random() < 0.5:
            cv2.rectangle(
                image, (x, y), (x + wide, y + high), (colour * rng.uniform(0.3, 1.4)).tolist(), int(rng.integers(1, 4))
            )
    for _ in range(int(rng.integers(0, 14)) * int(rng.random() < 0.35)):  # books, blinds
        x = int(rng.integers(0, columns))
        cv2.line(image, (x, 0), (x, int(rng.integers(10, rows))), _muted(rng).tolist(), int(rng.integers(1, 5)))
    slant = rng.normal(0, 0.06)
    warp = np.array([[1, slant, -slant * rows / 2], [rng.normal(0, 0.04), 1, 0]], np.float32)
    return cv2.warpAffine(image, warp, (columns, rows), borderMode=cv2.BORDER_REFLECT)


def _outdoors(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    sky = np.array([[170, 195, 225], [215, 220, 225], [120, 150, 200], [230, 205, 180]], np.float32)[rng.integers(4)]
    ground = np.array([[70, 90, 45], [120, 110, 95], [95, 105, 70], [60, 60, 62]], np.float32)[rng.integers(4)]
    horizon = rng.uniform(-0.1, 0.9)
    y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    edge = horizon + 0.12 * _clouds(rng, rows, columns)
    below = np.clip((y - edge) * rng.uniform(4, 30), 0, 1)[..., None]
    leaves = np.clip(1 + 0.35 * _clouds(rng, rows, columns, 6, 4), 0.2, 2)[..., None]
    image = sky * (1.05 - 0.2 * y[..., None]) * (1 - below) + ground * leaves * below
    for _ in range(int(rng.integers(0, 5))):  # houses, trunks
        x, top, wide = int(rng.integers(0, columns)), int(rng.integers(0, rows)), int(rng.integers(3, columns // 2))
        cv2.rectangle(image, (x, top), (x + wide, rows), _muted(rng).tolist(), -1)
    return (image * rng.uniform(0.6, 1.1)).astype(np.float32)


def _crowd(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    image = _gradient(rng, rows, columns, _muted(rng), _muted(rng))
    for _ in range(int(rng.integers(4, 16))):
        x, y, radius = int(rng.integers(0, columns)), int(rng.integers(rows // 8, rows)), int(rng.integers(5, 15))
        skin = np.array([200, 150, 120]) * rng.uniform(0.35, 1.05)
        cv2.ellipse(image, (x, y + 3 * radius), (2 * radius, 2 * radius), 0, 0, 360, _muted(rng).tolist(), -1)
        cv2.ellipse(image, (x, y), (int(radius * 0.8), radius), 0, 0, 360, skin.tolist(), -1)
        cv2.ellipse(image, (x, y - radius // 2), (int(radius * 0.85), radius // 2), 0, 180, 360, (40, 30, 25), -1)
    return image


def _lights(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    image = _gradient(
        rng, rows, columns, _muted(rng, float(rng.uniform(0, 0.25))), _muted(rng, float(rng.uniform(0, 0.4)))
    )
    for _ in range(int(rng.integers(3, 25))):
        colour = _muted(rng, float(rng.uniform(0.5, 1.0)))
        disc = np.zeros_like(image)
        at = int(rng.integers(0, columns)), int(rng.integers(0, rows))
        cv2.circle(disc, at, int(rng.integers(2, 9)), colour.tolist(), -1, cv2.LINE_AA)
        image = image + disc * rng.uniform(0.2, 0.7)
    return cv2.GaussianBlur(image.clip(0, 255), (0, 0), float(rng.uniform(0.5, 2.0)))
