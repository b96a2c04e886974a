"""Facial expressions: all eight as weights of face units, with variants, asymmetry, talking and gaze.

Units are ARKit's 52 (the pack's ``unit/*`` targets); `ACTION_UNITS` maps them to FACS action units. The recipes
follow the prototypes of Ekman and Friesen's EMFACS; every expression has several variants because real ones have.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from facejax.tasks import EMOTION8

Units = Mapping[str, float]

STRONGEST = 1.4  # largest weight of a unit; beyond it the mesh folds over
# A name without a side stands for both sides.
SIDED = frozenset(
    (
        "browDown",
        "browOuterUp",
        "cheekSquint",
        "eyeBlink",
        "eyeLookDown",
        "eyeLookIn",
        "eyeLookOut",
        "eyeLookUp",
        "eyeSquint",
        "eyeWide",
        "mouthDimple",
        "mouthFrown",
        "mouthLowerDown",
        "mouthPress",
        "mouthSmile",
        "mouthStretch",
        "mouthUpperUp",
        "noseSneer",
    )
)
RECIPES: Mapping[str, tuple[Units, ...]] = {
    "neutral": ({},),
    "happiness": (
        {"mouthSmile": 0.8, "cheekSquint": 0.7, "eyeSquint": 0.25, "mouthDimple": 0.15},
        {
            "mouthSmile": 0.95,
            "cheekSquint": 0.8,
            "eyeSquint": 0.3,
            "mouthUpperUp": 0.45,
            "mouthLowerDown": 0.2,
            "jawOpen": 0.06,
        },
        {
            "mouthSmile": 1.0,
            "cheekSquint": 0.9,
            "eyeSquint": 0.35,
            "mouthUpperUp": 0.5,
            "mouthLowerDown": 0.35,
            "mouthStretch": 0.2,
            "jawOpen": 0.1,
        },
        {
            "mouthSmile": 1.05,
            "cheekSquint": 0.95,
            "eyeSquint": 0.4,
            "mouthUpperUp": 0.5,
            "jawOpen": 0.32,
            "mouthLowerDown": 0.3,
        },
        {"mouthSmile": 0.9, "cheekSquint": 0.4, "mouthUpperUp": 0.45, "jawOpen": 0.15, "browOuterUp": 0.2},
    ),
    "sadness": (
        {"browInnerUp": 0.9, "mouthFrown": 0.8, "browDown": 0.2, "mouthShrugLower": 0.5, "eyeSquint": 0.2},
        {"browInnerUp": 0.8, "mouthFrown": 0.7, "eyeLookDown": 0.5, "eyeBlink": 0.25, "mouthPress": 0.3},
        {
            "browInnerUp": 0.9,
            "browDown": 0.35,
            "mouthFrown": 0.7,
            "mouthStretch": 0.35,
            "eyeSquint": 0.6,
            "jawOpen": 0.12,
            "mouthLowerDown": 0.3,
            "cheekSquint": 0.4,
        },
    ),
    "surprise": (
        {"browInnerUp": 0.85, "browOuterUp": 0.9, "eyeWide": 0.9, "jawOpen": 0.72, "mouthFunnel": 0.2},
        {"browInnerUp": 0.8, "browOuterUp": 0.95, "eyeWide": 0.8, "jawOpen": 0.35},
        {"browInnerUp": 0.7, "browOuterUp": 0.8, "eyeWide": 0.9, "jawOpen": 0.85},
        {"browInnerUp": 0.7, "browOuterUp": 0.8, "eyeWide": 0.6, "jawOpen": 0.45, "mouthSmile": 0.3},
    ),
    "fear": (
        {
            "browInnerUp": 0.95,
            "browOuterUp": 0.35,
            "browDown": 0.35,
            "eyeWide": 0.9,
            "mouthStretch": 0.8,
            "jawOpen": 0.15,
            "mouthLowerDown": 0.3,
        },
        {
            "browInnerUp": 0.9,
            "browOuterUp": 0.45,
            "browDown": 0.3,
            "eyeWide": 0.95,
            "mouthStretch": 0.7,
            "jawOpen": 0.5,
            "mouthLowerDown": 0.4,
        },
        {"browInnerUp": 0.95, "browDown": 0.45, "eyeWide": 0.8, "mouthStretch": 0.75, "mouthFrown": 0.2},
    ),
    "disgust": (
        {
            "noseSneer": 0.95,
            "browDown": 0.5,
            "mouthUpperUp": 0.65,
            "eyeSquint": 0.5,
            "cheekSquint": 0.5,
            "mouthShrugLower": 0.3,
            "mouthFrown": 0.4,
        },
        {
            "noseSneer": 0.85,
            "mouthUpperUp": 0.85,
            "browDown": 0.3,
            "eyeSquint": 0.4,
            "jawOpen": 0.2,
            "cheekSquint": 0.4,
        },
        {"noseSneer": 0.8, "browDown": 0.45, "mouthFrown": 0.6, "mouthShrugLower": 0.6, "eyeSquint": 0.5},
    ),
    "anger": (
        {
            "browDown": 0.95,
            "eyeSquint": 0.3,
            "noseSneer": 0.3,
            "mouthPress": 0.75,
            "jawForward": 0.25,
            "mouthFrown": 0.3,
            "mouthRollLower": 0.3,
            "mouthRollUpper": 0.2,
        },
        {"browDown": 0.9, "eyeWide": 0.35, "mouthPress": 0.5, "mouthFrown": 0.35, "mouthShrugLower": 0.3},
        {
            "browDown": 1.0,
            "eyeWide": 0.2,
            "noseSneer": 0.5,
            "jawOpen": 0.45,
            "mouthUpperUp": 0.5,
            "mouthLowerDown": 0.6,
            "mouthStretch": 0.3,
        },
        {
            "browDown": 1.0,
            "eyeSquint": 0.4,
            "noseSneer": 0.6,
            "jawOpen": 0.75,
            "mouthUpperUp": 0.4,
            "mouthLowerDown": 0.4,
            "cheekSquint": 0.4,
        },
        {
            "browDown": 0.95,
            "noseSneer": 0.55,
            "mouthUpperUp": 0.45,
            "mouthLowerDown": 0.55,
            "mouthStretch": 0.25,
            "jawForward": 0.2,
        },
    ),
    "contempt": (
        {
            "mouthSmileLeft": 0.6,
            "mouthDimpleLeft": 0.85,
            "cheekSquintLeft": 0.25,
            "mouthPressRight": 0.2,
            "eyeSquint": 0.15,
        },
        {"mouthSmileLeft": 0.45, "mouthDimpleLeft": 0.8, "browOuterUpLeft": 0.5, "mouthPress": 0.25, "eyeBlink": 0.12},
        {
            "mouthUpperUpLeft": 0.5,
            "mouthDimpleLeft": 0.7,
            "noseSneerLeft": 0.3,
            "mouthPress": 0.2,
            "browOuterUpLeft": 0.3,
        },
    ),
}
# Mouth shapes of speech; they go with any expression.
VISEMES: tuple[Units, ...] = (
    {"jawOpen": 0.28},
    {"jawOpen": 0.42, "mouthLowerDown": 0.25},
    {"jawOpen": 0.15, "mouthFunnel": 0.5},
    {"mouthPucker": 0.6, "jawOpen": 0.08},
    {"jawOpen": 0.14, "mouthStretch": 0.3, "mouthLowerDown": 0.35, "mouthUpperUp": 0.15},
    {"mouthRollLower": 0.4, "mouthUpperUp": 0.2, "jawOpen": 0.06},
    {"mouthPress": 0.3, "mouthRollLower": 0.25, "mouthRollUpper": 0.2},
)
# FACS name, and the unit whose strength (mean of both sides) it is.
ACTION_UNITS: Mapping[str, str] = {
    "AU1": "browInnerUp",
    "AU2": "browOuterUp",
    "AU4": "browDown",
    "AU5": "eyeWide",
    "AU6": "cheekSquint",
    "AU7": "eyeSquint",
    "AU9": "noseSneer",
    "AU10": "mouthUpperUp",
    "AU12": "mouthSmile",
    "AU14": "mouthDimple",
    "AU15": "mouthFrown",
    "AU16": "mouthLowerDown",
    "AU17": "mouthShrugLower",
    "AU18": "mouthPucker",
    "AU20": "mouthStretch",
    "AU22": "mouthFunnel",
    "AU24": "mouthPress",
    "AU26": "jawOpen",
    "AU28": "mouthRollLower",
    "AU43": "eyeBlink",
}
# Position of a full expression in Russell's circumplex (1980): valence, arousal. Intensity scales it linearly.
CIRCUMPLEX = {
    "anger": (-0.55, 0.65),
    "contempt": (-0.50, 0.25),
    "disgust": (-0.65, 0.35),
    "fear": (-0.60, 0.75),
    "happiness": (0.80, 0.35),
    "neutral": (0.0, 0.0),
    "sadness": (-0.65, -0.35),
    "surprise": (0.15, 0.80),
}


@dataclasses.dataclass(frozen=True)
class Expression:
    """The state of a face at one moment.

    Attributes:
        emotion: Index in `facejax.tasks.EMOTION8`.
        intensity: 0 (none) to 1 (full); 0 for neutral.
        units: Weight of each sided face unit, without the zeros.
        gaze: Where the eyes look, right and up in the image, about -1 to 1.
    """

    emotion: int
    intensity: float
    units: Units
    gaze: tuple[float, float] = (0.0, 0.0)

    @property
    def valence_arousal(self) -> tuple[float, float]:
        """Position in the circumplex, each in [-1, 1]."""
        valence, arousal = CIRCUMPLEX[EMOTION8[self.emotion]]
        return valence * self.intensity, arousal * self.intensity

    @property
    def action_units(self) -> tuple[float, ...]:
        """Strength of each of `ACTION_UNITS`, 0 to about 1: the mean of both sides."""
        return tuple(
            (self.units.get(unit + "Left", 0.0) + self.units.get(unit + "Right", 0.0)) / 2
            if unit in SIDED
            else self.units.get(unit, 0.0)
            for unit in ACTION_UNITS.values()
        )

    def targets(self) -> dict[str, float]:
        """Weights of the pack's targets."""
        return {f"unit/{name}": weight for name, weight in self.units.items()}


def both_sides(units: Units) -> dict[str, float]:
    """Units with every two-sided name spelt out as Left and Right."""
    spelt: dict[str, float] = {}
    for name, weight in units.items():
        for side in ("Left", "Right") if name in SIDED else ("",):
            spelt[name + side] = weight
    return spelt


def mirror(units: Units) -> dict[str, float]:
    """Units with left and right swapped."""
    swap = {"Left": "Right", "Right": "Left"}
    stems = ((name, next((s for s in swap if name.endswith(s)), "")) for name in units)
    return {name.removesuffix(side) + swap.get(side, ""): units[name] for name, side in stems}


def sample_expression(
    rng: np.random.Generator, emotion: int, weakest: float = 0.5, talking: float = 0.25
) -> Expression:
    """Draws a face that shows an emotion.

    Args:
        rng: Source of the variant, asymmetry, speech, blinks and gaze.
        emotion: Index in EMOTION8.
        weakest: Minimum intensity, 0 to 1.
        talking: Probability of speech.
    """
    name = EMOTION8[emotion]
    drawn = weakest + (1 - weakest) * float(rng.beta(2.0, 1.2))
    intensity = 0.0 if name == "neutral" else drawn
    recipe = both_sides(RECIPES[name][rng.integers(len(RECIPES[name]))])
    if rng.random() < 0.5:
        recipe = mirror(recipe)
    tilt = float(rng.normal(0, 0.09))
    units: dict[str, float] = {}
    for unit, weight in recipe.items():
        lean = 1 + tilt if unit.endswith("Left") else 1 - tilt if unit.endswith("Right") else 1.0
        units[unit] = weight * intensity * lean * float(rng.uniform(1.0, 1.4))
    # Speech and small random movements; neither weakens a unit of the expression, such as the closed mouth of anger.
    speaks = rng.random() < talking
    viseme = both_sides(VISEMES[rng.integers(len(VISEMES))])
    strength = float(rng.uniform(0.3, 0.9)) if speaks else 0.0
    for unit, weight in viseme.items():
        units[unit] = max(units.get(unit, 0.0), weight * strength)
    for unit in ("jawOpen", "browInnerUp", "mouthPucker", "cheekPuff", "mouthShrugUpper"):
        units[unit] = units.get(unit, 0.0) + abs(float(rng.normal(0, 0.035)))
    for stem in ("mouthSmile", "mouthPress", "browDown", "browOuterUp", "eyeSquint", "mouthFrown"):
        shift = abs(float(rng.normal(0, 0.05)))
        for side in ("Left", "Right"):
            units[stem + side] = units.get(stem + side, 0.0) + shift
    units["jawLeft" if rng.random() < 0.5 else "jawRight"] = abs(float(rng.normal(0, 0.05)))
    units["mouthLeft" if rng.random() < 0.5 else "mouthRight"] = abs(float(rng.normal(0, 0.06)))
    gaze = (float(rng.normal(0, 0.3)), float(rng.normal(-0.05, 0.2)))
    lids = abs(float(rng.normal(0, 0.07)))
    if rng.random() < 0.03 and name not in ("surprise", "fear"):
        lids = float(rng.uniform(0.5, 1.0))
    for side in ("Left", "Right"):
        units["eyeBlink" + side] = min(1.0, units.get("eyeBlink" + side, 0.0) + lids)
        units["eyeLookDown" + side] = max(units.get("eyeLookDown" + side, 0.0), max(0.0, -gaze[1]))
        units["eyeLookUp" + side] = max(0.0, gaze[1])
    return Expression(
        emotion, intensity, {k: float(min(w, STRONGEST)) for k, w in sorted(units.items()) if w > 1e-3}, gaze
    )
