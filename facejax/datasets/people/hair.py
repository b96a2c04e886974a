"""Hair: a cap on the scalp and strands that are grown, combed and pulled down, then drawn as lines."""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from facejax.datasets.people.assets import Pack
from facejax.datasets.people.identity import Identity
from facejax.datasets.people.light import Light

STEPS = 10  # points of a strand
SHADES, LAYERS = 8, 4  # of brightness and depth, when drawn
SLACK = 0.04  # units by which strands may be below the surface and still be visible
SCALP = 7.55  # height above which the head is only scalp
MIN_REACH = 0.12  # units; shorter strands look like dots, and the cap represents them better
LOCKS = 0.5  # share of the strands that are thick
# Template height of the hairline over depth z, from the nape to the forehead.
HAIRLINE = ((-1.2, 0.1, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5), (6.45, 6.6, 6.95, 7.35, 7.6, 7.8, 7.95, 8.02))


@dataclasses.dataclass(frozen=True)
class HairStyle:
    """How hair is worn.

    Attributes:
        length: Length of a strand, units; 0 is bald or shaven.
        volume: Lift of the hair off the scalp, units.
        comb: ``crown`` (falls all around), ``back``, ``parted`` or ``curls``.
        parting: x of the parting.
        curl: Waviness, 0 straight to 1.
        fringe: Length of the hair over the forehead relative to what reaches the brows, 0 to 1.
        receding: How far the hairline has receded, units.
    """

    length: float
    volume: float
    comb: str = "crown"
    parting: float = 0.0
    curl: float = 0.0
    fringe: float = 0.0
    receding: float = 0.0


def sample_style(person: Identity, rng: np.random.Generator) -> HairStyle:
    """Draws a hair style. Length depends on sex, as it does, but overlaps: hair alone reveals neither sex nor age."""
    long_share = 0.80 if person.gender == 0 else 0.07
    kind = "long" if rng.random() < long_share else "short"
    if person.age < 2.5:
        return HairStyle(float(rng.uniform(0.1, 0.3)), 0.02, curl=float(rng.uniform(0, 0.4)))
    frizzy = rng.random() < (0.7 if person.ethnicity == 1 else 0.07)
    bald_share = float(np.interp(person.age, [20, 35, 70], [0.02, 0.10, 0.22])) * (1.0 if person.gender == 1 else 0.08)
    receding = 0.0
    if person.gender == 1:
        receding = float(np.clip(rng.normal(0.3, 0.25), 0, 1)) * float(np.interp(person.age, [22, 70], [0, 0.55]))
    else:
        receding = -0.05
    receding += float(rng.normal(0, 0.04))
    if rng.random() < bald_share:
        return HairStyle(0.0, 0.0, receding=receding)
    worn = (0.2, 0.3, 0.5) if person.gender == 0 else (0.42, 0.25, 0.33)
    comb = str(rng.choice(["crown", "back", "parted"], p=worn))
    parting = float(rng.choice([-0.3, 0.0, 0.3]) + rng.normal(0, 0.05))
    curl = float(rng.beta(1.2, 3)) if not frizzy else float(rng.uniform(0.6, 1.0))
    if frizzy:
        if kind == "short":
            return HairStyle(
                float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.01, 0.1)), "curls", parting, curl, 0.0, receding
            )
        return HairStyle(
            float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.15, 0.5)), "curls", parting, curl, 0.2, receding
        )
    if kind == "short":
        cropped, grown = rng.uniform(0.12, 0.3), rng.uniform(0.3, 0.7)
        if person.gender == 0:
            length = float(grown if rng.random() < 0.4 else rng.uniform(0.7, 1.1))
            fringe = float(rng.uniform(0.1, 0.9))
        else:
            length = float(cropped if rng.random() < 0.6 else grown)
            fringe = float(rng.uniform(0.05, 0.6))
        return HairStyle(length, float(rng.uniform(0.03, 0.14)), comb, parting, curl, fringe, receding)
    length = float(rng.choice([rng.uniform(1.1, 1.7), rng.uniform(1.7, 3.4)]))
    tied = rng.random() < 0.25
    if tied:
        return HairStyle(0.7, 0.04, "back", parting, curl * 0.3, 0.0, receding)
    return HairStyle(
        length, float(rng.uniform(0.07, 0.16)), comb, parting, curl, float(rng.uniform(0.2, 1.0)), receding
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Hair:
    """Grown hair of one person.

    Attributes:
        style: Its style.
        cap: Share of hair on each vertex of the mesh.
        strands: Points of each strand, root first, in the person's axes.
        outward: Unit direction away from the skull at each point.
        shade: Brightness of each strand.
    """

    style: HairStyle
    cap: Float[np.ndarray, " vertices"]
    strands: Float[np.ndarray, "strands steps 3"]
    outward: Float[np.ndarray, "strands steps 3"]
    shade: Float[np.ndarray, " strands"]


def scalp(pack: Pack) -> Float[np.ndarray, " vertices"]:
    """Height above the usual hairline of every vertex of the skin (units, negative outside the hair)."""
    x, y, z = pack.vertices.T
    ear = (np.abs(x) > 0.70) & (y < 7.42) & (y > 6.75) & (z > -0.05) & (z < 0.62)
    return np.where(pack.skin & ~ear & (y > 6.3), y - np.interp(z, *HAIRLINE), -9).astype(np.float32)


def grow(pack: Pack, rest: Float[np.ndarray, "vertices 3"], style: HairStyle, rng: np.random.Generator) -> Hair:
    """Grows a person's hair on the head at rest."""
    x, y, z = pack.vertices.T
    above = scalp(pack)
    above = above - np.where(z > 0.3, style.receding * np.clip((y - 7.45) / 0.45, 0, 1), 0)
    uneven = rng.uniform(0, 2 * np.pi, 3)
    above = above + 0.03 * np.sin(x * 9 + uneven[0]) + 0.03 * np.sin(z * 7 + x * 5 + uneven[1])
    soft = 0.3 if style.length < 0.3 else 0.16
    cap = np.clip(above / soft + 0.5, 0, 1) if style.length > 0 else np.zeros(len(x), np.float32)
    if style.length == 0:
        empty = np.zeros((0, STEPS, 3), np.float32)
        return Hair(style, cap, empty, empty, np.zeros(0, np.float32))
    triangles = pack.triangles[(above[pack.triangles] > -0.03).all(1) & (pack.material == 0)]
    a, b, c = rest[triangles].transpose(1, 0, 2)
    area = np.sqrt((np.cross(b - a, c - a) ** 2).sum(1))
    count = int(np.interp(style.length, [0.1, 0.5, 2.0], [1500, 1300, 1100]))
    area = area * np.interp((a + b + c)[:, 2] / 3, [0.0, 0.7], [0.7, 2.0])  # the front is what photos show
    pick = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    root = a[pick] + u * (b - a)[pick] + v * (c - a)[pick]

    skull = rest[above > 0]
    middle = (skull.min(0) + skull.max(0)) / 2
    middle[1] -= 0.15
    radius = np.array([np.ptp(skull[:, 0]) / 2, skull[:, 1].max() - middle[1], np.ptp(skull[:, 2]) / 2])
    points, directions = _comb(root, middle, radius, style, rng)
    reach = np.sqrt(((points[:, -1] - points[:, 0]) ** 2).sum(1))
    kept = np.flatnonzero(reach > MIN_REACH)
    points, directions, count = points[kept], directions[kept], len(kept)
    shade = np.exp(rng.normal(0, 1, count) * np.where(np.arange(count) < count * LOCKS, 0.12, 0.35)).astype(np.float32)
    return Hair(style, cap.astype(np.float32), points.astype(np.float32), directions.astype(np.float32), shade)


@functools.cache
def _streaks() -> Float[np.ndarray, "2 256 512"]:
    """Noise stretched along the rows, and fine noise; mean 0 and standard deviation 1, the columns wrap around."""
    noise = np.random.default_rng(0).standard_normal((256, 512), np.float32)
    wrapped = np.concatenate([noise, noise, noise], 1)
    smooth = cv2.GaussianBlur(wrapped, (0, 0), sigmaX=0.7, sigmaY=9)[:, 512:1024]
    fine = cv2.GaussianBlur(wrapped, (0, 0), sigmaX=0.6, sigmaY=0.6)[:, 512:1024]
    return np.stack([smooth / smooth.std(), fine / fine.std()])


def cap_colour(
    hair: Hair, at: Float[np.ndarray, "points 3"], share: Float[np.ndarray, " points"], colour: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 1"]]:
    """Linear albedo of the hair on the scalp, and how much of the skin it covers.

    Args:
        hair: Its style gives the texture: stubble, curls or combed streaks.
        at: Template positions.
        share: `Hair.cap` there.
        colour: Linear albedo of a hair.
    """
    around = np.arctan2(at[:, 0], at[:, 2] - 0.2) / (2 * np.pi) + 0.5
    down = np.clip((8.6 - at[:, 1]) / 2.6, 0, 1)
    short = hair.style.length < 0.3 or hair.style.comb == "curls"
    u, v = (down, around) if hair.style.comb == "back" and not short else (around, down)
    texture = _streaks()[1 if short else 0, (v * 255).astype(np.int32), (u * 511).astype(np.int32)]
    edge = share + 0.16 * texture * (share < 0.95)
    cover = np.clip((edge - 0.3) / 0.4, 0, 1) * (0.98 if hair.style.length > 0.12 else 0.75)
    lightness = 0.75 * np.exp((0.25 if short else 0.3) * texture)
    return colour * lightness[:, None], cover[:, None].astype(np.float32)


def _length(vectors: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 1"]:
    x, y, z = vectors.T
    return np.sqrt(x * x + y * y + z * z)[:, None]


def _comb(
    root: np.ndarray, middle: np.ndarray, radius: np.ndarray, style: HairStyle, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    count = len(root)

    def outward(p: np.ndarray) -> np.ndarray:
        n = (p - middle) / radius**2
        return n / _length(n)

    out = outward(root)
    if style.comb == "back":
        wish = np.array([0, 0.15, -1.0]) + np.zeros_like(root)
    elif style.comb == "parted":
        side = np.where(root[:, :1] > style.parting, 1.0, -1.0)
        wish = side * [1.0, 0, 0] + np.array([0, -0.25, -0.2])
    else:
        crown = middle + radius * np.array([0.15 * np.sign(style.parting + 1e-9), 0.95, -0.25])
        wish = root - crown
    # Neighbouring strands are aligned: most of the disorder varies slowly over the scalp.
    waves = np.sin(root @ rng.normal(0, 5, (3, 3)) + rng.uniform(0, 2 * np.pi, 3))
    low = np.clip((middle[1] + 0.1 - root[:, 1:2]) / 0.3, 0, 1)
    wish = wish + low * np.array([0, -0.5, -0.9]) * _length(wish)
    wish = wish + (0.15 + 0.3 * style.curl) * waves + rng.normal(0, 0.06 + 0.35 * style.curl**2, root.shape)
    wish -= out * (wish * out).sum(1, keepdims=True)
    wish /= _length(wish) + 1e-6
    direction = wish + out * (0.15 + (1.5 if style.comb == "curls" else 0.0))

    length = style.length * rng.uniform(0.75, 1.1, count)
    if style.length < 0.9:  # short hair is cut shorter at the sides and the nape
        length *= np.clip(0.35 + (root[:, 1] - middle[1]) / radius[1], 0.25, 1)
    front = np.clip((root[:, 2] - middle[2]) / radius[2] - 0.35, 0, 1) * (np.abs(root[:, 0]) < 0.55)
    brows = middle[1] + 0.1
    fringe = np.clip((root[:, 1] - brows) * style.fringe, 0.06, None)
    if style.comb != "back" and not (style.comb == "parted" and style.length > 0.9):  # that falls to the sides
        length = np.where(
            front > 0.1, np.minimum(length, np.where(style.comb == "parted", fringe * 1.3, fringe)), length
        )
    step = (length / (STEPS - 1))[:, None]
    pull = 0.03 + 0.25 * np.clip(style.length - 0.2, 0, 1.0)
    shell = radius * (1 + style.volume * rng.uniform(0.35, 1.0, (count, 1))) + 0.012
    veiled = (rng.random((count, 1)) < 0.012) & (np.arange(count) > count * (LOCKS + 0.1))[:, None]
    phase = rng.uniform(0, 2 * np.pi, (count, 2))
    point, points, normals = root, [root], [out]
    for k in range(1, STEPS):
        wave = np.stack([np.sin(phase[:, 0] + k * 1.5), np.zeros(count), np.cos(phase[:, 1] + k * 1.3)], 1)
        direction = direction / _length(direction)
        direction = direction + [0, -pull * (1 + 0.25 * k), 0] + style.curl * 0.4 * wave
        point = point + step * direction / _length(direction)
        reach = (point - middle) / shell
        inside = _length(reach)
        point = np.where(
            (inside < 1) & (point[:, 1:2] > middle[1] - radius[1] * 0.9), middle + reach / inside * shell, point
        )
        # Hair that would hang in front of the eyes is cut there.
        blinds = (
            (point[:, 1] < brows)
            & (point[:, 2] > middle[2] + 0.4 * radius[2])
            & (np.abs(point[:, 0]) < 0.8 * radius[0])
        )
        point = np.where(blinds[:, None] & ~veiled, points[-1], point)
        points.append(point)
        normals.append(outward(point))
    return np.stack(points, 1), np.stack(normals, 1)


def _rank(values: Float[np.ndarray, " values"], groups: int) -> Int[np.ndarray, " values"]:
    """Index of each value's group, for `groups` of about equal size; bounds are estimated from every fourth value."""
    some = np.sort(values[::4])
    return np.searchsorted(some[len(some) * np.arange(1, groups) // groups], values, side="right")


def draw(
    canvas: UInt8[np.ndarray, "rows columns 4"],
    nearest: Float[np.ndarray, "rows columns"],
    xy: Float[np.ndarray, "strands steps 2"],
    depth: Float[np.ndarray, "strands steps"],
    tangent: Float[np.ndarray, "strands segments 3"],
    outward: Float[np.ndarray, "strands steps 3"],
    hair: Hair,
    colour: Float[np.ndarray, "3"],
    light: Light,
    thickness: int,
) -> None:
    """Draws the strands that the head does not hide, far ones first, onto a premultiplied sRGB canvas.

    Args:
        canvas: Changed in place.
        nearest: Depth of the head at each pixel, -inf where there is none.
        xy: Points of the strands, canvas pixels.
        depth: Depth of the points.
        tangent: Direction of each segment in the camera's axes.
        outward: Direction away from the skull in the camera's axes.
        hair: Gives each strand's brightness.
        colour: Linear albedo.
        light: Light of the scene.
        thickness: Width of a lock, pixels.
    """
    rows, columns = nearest.shape
    middle = (xy[:, 1:] + xy[:, :-1]) / 2
    deep = (depth[:, 1:] + depth[:, :-1]) / 2
    column, row = middle[..., 0].astype(np.int32), middle[..., 1].astype(np.int32)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    surface = nearest[row.clip(0, rows - 1), column.clip(0, columns - 1)]
    # A long segment can cut through the skull; where it faces the camera, only scalp can be in front of it.
    on_scalp = hair.strands[:, 1:, 1] > SCALP
    slack = SLACK + (0.6 * hair.style.volume + 0.3 * np.clip(outward[:, 1:, 2], 0, 1)) * on_scalp
    strand, segment = np.nonzero(inside & (deep > surface - slack))
    if not len(strand):
        return
    key = light.towards
    along = tangent[strand, segment]
    out = outward[strand, segment + 1]
    across_key = np.sqrt(np.clip(1 - (along @ key) ** 2, 0, 1))
    glint = np.clip(1 - (along @ light.halfway) ** 2, 0, 1) ** 24
    facing = np.clip((out @ key + 0.35) / 1.35, 0, 1)
    up = (1 + out[:, 1]) / 2
    strength = float(np.mean(light.key_colour))
    ambient = float(np.mean(light.above)) * up + float(np.mean(light.below)) * (1 - up)
    rise = 0.55 + 0.45 * (segment + 1) / (STEPS - 1)
    diffuse = (ambient + strength * facing * across_key) * rise * hair.shade[strand]
    gloss = 0.06 * strength * facing * glint * hair.shade[strand]
    # Brightness is quantised so that all strands of a shade and width are drawn in one call.
    bright = diffuse + gloss * 8
    level = _rank(bright, SHADES)
    order = deep[strand, segment]
    layer = _rank(order, LAYERS)
    # The first strands are locks that fill; they thin out towards their ends. The others are single hairs.
    share = np.where(strand < len(hair.shade) * LOCKS, np.clip(1.25 - (segment + 1) / STEPS, 0.2, 1), 0.0)
    width = np.maximum(1, np.round(thickness * share)).astype(np.int32)
    fixed = np.round(xy * 8).astype(np.int32)
    ends = np.stack([fixed[strand, segment], fixed[strand, segment + 1]], 1)
    group = (layer * SHADES + level + 1) * 64 - width
    by_group = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[by_group], prepend=-1))
    sizes = np.diff(np.append(starts, len(by_group)))[:, None]
    lit = np.stack([diffuse, gloss], 1)[by_group]
    mean = np.add.reduceat(lit, starts, axis=0) / sizes
    paint = 255 * np.clip(mean[:, :1] * colour + mean[:, 1:], 0, 1) ** (1 / 2.2)
    ends = ends[by_group]
    for start, size, (red, green, blue) in zip(starts, sizes[:, 0], paint.tolist(), strict=True):
        wide = int(width[by_group[start]])
        cv2.polylines(canvas, list(ends[start : start + size]), False, (red, green, blue, 255.0), wide, cv2.LINE_AA, 3)
