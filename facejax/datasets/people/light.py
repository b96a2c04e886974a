"""How a head is lit: a key light with cast shadows, the light of the surroundings, and the gloss of skin."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from facejax.datasets.people.raster import rasterize

SHADOW_SIZE = 96
SHADOW_BIAS = 0.06  # units; a smaller bias makes triangles shadow themselves


@dataclasses.dataclass(frozen=True)
class Light:
    """The light of a scene, in the camera's axes (x right, y up, z towards the camera).

    Attributes:
        key: Direction towards the main light.
        key_colour: Strength of the main light, by channel.
        softness: How far it reaches around the edge: 0 a point, 1 an overcast sky.
        above: Light from above, by channel.
        below: Light from below (floor, table), by channel.
        side: Direction towards a second, wide light.
        side_colour: Strength of the second light, by channel.
        gloss: Strength of the skin's shine.
    """

    key: tuple[float, float, float]
    key_colour: tuple[float, float, float]
    softness: float
    above: tuple[float, float, float]
    below: tuple[float, float, float]
    side: tuple[float, float, float]
    side_colour: tuple[float, float, float]
    gloss: float = 0.3

    @property
    def towards(self) -> Float[np.ndarray, "3"]:
        """Unit direction of the key light."""
        return _unit(np.array(self.key))

    @property
    def halfway(self) -> Float[np.ndarray, "3"]:
        """Unit direction halfway between key light and camera."""
        return _unit(self.towards + np.array([0, 0, 1]))


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.sqrt((vector**2).sum())).astype(np.float32)


def sample_light(rng: np.random.Generator, *, soft: bool = False) -> Light:
    """Draws a light: flash, window, overcast sky, sun, ceiling lamps; warm or cold; `soft` allows overcast only."""
    kind = rng.choice(4, p=[0, 0, 1, 0] if soft else [0.25, 0.3, 0.25, 0.2])
    if kind == 0:  # flash or a lamp near the camera
        key, strength, softness, ambient = (rng.normal(0, 0.25), rng.uniform(0.1, 0.5), 1.0), 0.75, 0.15, 0.35
    elif kind == 1:  # window at the side
        side = rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        key, strength, softness, ambient = (side, rng.uniform(0.1, 0.7), rng.uniform(0.3, 0.9)), 0.75, 0.35, 0.38
    elif kind == 2:  # overcast
        key, strength, softness, ambient = (rng.normal(0, 0.4), 1.0, rng.uniform(0.3, 0.9)), 0.45, 0.7, 0.6
    else:  # sun, spotlight
        key, strength, softness, ambient = (
            (rng.normal(0, 0.7), rng.uniform(0.5, 1.2), rng.uniform(0.3, 1.0)),
            1.0,
            0.1,
            0.26,
        )
    warm = rng.normal(0, 0.06)
    tint, opposite = np.array([1 + warm, 1.0, 1 - warm]), np.array([1 - warm * 0.7, 1.0, 1 + warm * 0.7])
    ambient = ambient * rng.uniform(0.75, 1.25)
    top = rng.uniform(0.9, 1.5)
    side_strength = rng.uniform(0.0, 0.35)
    return Light(
        key=(float(key[0]), float(key[1]), float(key[2])),
        key_colour=_triple(tint * strength * rng.uniform(0.8, 1.15)),
        softness=float(softness * rng.uniform(0.7, 1.3)),
        above=_triple(opposite * ambient * top),
        below=_triple(np.array([1.03, 1.0, 0.95]) * ambient * (1.7 - top) * 0.8),
        side=(
            float(rng.choice([-1, 1]) * rng.uniform(0.5, 1)),
            float(rng.uniform(-0.3, 0.5)),
            float(rng.uniform(-0.4, 0.6)),
        ),
        side_colour=_triple(opposite * side_strength),
        gloss=float(rng.uniform(0.05, 0.35)),
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def irradiance(
    light: Light,
    normals: Float[np.ndarray, "points 3"],
    bent: Float[np.ndarray, "points 3"],
    lit: Float[np.ndarray, " points"],
) -> Float[np.ndarray, "points 3"]:
    """Diffuse light that reaches each point, by channel.

    Args:
        light: Light of the scene.
        normals: Unit normals in the camera's axes.
        bent: Mean open direction in the camera's axes, shortened by occlusion.
        lit: Share of the key light that arrives (shadows).
    """
    # Skin scatters red light furthest: it bleeds around the shadow's edge.
    wrap = light.softness * 0.6 + np.array([0.22, 0.09, 0.05], np.float32)
    facing = normals @ light.towards
    key = np.clip((facing[:, None] + wrap) / (1 + wrap), 0, None) ** 1.15
    lit = lit + (1 - lit) * min(0.9, light.softness)  # a wide light casts weak shadows
    arrives = lit[:, None] + (1 - lit[:, None]) * np.array([0.10, 0.03, 0.02], np.float32)
    x, y, z = bent.T
    openness = np.sqrt(x * x + y * y + z * z)[:, None]
    up = bent[:, 1:2]
    around = (
        np.array(light.above, np.float32) * (openness + up) / 2
        + np.array(light.below, np.float32) * (openness - up) / 2
    )
    second = np.clip(bent @ _unit(np.array(light.side)) * 0.75 + 0.25 * openness[:, 0], 0, None)[:, None]
    return (
        key * arrives * np.array(light.key_colour, np.float32)
        + around
        + second * np.array(light.side_colour, np.float32)
    )


def shine(
    light: Light, normals: Float[np.ndarray, "points 3"], lit: Float[np.ndarray, " points"], sharpness: float
) -> Float[np.ndarray, " points"]:
    """Highlight of the key light (Blinn-Phong with a grazing term), relative to a white surface."""
    grazing = np.clip(1 - normals[:, 2], 0, 1) ** 3
    glint = np.clip(normals @ light.halfway, 0, 1) ** sharpness
    return light.gloss * lit * (glint + 0.25 * grazing * np.clip(normals @ light.towards + 0.3, 0, 1))


def key_shadow(
    light: Light,
    points: Float[np.ndarray, "points 3"],
    triangles: Int[np.ndarray, "triangles 3"],
    receivers: Bool[np.ndarray, " points"],
) -> Float[np.ndarray, " points"]:
    """Share of the key light that reaches each point, from a small shadow map: 0 shaded, 1 lit.

    Args:
        light: Light of the scene.
        points: Positions in the camera's axes.
        triangles: What casts shadows.
        receivers: Points to look up; the others are lit.
    """
    towards = light.towards
    side = np.cross([0.0, 1.0, 0.0], towards)
    side /= np.sqrt((side**2).sum())
    basis = np.stack([side, np.cross(towards, side), towards]).astype(np.float32)
    seen = np.einsum("nk,jk->nj", points, basis)
    low, high = seen[receivers].min(0), seen[receivers].max(0)
    scale = (SHADOW_SIZE - 4) / max(high[0] - low[0], high[1] - low[1])
    x = (seen[:, 0] - low[0]) * scale + 2
    y = (high[1] - seen[:, 1]) * scale + 2
    fragments = rasterize(np.stack([x, y], 1), seen[:, 2], triangles, SHADOW_SIZE, SHADOW_SIZE)
    nearest = np.full(SHADOW_SIZE * SHADOW_SIZE, -np.inf, np.float32)
    nearest[fragments.pixel] = fragments.depth
    lit = np.ones(len(points), np.float32)
    at_x, at_y, depth = x[receivers], y[receivers], seen[receivers, 2] + SHADOW_BIAS
    total = np.zeros(len(at_x), np.float32)
    taps = ((-1.0, -0.4), (0.4, -1.0), (1.0, 0.4), (-0.4, 1.0), (0.0, 0.0))
    for dx, dy in taps:
        column = (at_x + dx).astype(np.int32).clip(0, SHADOW_SIZE - 1)
        row = (at_y + dy).astype(np.int32).clip(0, SHADOW_SIZE - 1)
        total += depth >= nearest[row * SHADOW_SIZE + column]
    lit[receivers] = total / len(taps)
    return lit
