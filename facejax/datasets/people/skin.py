"""A person's skin, painted in the chart: colour, brows, stubble, and the folds of age and expression."""

import dataclasses
import functools
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facejax.datasets.people.assets import CHART_LEFT, CHART_SCALE, CHART_SHAPE, CHART_TOP, chart_xy, load_pack
from facejax.datasets.people.identity import Identity, hair_colour
from facejax.datasets.people.noise import smooth

# sRGB of bare skin from the fairest tone to the darkest.
TONES = np.array(
    [(236, 196, 174), (222, 174, 146), (196, 146, 114), (158, 110, 80), (116, 78, 56), (78, 52, 40)], np.float32
)
# Folds as curves in the chart (person's left side, template units): start, two controls, end; width; strength of a
# relaxed face at full age. "brow" and "frown" lie on both sides of the middle.
FOLDS: Mapping[str, tuple[tuple[tuple[float, float], ...], float, float]] = {
    "forehead1": (((0.0, 7.70), (0.15, 7.71), (0.30, 7.70), (0.42, 7.66)), 0.020, 0.6),
    "forehead2": (((0.0, 7.79), (0.15, 7.80), (0.28, 7.79), (0.38, 7.76)), 0.020, 0.5),
    "forehead3": (((0.0, 7.88), (0.12, 7.89), (0.24, 7.88), (0.32, 7.86)), 0.020, 0.4),
    "frown": (((0.055, 7.43), (0.05, 7.48), (0.055, 7.53), (0.07, 7.60)), 0.020, 0.5),
    "crow1": (((0.51, 7.29), (0.56, 7.31), (0.60, 7.33), (0.64, 7.36)), 0.012, 0.6),
    "crow2": (((0.52, 7.25), (0.57, 7.25), (0.61, 7.25), (0.65, 7.25)), 0.012, 0.6),
    "crow3": (((0.50, 7.21), (0.55, 7.19), (0.59, 7.17), (0.63, 7.14)), 0.012, 0.5),
    "nasolabial": (((0.16, 6.94), (0.25, 6.84), (0.32, 6.70), (0.335, 6.56)), 0.030, 0.7),
    "marionette": (((0.265, 6.55), (0.29, 6.48), (0.30, 6.42), (0.285, 6.36)), 0.022, 0.6),
    "eyelid": (((0.17, 7.17), (0.24, 7.11), (0.36, 7.10), (0.46, 7.16)), 0.022, 0.5),
    "eyebag": (((0.18, 7.12), (0.26, 7.04), (0.38, 7.03), (0.47, 7.09)), 0.024, 0.4),
    "nose": (((0.11, 7.20), (0.06, 7.24), (0.05, 7.28), (0.09, 7.33)), 0.016, 0.0),
    "cheek": (((0.42, 6.86), (0.47, 6.74), (0.46, 6.58), (0.40, 6.46)), 0.022, 0.25),
    "dimple": (((0.33, 6.66), (0.345, 6.63), (0.345, 6.59), (0.33, 6.56)), 0.018, 0.0),
}
# What deepens a fold, on its own side: unit (without Left or Right) and strength.
PRESSED: Mapping[str, tuple[tuple[str, float], ...]] = {
    "forehead1": (("browInnerUp", 0.45), ("browOuterUp", 0.5)),
    "forehead2": (("browInnerUp", 0.5), ("browOuterUp", 0.45)),
    "forehead3": (("browInnerUp", 0.35), ("browOuterUp", 0.35)),
    "frown": (("browDown", 0.8), ("noseSneer", 0.15)),
    "crow1": (("mouthSmile", 0.25), ("cheekSquint", 0.3)),
    "crow2": (("mouthSmile", 0.25), ("cheekSquint", 0.35)),
    "crow3": (("mouthSmile", 0.2), ("cheekSquint", 0.3)),
    "nasolabial": (("mouthSmile", 0.6), ("noseSneer", 0.45), ("mouthUpperUp", 0.35)),
    "marionette": (("mouthFrown", 0.4),),
    "eyelid": (("cheekSquint", 0.4), ("eyeSquint", 0.3)),
    "nose": (("noseSneer", 0.8),),
    "cheek": (("mouthSmile", 0.25),),
    "dimple": (("mouthDimple", 0.6), ("mouthSmile", 0.15)),
}


def linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light (0 to 1) of sRGB values 0 to 255, by the 2.2 power law."""
    return (np.asarray(srgb, np.float32) / 255) ** 2.2


@dataclasses.dataclass(frozen=True, eq=False)
class Skin:
    """A person's skin in the chart.

    Attributes:
        colour: Linear albedo with brows, lips and stubble.
        height: Pores and blemishes as relief, mean about 0 and standard deviation about 1.
        base: Linear albedo away from the face.
    """

    colour: Float[np.ndarray, "rows columns 3"]
    height: Float[np.ndarray, "rows columns"]
    base: Float[np.ndarray, "3"]


@functools.cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = CHART_SHAPE
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return x / CHART_SCALE + CHART_LEFT, CHART_TOP - y / CHART_SCALE


@functools.cache
def _spot(x: float, y: float, wide: float, high: float) -> np.ndarray:
    grid_x, grid_y = _grid()
    return np.exp(-(((grid_x - x) / wide) ** 2) - ((grid_y - y) / high) ** 2)


def _curve(points: tuple[tuple[float, float], ...], count: int = 24) -> np.ndarray:
    """Bezier curve through four control points."""
    t = np.linspace(0, 1, count)[:, None]
    p = np.array(points)
    return (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]


def _strokes(image: np.ndarray, lines: np.ndarray, value: float, thickness: int) -> None:
    """Draws lines (lines, points, 2), in template units, of one value."""
    xy = np.stack(chart_xy(lines[..., 0], lines[..., 1]), -1)
    cv2.polylines(image, list((xy * 16).astype(np.int32)), False, value, thickness, cv2.LINE_AA, 4)


@functools.cache
def fold_maps() -> Mapping[tuple[str, str], tuple[tuple[slice, slice], UInt8[np.ndarray, "rows columns"]]]:
    """Depth (0 to 255) of each fold by name and side, cut to its own window of the chart."""
    maps = {}
    for name, (points, width, _) in FOLDS.items():
        for side, sign in (("Left", 1), ("Right", -1)):
            line = np.zeros(CHART_SHAPE, np.float32)
            curve = _curve(tuple((sign * x, y) for x, y in points))
            taper = np.sin(np.linspace(0.25, np.pi - 0.25, len(curve)))
            for i in range(len(curve) - 1):
                _strokes(line, curve[None, i : i + 2], float(taper[i]), 2)
            sharp = cv2.GaussianBlur(line, (0, 0), width * CHART_SCALE * 0.45)
            soft = cv2.GaussianBlur(line, (0, 0), width * CHART_SCALE * 1.5)
            depth = sharp / sharp.max() + 0.8 * soft / soft.max()
            depth = (depth / depth.max() * 255).astype(np.uint8)
            rows, columns = np.flatnonzero(depth.max(1) > 3), np.flatnonzero(depth.max(0) > 3)
            window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            maps[name, side] = window, depth[window]
    return maps


def folds(person: Identity, units: Mapping[str, float]) -> Float[np.ndarray, "rows columns"]:
    """Depth of all folds of a face, 0 to about 1.2, by age and expression."""
    aged = float(np.clip((person.age - 28) / 50, 0, 1)) * person.wrinkling
    young = float(np.interp(person.age, [3, 14, 40], [0.35, 0.6, 1.0]))
    rng = person.rng("folds")
    total = np.zeros(CHART_SHAPE, np.float32)
    for (name, side), (window, depth) in fold_maps().items():
        own = float(rng.uniform(0.5, 1.15))
        pressed = sum(units.get(u + side, units.get(u, 0.0)) * share for u, share in PRESSED.get(name, ()))
        strength = own * min(1.2, aged * FOLDS[name][2] + young * pressed + (0.1 if name == "nasolabial" else 0.0))
        if strength > 0.04:
            total[window] += depth * np.float32(strength / 255)
    return total


def paint(person: Identity) -> Skin:
    """Paints a person's skin; takes about ten milliseconds."""
    rng = person.rng("skin")
    age, tone = person.age, person.tone
    srgb = np.array([np.interp(tone * 5, range(6), TONES[:, c]) for c in range(3)], np.float32)
    srgb *= 1 + person.redness * np.array([0.015, -0.025, -0.02], np.float32)
    srgb *= 1 + rng.normal(0, 0.015, 3).astype(np.float32)
    base = linear(srgb)
    # Children are evenly and lightly coloured; the old are mottled.
    mottle = float(np.interp(age, [5, 30, 80], [0.015, 0.03, 0.07]))
    shade = (
        1
        + mottle * (0.6 * smooth(rng, *CHART_SHAPE, 18.0) + 0.5 * smooth(rng, *CHART_SHAPE, 5.0))
        + 0.02 * smooth(rng, *CHART_SHAPE, 1.1)
    )
    colour = base[:, None, None] * shade  # one plane per channel: long rows are fast
    blush = _spot(-0.42, 6.96, 0.2, 0.2) + _spot(0.42, 6.96, 0.2, 0.2) + 0.8 * _spot(0.0, 6.92, 0.14, 0.13)
    blush *= float(rng.uniform(0.5, 1.3)) * (1.3 if age < 13 else 1.0) * (1.1 - tone)
    colour *= 1 + blush * _by_channel(0.02, -0.12, -0.11)
    sockets = 0.9 * _spot(0.29, 7.16, 0.19, 0.09) + 1.1 * _spot(0.27, 7.36, 0.22, 0.09)
    sockets = sockets + sockets[:, ::-1]
    colour *= 1 - sockets * _by_channel(0.26, 0.32, 0.30) * float(np.interp(age, [5, 60], [0.5, 1.2]))
    for _ in range(int(rng.poisson(1.5 + max(0.0, age - 50) / 6))):
        x, y = chart_xy(rng.normal(0, 0.45, 1), rng.uniform(6.3, 7.9, 1))
        mark = tuple(float(v) for v in base * np.array([0.55, 0.42, 0.38]) * rng.uniform(0.9, 1.5))
        radius = int(rng.integers(1, 3))
        for plane, value in zip(colour, mark, strict=True):
            cv2.circle(plane, (int(x[0]), int(y[0])), radius, value, -1, cv2.LINE_AA)

    lips = load_pack().lips.astype(np.float32) / 255
    rosy = base * np.array([0.78, 0.47, 0.50], np.float32) + np.array([0.035, 0.0, 0.004], np.float32)
    grown_man = person.gender * float(np.interp(age, [12, 20], [0, 1]))
    # A man's lips stand out less from his skin, which is rougher.
    lips *= float(np.interp(age, [5, 70], [0.75, 0.5])) * float(rng.uniform(0.7, 1.1)) * (1.1 - 0.4 * grown_man)
    painted = float(rng.random()) < (0.6 if person.gender == 0 and age > 15 else 0.0)
    if painted:  # lipstick, and a darker lid
        lips = np.clip(lips * 1.5, 0, 1)
        rosy = rosy * np.array([0.9, 0.6, 0.68], np.float32) * float(rng.uniform(0.6, 1.05))
        lid = _spot(0.31, 7.345, 0.17, 0.035)
        colour *= 1 - 0.35 * float(rng.uniform(0.3, 1)) * (lid + lid[:, ::-1])
    colour += (rosy[:, None, None] * shade - colour) * lips

    brows, stubble = _brows(person, rng), _stubble(person, rng) * (1 - lips)
    younger = dataclasses.replace(person, age=max(age - 15, 1.0))  # brows turn grey late
    own, brow = (linear(hair_colour(of)) * np.float32(0.8) for of in (person, younger))
    colour += (own[:, None, None] - colour) * stubble
    colour += (brow[:, None, None] - colour) * brows
    height = 0.7 * smooth(rng, *CHART_SHAPE, 0.9) + 0.3 * smooth(rng, *CHART_SHAPE, 2.2)
    height *= float(rng.uniform(0.7, 1.2)) * (0.8 + 0.5 * grown_man)
    return Skin(cv2.merge(list(colour.clip(0.003, 1))), height, base)


def _by_channel(red: float, green: float, blue: float) -> Float[np.ndarray, "3 1 1"]:
    return np.array([red, green, blue], np.float32)[:, None, None]


def _brows(person: Identity, rng: np.random.Generator) -> np.ndarray:
    """Hairs of the eyebrows: share of the skin that they cover."""
    ink = np.zeros(CHART_SHAPE, np.float32)
    grown = float(np.interp(person.age, [8, 18], [0, 1]))
    thickness = 0.85 * person.brow * float(np.interp(person.age, [1, 14, 70, 90], [0.5, 1.0, 1.0, 0.8]))
    arch = float(rng.uniform(-0.02, 0.015) + (0.02 if person.gender == 0 else 0.0))
    raised = float(rng.normal(0, 0.008)) + (0.01 if person.gender == 0 else -0.01) * grown
    length = float(rng.uniform(0.52, 0.57))
    for sign in (-1, 1):
        curve = _curve(
            ((sign * 0.11, 7.435), (sign * 0.25, 7.485 + arch), (sign * 0.42, 7.52 + arch), (sign * length, 7.42)), 60
        )
        t, across, reach, dark = rng.random((4, int(210 * thickness)))
        root = curve[(t * 59).astype(np.int32)]
        root[:, 1] += (across * 2 - 1) * 0.036 * thickness * (1 - 0.7 * t**2) - 0.01 + raised
        angle = np.pi / 2 - (0.25 + 1.25 * t)
        lean = np.stack([sign * np.cos(angle), np.sin(angle)], 1) * (0.03 + 0.03 * reach)[:, None]
        hairs = np.stack([root, root + lean], 1)
        for level in range(4):  # four shades, so that the hairs of each are drawn in one call
            some = hairs[(dark * 4).astype(np.int32) == level]
            _strokes(ink, some, 0.45 + 0.11 * level, 1)
    soft = cv2.GaussianBlur(ink, (0, 0), 0.7) + 0.6 * cv2.GaussianBlur(ink, (0, 0), 2.0)
    return (soft * 1.15).clip(0, 0.93) * float(rng.uniform(0.5, 0.95) - 0.05 * (person.gender == 0))


def _stubble(person: Identity, rng: np.random.Generator) -> np.ndarray:
    """Shadow or hairs of a beard: share of the skin that they cover."""
    grown = float(np.interp(person.age, [15, 22], [0, 1])) * person.beard
    shadow = float(np.interp(person.age, [15, 25], [0, 1])) * (person.gender == 1) * float(rng.uniform(0.04, 0.34))
    if grown + shadow < 0.02:
        return np.zeros(CHART_SHAPE, np.float32)
    x, y = (np.abs(_grid()[0]), _grid()[1])
    jaw = (
        1
        / (1 + np.exp(-(6.60 + 0.5 * np.clip(x - 0.3, 0, 1) - y) * 20))
        / (1 + np.exp((x - 0.68) * 22))
        / (1 + np.exp((6.14 - y) * 40))
    )
    moustache = np.exp(-(((y - 6.765) / 0.06) ** 2)) * np.exp(-((x / 0.27) ** 6))
    kind = rng.choice(3, p=[0.5, 0.3, 0.2])
    chin = np.exp(-((x / 0.22) ** 4)) * jaw
    area = (jaw + moustache, moustache, chin + moustache)[kind] if grown > 0.2 else jaw + moustache
    texture = (0.72 + 0.22 * smooth(rng, *CHART_SHAPE, 0.9)).clip(0.2, 1)
    return (cv2.GaussianBlur(area.astype(np.float32), (0, 0), 3) * texture).clip(0, 1) * (shadow + 0.85 * grown)
