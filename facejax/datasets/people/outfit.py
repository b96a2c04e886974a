"""Clothes: the colour of each point of the bust."""

import dataclasses

import numpy as np
from jaxtyping import Float

from facejax.datasets.people.skin import linear


@dataclasses.dataclass(frozen=True)
class Outfit:
    """Clothes of the bust.

    Attributes:
        kind: ``crew``, ``vneck``, ``shirt`` or ``suit``.
        main: Colour of the garment, sRGB 0 to 255.
        under: Colour of the shirt below a suit.
        accent: Colour of tie or stripes.
        neckline: Template height of the collar at the middle.
        stripes: Stripes per unit of length, 0 for none.
    """

    kind: str
    main: tuple[float, float, float]
    under: tuple[float, float, float]
    accent: tuple[float, float, float]
    neckline: float
    stripes: float

    def colour(
        self, at: Float[np.ndarray, "points 3"], bare: Float[np.ndarray, "points 3"]
    ) -> Float[np.ndarray, "points 3"]:
        """Linear albedo at template positions of the bust, whose skin has the colour `bare`."""
        side, y, z = np.ascontiguousarray(at.T)
        x = np.abs(side)
        front = z > 0.35
        main, under, accent = (linear(np.array(c)) for c in (self.main, self.under, self.accent))
        cloth = np.broadcast_to(main, bare.shape).copy()
        if self.stripes:
            band = (np.sin(y * 2 * np.pi * self.stripes) > 0.2)[:, None]
            cloth = np.where(band, accent, cloth)
        edge = 0.18 * x + np.float32(self.neckline) + np.where(front, 0, np.float32(0.25))
        if self.kind == "vneck":
            edge -= 0.5 * np.exp(-((x / 0.35) ** 2))
        if self.kind in ("suit", "shirt"):
            edge = np.where(front, self.neckline - 0.12 + 0.5 * x, np.float32(self.neckline + 0.25))
        if self.kind == "suit":
            inner = front & (x < (y - 4.1) * 0.30)
            cloth = np.where(inner[:, None], under, cloth)
            tie = inner & (x < 0.11 + 0.05 * np.clip(5.4 - y, 0, 1)) & (y < self.neckline - 0.2)
            cloth = np.where(tie[:, None], accent, cloth)
        # Folds of the cloth, and the shadow of its edge on the skin.
        fold = np.sin(side * 5 + 2.5 * np.sin(y * 3 + self.neckline * 9)) * np.sin(y * 7 + side * 3)
        below = edge - y
        cover = np.clip(below / 0.04, 0, 1)
        seam = 1 - 0.4 * np.exp(-(((below - 0.04) / 0.035) ** 2))
        of_cloth = (1 + 0.22 * fold * np.clip((5.9 - y) * 2, 0, 1)) * seam * cover
        of_skin = (1 - 0.35 * np.exp(-np.clip(-below, 0, None) / 0.06)) * (1 - cover)
        return bare * of_skin[:, None] + cloth * of_cloth[:, None]


def sample_outfit(rng: np.random.Generator, skin: Float[np.ndarray, "3"]) -> Outfit:
    """Draws clothes, mostly dark, white or muted; they do not depend on who wears them.

    Args:
        rng: Source of randomness.
        skin: Linear albedo of the wearer's skin: clothes that look like it are drawn again.
    """

    def muted() -> tuple[float, float, float]:
        for _ in range(4):
            colour = shade()
            if np.abs(linear(np.array(colour)).mean() / skin.mean() - 1) > 0.45:
                break
        return colour

    def shade() -> tuple[float, float, float]:
        grey = rng.choice([rng.uniform(15, 60), rng.uniform(60, 170), rng.uniform(190, 245)], p=[0.45, 0.35, 0.2])
        red, green, blue = np.clip(grey + rng.normal(0, 18 if rng.random() < 0.8 else 45, 3), 8, 250)
        return float(red), float(green), float(blue)

    kind = str(rng.choice(["crew", "vneck", "shirt", "suit"], p=[0.35, 0.2, 0.2, 0.25]))
    stripes = float(rng.uniform(1.5, 5)) if kind != "suit" and rng.random() < 0.12 else 0.0
    light = float(rng.uniform(190, 240))
    return Outfit(kind, muted(), (light, light, light), muted(), float(rng.uniform(5.6, 5.95)), stripes)
