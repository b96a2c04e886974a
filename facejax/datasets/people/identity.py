"""Identities: sex, ancestry, age and the sliders of the head's shape, drawn from a seed."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from facejax.datasets.people.assets import load_pack
from facejax.tasks import ETHNICITY, GENDER

# MakeHuman shapes three ancestries; the paper's five groups are mixtures of them (the mixture is drawn around these).
ANCESTRY = {
    "white": (0.05, 0.05, 0.90),
    "black": (0.92, 0.02, 0.06),
    "asian": (0.02, 0.93, 0.05),
    "indian": (0.25, 0.15, 0.60),
    "latino_middle_eastern": (0.12, 0.28, 0.60),
}
ANCESTRIES = ("african", "asian", "caucasian")
# Mean and spread of the skin's tone (0 fairest, 1 darkest): the groups overlap, as people do.
TONE = {
    "white": (0.13, 0.07),
    "black": (0.74, 0.13),
    "asian": (0.24, 0.09),
    "indian": (0.54, 0.13),
    "latino_middle_eastern": (0.36, 0.12),
}
# Hair colours (sRGB) and how often each group has them.
HAIR = np.array([(22, 18, 17), (42, 30, 24), (72, 50, 36), (110, 80, 54), (168, 134, 88), (112, 56, 32)], np.float32)
HAIR_SHARE = {
    "white": (0.12, 0.26, 0.26, 0.16, 0.14, 0.06),
    "black": (0.80, 0.15, 0.03, 0.01, 0.01, 0.0),
    "asian": (0.72, 0.19, 0.06, 0.02, 0.01, 0.0),
    "indian": (0.75, 0.20, 0.04, 0.01, 0.0, 0.0),
    "latino_middle_eastern": (0.45, 0.35, 0.13, 0.04, 0.03, 0.0),
}
EYES = np.array([(46, 28, 18), (74, 46, 26), (104, 84, 48), (92, 108, 84), (92, 124, 148)], np.float32)
EYE_SHARE = {
    "white": (0.15, 0.25, 0.15, 0.15, 0.30),
    "black": (0.80, 0.20, 0.0, 0.0, 0.0),
    "asian": (0.80, 0.20, 0.0, 0.0, 0.0),
    "indian": (0.75, 0.22, 0.03, 0.0, 0.0),
    "latino_middle_eastern": (0.50, 0.35, 0.10, 0.03, 0.02),
}
# Identity varies less where expressions show: otherwise a drooping mouth could not be told from a sad one.
EXPRESSIVE = ("mouth/mouth-angles", "mouth/mouth-upperlip", "mouth/mouth-lowerlip", "eyebrows/", "eyes/eye-height")
MOBILE = 0.5
# Slider means other than 0: MakeHuman's eyes and mouths are narrower, relative to MTCNN's box, than in photos.
TYPICAL = {"mouth/mouth-scale-horiz decr incr": 0.45, "eyes/eye-trans in out": 0.3}
_OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
)


@dataclasses.dataclass(frozen=True)
class Identity:
    """One person. Everything that stays the same from photo to photo.

    Attributes:
        key: Seed of everything that is drawn for this person (skin texture, brows, hair).
        gender: Index in `facejax.tasks.GENDER`.
        ethnicity: Index in `facejax.tasks.ETHNICITY`.
        age: Years. `dataclasses.replace(person, age=...)` is the same person at another age.
        dimorphism: How much the head's shape shows the sex: 0 not at all, 1 fully.
        ancestry: Shares of `ANCESTRIES`; they sum to one.
        sliders: Value in [-1, 1] of each shape slider of `shape_sliders`, in its order.
        asymmetry: Difference of the two sides of the paired sliders.
        weight: From lean (-1) to heavy (1).
        tone: Skin tone, 0 fairest to 1 darkest.
        redness: Redness of the skin relative to the average, about -1 to 1.
        hair: Natural hair colour, sRGB 0 to 255.
        eyes: Iris colour, sRGB 0 to 255.
        greying: Age at which the hair begins to turn grey.
        brow: Thickness of the brows relative to the average.
        beard: Density of the grown facial hair, 0 to 1.
        wrinkling: How strongly age shows in the skin, about 1.
    """

    key: tuple[int, ...]
    gender: int
    ethnicity: int
    age: float
    dimorphism: float
    ancestry: tuple[float, float, float]
    sliders: tuple[float, ...]
    asymmetry: tuple[float, ...]
    weight: float
    tone: float
    redness: float
    hair: tuple[float, float, float]
    eyes: tuple[float, float, float]
    greying: float
    brow: float
    beard: float
    wrinkling: float

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator that is the same for this person and purpose everywhere."""
        return np.random.default_rng([*self.key, int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")])


@functools.cache
def shape_sliders() -> tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...]:
    """The sliders of a head: name, and the targets of its negative and positive end (left and right tied)."""
    sliders: dict[str, dict[str, list[str]]] = {}
    for name in load_pack().target_index:
        if name.startswith(("macrodetails", "unit/", "head/head-age")):
            continue
        group, target = name.split("/")
        target = target.removeprefix("l-").removeprefix("r-")
        stem, end = target, "positive"
        for negative, positive in _OPPOSITES:
            if target.endswith("-" + negative):
                stem, end = f"{target.removesuffix('-' + negative)} {negative} {positive}", "negative"
            elif target.endswith("-" + positive):
                stem = f"{target.removesuffix('-' + positive)} {negative} {positive}"
        sliders.setdefault(f"{group}/{stem}", {}).setdefault(end, []).append(name)
    return tuple((name, {end: tuple(targets) for end, targets in sliders[name].items()}) for name in sorted(sliders))


def sample_age(rng: np.random.Generator) -> float:
    """An age in years: children to the very old, most between 18 and 60, as in the photo sets."""
    if rng.random() < 0.22:
        return float(rng.uniform(1, 90))
    return float(np.clip(16 + rng.gamma(2.2, 11.0), 1, 95))


def sample_identity(
    key: Sequence[int], *, gender: int | None = None, ethnicity: int | None = None, age: float | None = None
) -> Identity:
    """Draws a person.

    Args:
        key: Seeds; equal keys give equal people on every machine.
        gender: Index in GENDER, drawn when None.
        ethnicity: Index in ETHNICITY, drawn when None.
        age: Years, drawn when None.
    """
    rng = np.random.default_rng(list(key))
    drawn_gender, drawn_ethnicity, drawn_age = int(rng.integers(2)), int(rng.integers(len(ETHNICITY))), sample_age(rng)
    gender = drawn_gender if gender is None else gender
    ethnicity = drawn_ethnicity if ethnicity is None else ethnicity
    group, male = ETHNICITY[ethnicity], GENDER[gender] == "male"
    ancestry = rng.dirichlet(np.array(ANCESTRY[group]) * 14 + 0.05)
    count = len(shape_sliders())
    tone_mean, tone_spread = TONE[group]
    bearded = rng.choice([0.0, 0.25, 0.5, 1.0], p=[0.5, 0.22, 0.13, 0.15])
    return Identity(
        key=tuple(int(k) for k in key),
        gender=gender,
        ethnicity=ethnicity,
        age=drawn_age if age is None else float(age),
        dimorphism=float(rng.uniform(0.1, 1.0)),
        ancestry=(float(ancestry[0]), float(ancestry[1]), float(ancestry[2])),
        sliders=tuple(rng.normal(0, 0.25, count).clip(-0.7, 0.7).tolist()),
        asymmetry=tuple(rng.normal(0, 0.06, count).tolist()),
        weight=float(np.clip(rng.normal(0, 0.4), -0.8, 1)),
        tone=float(np.clip(rng.normal(tone_mean, tone_spread), 0, 1)),
        redness=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        hair=_pick(rng, HAIR, HAIR_SHARE[group]),
        eyes=_pick(rng, EYES, EYE_SHARE[group]),
        greying=float(rng.uniform(32, 68)),
        brow=float(rng.uniform(0.75, 1.25) * (1.06 if male else 0.86)),
        beard=float(bearded * rng.uniform(0.7, 1.0)) if male else 0.0,
        wrinkling=float(rng.uniform(0.6, 1.3) * (1.15 if male else 0.85)),
    )


def _pick(rng: np.random.Generator, colours: np.ndarray, share: Sequence[float]) -> tuple[float, float, float]:
    shares = np.array(share)
    red, green, blue = colours[rng.choice(len(colours), p=shares / shares.sum())] * rng.uniform(0.85, 1.15)
    return float(red), float(green), float(blue)


def age_shares(age: float) -> dict[str, float]:
    """Shares of MakeHuman's age stages (1, 10, 25 and 85 years) in a head of this age."""
    stages, years = ("baby", "child", "young", "old"), (1, 10, 25, 85)
    shares = np.array([np.interp(age, years, row) for row in np.eye(4)])
    return {stage: float(share) for stage, share in zip(stages, shares, strict=True) if share > 0}


def shape_weights(person: Identity) -> dict[str, float]:
    """Weights of the targets that make this person's head at rest."""
    weights: dict[str, float] = {}

    def add(name: str, weight: float) -> None:
        if weight and name in load_pack().target_index:
            weights[name] = weights.get(name, 0.0) + weight

    own, other = 0.5 + person.dimorphism / 2, 0.5 - person.dimorphism / 2
    heavy, lean = max(person.weight, 0.0), max(-person.weight, 0.0)
    for sex, sex_share in ((GENDER[person.gender], own), (GENDER[1 - person.gender], other)):
        for stage, stage_share in age_shares(person.age).items():
            for ancestry, share in zip(ANCESTRIES, person.ancestry, strict=True):
                add(f"macrodetails/{ancestry}-{sex}-{stage}", share * sex_share * stage_share)
            body = f"macrodetails/universal-{sex}-{stage}-averagemuscle-"
            add(body + "maxweight", heavy * sex_share * stage_share)
            add(body + "minweight", lean * sex_share * stage_share)
    # Children's heads vary less.
    spread = float(np.interp(person.age, [4, 16], [0.55, 1.0]))
    for (name, ends), value, side in zip(shape_sliders(), person.sliders, person.asymmetry, strict=True):
        value += TYPICAL.get(name, 0.0)
        extent = spread * (MOBILE if name.startswith(EXPRESSIVE) else 1.0)
        for target in ends.get("positive" if value > 0 else "negative", ()):
            left = target.split("/")[1].startswith("l-")
            add(target, (abs(value) + (side if left else 0.0)) * extent)
    add("head/head-age-incr", 0.5 * float(np.interp(person.age, [45, 85], [0, 1])) * person.wrinkling)
    return weights


def hair_colour(person: Identity) -> Float[np.ndarray, "3"]:
    """Hair colour at the person's age, sRGB 0 to 255: greying sets in at `Identity.greying`."""
    grey = float(np.clip((person.age - person.greying) / 25, 0, 0.95))
    return np.array(person.hair, np.float32) * (1 - grey) + np.array([186, 184, 182], np.float32) * grey
