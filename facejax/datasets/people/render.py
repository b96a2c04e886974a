"""Renders one person: shape, pose, light and hair become a layer that a scene composites over its background."""

import dataclasses
import functools
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facejax.datasets.people import hair as hairdo
from facejax.datasets.people import skin as skins
from facejax.datasets.people.accessories import Glasses, draw_glasses, glasses_points
from facejax.datasets.people.assets import CHART_LEFT, CHART_SCALE, CHART_TOP, Pack, chart_xy, load_pack
from facejax.datasets.people.camera import Camera, Framing, framing, place, project, turn
from facejax.datasets.people.expression import Expression
from facejax.datasets.people.identity import Identity, hair_colour, shape_weights
from facejax.datasets.people.light import Light, irradiance, key_shadow, shine
from facejax.datasets.people.outfit import Outfit
from facejax.datasets.people.raster import Fragments, rasterize

# Faces below this height (pixels, forehead to chin) are rendered up to this factor larger, then reduced.
RENDER_HEIGHT, MOST_ENLARGED = 118, 1.4
# Share of the surroundings' light inside eyes and mouth, by material; the template's closed mouth would give none.
INNER_OPENNESS = {1: 0.85, 2: 0.85, 3: 0.9, 4: 0.75, 5: 0.6, 6: 0.5, 7: 0.28}
TEETH, TONGUE, MOUTH = np.array([0.78, 0.74, 0.66]), np.array([0.20, 0.06, 0.055]), np.array([0.14, 0.03, 0.028])
SCLERA = np.array([0.60, 0.56, 0.53], np.float32)
IRIS_RADIUS = 0.061
BUST_END = 3.6  # template height below which the bust is extended downwards
TOOTH = 0.075  # width of a tooth, units
TEETH_DROP = 0.03  # the mesh keeps the upper teeth too high to show in a smile


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """An identity ready to be rendered: what does not change from photo to photo.

    Attributes:
        identity: Who it is.
        rest: Positions of the head's vertices without expression.
        frame: Where its face is.
        skin: Its painted skin.
    """

    identity: Identity
    rest: Float[np.ndarray, "vertices 3"]
    frame: Framing
    skin: skins.Skin


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """What may change from photo to photo: hair, clothes and glasses."""

    hair: hairdo.Hair
    outfit: Outfit
    glasses: Glasses | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A rendered person and where it goes.

    Attributes:
        rgba: Premultiplied sRGB with coverage.
        left: Column of the photo where the layer begins.
        top: Row of the photo where the layer begins.
    """

    rgba: UInt8[np.ndarray, "rows columns 4"]
    left: int
    top: int


@functools.lru_cache(maxsize=8)  # a group's clip has up to seven people
def make_person(identity: Identity) -> Person:
    """Shapes and paints a person; the last few are cached, as photos of a person are consecutive."""
    pack = load_pack()
    rest = pack.morph(pack.vertices, shape_weights(identity))
    upper = np.unique(pack.triangles[pack.material == 3])
    rest[upper, 1] -= TEETH_DROP
    rest[pack.vertices[:, 1] < BUST_END, 1] -= 4.0  # moves the bust's cut edge out of the photo
    frame = framing({name: rest[index] for name, index in pack.key_vertices.items()})
    return Person(identity, rest, frame, skins.paint(identity))


@functools.cache
def _static() -> dict[str, np.ndarray]:
    """What depends only on the template."""
    pack = load_pack()
    x, y, z = pack.vertices.T
    chart_x, chart_y = chart_xy(x, y)
    openness = np.sqrt((pack.bent_normal**2).sum(1))
    inner = np.zeros(len(x), bool)
    for material, share in INNER_OPENNESS.items():
        own = np.setdiff1d(pack.triangles[pack.material == material], np.flatnonzero(pack.skin))
        openness[own] = share
        inner[own] = True
    # Teeth are set back a little so that they never poke through stretched lips.
    teeth = np.zeros(len(x), np.float32)
    teeth[pack.triangles[(pack.material == 3) | (pack.material == 4)]] = 0.05
    eyes = np.zeros(len(x), bool)
    eyes[np.concatenate(pack.eye_vertices)] = True
    return {
        "chart": np.stack([chart_x, chart_y, z]).astype(np.float32),
        "front": np.clip((pack.normals(pack.vertices)[:, 2] - 0.05) / 0.3, 0, 1),
        "openness": openness.astype(np.float32),
        "inner": inner,
        "behind": teeth,
        "eyes": eyes,
        "receives": (pack.skin | eyes) & (y > 5.0),
        "casts": pack.triangles[(pack.material == 0) & (pack.vertices[pack.triangles][:, :, 1].min(1) > 4.6)],
    }


def draw(
    person: Person,
    expression: Expression,
    camera: Camera,
    light: Light,
    look: Look,
    size: tuple[int, int],
    exposure: float,
) -> Layer | None:
    """Renders a person for a photo.

    Args:
        person: The person.
        expression: The expression.
        camera: The pose; its centre and size are in the photo's pixels.
        light: Light of the scene.
        look: Hair and clothes.
        size: Rows and columns of the photo.
        exposure: Target mean brightness of the face, linear, 0 to 1; dark skin stays darker.

    Returns:
        The layer, or None when nothing of the person is in the photo.
    """
    pack, static = load_pack(), _static()
    vertices = pack.morph(person.rest, expression.targets())
    normals = pack.normals(vertices)
    crease = np.where(static["inner"], 1.0, _crease(pack, vertices, normals))
    lifted = vertices + normals * (look.hair.cap * look.hair.style.volume * 0.6)[:, None]
    template_height = pack.vertices[:, 1]
    placed = place(lifted, template_height, person.frame, camera)

    scale = float(np.clip(RENDER_HEIGHT / camera.size, 1.0, MOST_ENLARGED))
    strands = look.hair.strands.reshape(-1, 3)
    strand_height = np.maximum(strands[:, 1], 5.7)
    strands_placed = place(strands, strand_height, person.frame, camera)
    xy = project(placed, person.frame, camera)
    strands_xy = project(strands_placed, person.frame, camera)
    every = np.concatenate([xy, strands_xy])
    left, top = np.floor(every.min(0) - 2).clip(0).astype(int).tolist()
    right, bottom = np.ceil(every.max(0) + 2).clip(0, [size[1], size[0]]).astype(int).tolist()
    if right - left < 4 or bottom - top < 4:
        return None
    columns, rows = round((right - left) * scale), round((bottom - top) * scale)
    factor = np.array([columns / (right - left), rows / (bottom - top)], np.float32)
    canvas_xy = ((xy - [left, top]) * factor).astype(np.float32)
    fragments = rasterize(canvas_xy, placed[:, 2] - static["behind"], pack.triangles, rows, columns)

    turned = turn(normals, template_height, camera, pivot=False)
    bent = turn((pack.bent_normal + normals * static["openness"][:, None]) / 2, template_height, camera, pivot=False)
    bent[static["inner"]] = turned[static["inner"]] * static["openness"][static["inner"], None]
    bent *= crease[:, None]
    lit = key_shadow(light, placed, static["casts"], static["receives"])
    lit[static["inner"] & ~static["eyes"]] = 0.75
    lit = np.where(static["inner"], lit, pack.neighbour_mean(lit)) * np.clip(0.4 + 0.6 * crease, 0, 1)
    received = irradiance(light, turned, bent, lit)
    glint = shine(light, turned, lit * crease, 20.0)

    colour = _shade(person, expression, camera, light, look, fragments, received, glint)
    # The camera exposes for the face, but not fully: dark skin stays darker.
    facing = pack.contour[turned[pack.contour, 2] > 0.2]
    mean = float((received[facing].mean(0) * person.skin.base).mean()) if len(facing) else exposure
    gain = (exposure / max(mean, 1e-3)) ** 0.6
    colour *= gain
    canvas = np.zeros((rows * columns, 4), np.uint8)
    opaque = np.full((1, len(fragments.pixel)), 255, np.uint8)
    # Four bytes as one number: one scattered write per pixel.
    canvas.view(np.uint32)[fragments.pixel] = np.stack([*_encode(colour), *opaque], 1).view(np.uint32)
    nearest = np.full(rows * columns, -np.inf, np.float32)
    nearest[fragments.pixel] = fragments.depth
    canvas = canvas.reshape(rows, columns, 4)
    if len(strands) and look.hair.style.length > 0.2:
        count, steps = look.hair.strands.shape[:2]
        segments = np.diff(strands_placed.reshape(count, steps, 3), axis=1)
        hairdo.draw(
            canvas,
            nearest.reshape(rows, columns),
            ((strands_xy - [left, top]) * factor).reshape(count, steps, 2),
            strands_placed[:, 2].reshape(count, steps),
            segments / (np.sqrt((segments**2).sum(2, keepdims=True)) + 1e-9),
            turn(look.hair.outward.reshape(-1, 3), strand_height, camera, pivot=False).reshape(count, steps, 3),
            look.hair,
            skins.linear(hair_colour(person.identity)) * gain,
            light,
            max(1, round(camera.size * scale / 50)),
        )
    if look.glasses is not None:
        lines = []
        for points in glasses_points(look.glasses, pack, person.rest):
            at = place(points, np.full(len(points), 7.0, np.float32), person.frame, camera)
            lines.append(((project(at, person.frame, camera) - [left, top]) * factor, at[:, 2]))
        pixels = camera.size * scale / person.frame.height
        draw_glasses(canvas, nearest.reshape(rows, columns), look.glasses, lines, pixels)
    rgba = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return Layer(rgba, left, top)


def _crease(pack: Pack, vertices: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Share of light that a vertex keeps in the creases of the current expression."""
    hollow = ((pack.neighbour_mean(vertices) - vertices) * normals).sum(1)
    hollow = pack.neighbour_mean(hollow)
    hollow = (hollow + pack.neighbour_mean(hollow)) / 2
    return np.clip(1 - hollow * 44, 0.25, 1.12).astype(np.float32)


def _encode(linear: np.ndarray) -> np.ndarray:
    """Bytes (sRGB) of linear light, with a soft shoulder above 0.7."""
    return np.take(_tone_curve(), (linear * 2047.5).astype(np.int32), mode="clip")


@functools.cache
def _tone_curve() -> np.ndarray:
    light = np.linspace(0, 2, 4096)
    light = np.where(light < 0.7, light, 0.7 + 0.3 * (1 - np.exp(-(light - 0.7) / 0.3)))
    return (255 * light ** (1 / 2.2)).round().astype(np.uint8)


def _sample(x: np.ndarray, y: np.ndarray, *charts: np.ndarray) -> Iterator[np.ndarray]:
    """Bilinear samples of charts; remap needs an image, so the points are folded into rows."""
    count = len(x)
    rows = -(-count // 1024)
    padded = np.zeros((2, rows * 1024), np.float32)
    padded[0, :count], padded[1, :count] = x, y
    grid = padded.reshape(2, rows, 1024)
    for chart in charts:
        picked = cv2.remap(chart, grid[0], grid[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        yield picked.reshape(rows * 1024, *chart.shape[2:])[:count]


def _shade(
    person: Person,
    expression: Expression,
    camera: Camera,
    light: Light,
    look: Look,
    fragments: Fragments,
    received: np.ndarray,
    glint: np.ndarray,
) -> np.ndarray:
    """Linear colour of every fragment, one row per channel: long rows are fast."""
    pack, static = load_pack(), _static()
    attributes = np.concatenate(
        [static["chart"], received.T, [glint, look.hair.cap, static["front"]]], dtype=np.float32
    )
    values = fragments.interpolate(attributes.T, pack.triangles).T
    material = pack.material[fragments.triangle]
    chart_x, chart_y, z = values[:3]
    x, y = chart_x / CHART_SCALE + CHART_LEFT, CHART_TOP - chart_y / CHART_SCALE
    gloss, cap, front = values[6:]

    # Nearly all is skin: everything is shaded as such, and the few pixels of eyes and mouth are painted over below.
    painted, relief = _sample(chart_x, chart_y, person.skin.colour, _relief(person, expression, camera, light))
    albedo = person.skin.base[:, None] * (1 - front)
    relief *= front
    for plane, channel in zip(albedo, painted.T, strict=True):
        plane += channel * relief
    # Hair and brows do not shine like skin, and dark skin shines less than light skin.
    lightness = np.clip((albedo[0] + albedo[1] + albedo[2]) / (3 * person.skin.base.mean()), 0.1, 1.1)
    shine_of = gloss * lightness * np.sqrt(lightness)
    capped = np.flatnonzero(cap > 0.02)
    at = np.stack([axis[capped] for axis in (x, y, z)], 1)
    tint, cover = hairdo.cap_colour(look.hair, at, cap[capped], skins.linear(hair_colour(person.identity)))
    cover = cover[:, 0]
    for plane, channel in zip(albedo, tint.T, strict=True):
        bare = plane[capped]
        plane[capped] = bare + (channel - bare) * cover
    shine_of[capped] *= 1 - 0.9 * cover
    low = np.flatnonzero(y < 6.2)
    at = np.stack([axis[low] for axis in (x, y, z)], 1)
    albedo[:, low] = look.outfit.colour(at, albedo[:, low].T).T
    shine_of[low] *= 0.3

    # Little light enters a mouth that is barely open.
    units = expression.units
    parted = sum(units.get(unit, 0.0) for unit in ("mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft"))
    entrance = float(np.clip(0.3 + 1.8 * units.get("jawOpen", 0.0) + 0.6 * parted, 0, 1))
    for index, inner in ((3, TEETH), (4, TEETH * 0.92), (5, TONGUE), (7, MOUTH)):
        own = np.flatnonzero(material == index)
        deep = entrance * np.clip((z[own] - 0.95) / 0.4, 0.12, 1)
        albedo[:, own] = inner[:, None] * (deep * _tooth_gaps(x[own]) if index in (3, 4) else deep**1.5)
        shine_of[own] = gloss[own] * (1.5 if index in (3, 4, 5) else 0.3)
    lashes = material == 6
    albedo[:, lashes] = (person.skin.base * 0.15 + 0.004)[:, None]
    shine_of[lashes] = 0
    for index in (1, 2):
        own = np.flatnonzero(material == index)
        if len(own):
            offset = np.stack([x[own], y[own]], 1) - pack.eye_centers[index - 1][:2]
            albedo[:, own] = _iris(person, offset, expression.gaze).T
            shine_of[own] = 0
    albedo *= values[3:6]
    albedo += shine_of * np.float32(np.mean(light.key_colour))
    return albedo


def _tooth_gaps(x: np.ndarray) -> np.ndarray:
    """Darkening between neighbouring teeth."""
    between = np.abs((x / TOOTH) % 1 - 0.5) * 2
    return 1 - 0.45 * np.clip((between - 0.75) / 0.25, 0, 1)


def _relief(person: Person, expression: Expression, camera: Camera, light: Light) -> np.ndarray:
    """Brightness of the chart's folds and pores, lit as relief: 1 where the skin is even."""
    depth = skins.folds(person.identity, expression.units)
    key = np.einsum("j,jk->k", light.towards, camera.rotation)
    relief = depth - 0.035 * person.skin.height
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=float(key[0]) / 8)
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1, ksize=3, scale=-float(key[1]) / 8)
    slope_x += slope_y
    return cv2.addWeighted(slope_x, 1.6, depth, -0.2, 1.0).clip(0.3, 1.6)


def _iris(person: Person, offset: np.ndarray, gaze: tuple[float, float]) -> np.ndarray:
    """Linear albedo of an eyeball at template offsets from its centre."""
    x, y = offset[:, 0] - gaze[0] * 0.07, offset[:, 1] - gaze[1] * 0.055
    radius = np.sqrt(x**2 + y**2)
    iris = np.clip((IRIS_RADIUS - radius) / 0.008, 0, 1)[:, None]
    pupil = np.clip((0.027 - radius) / 0.006, 0, 1)[:, None]
    rim = np.exp(-(((radius - IRIS_RADIUS) / 0.010) ** 2))[:, None]
    colour = skins.linear(np.array(person.identity.eyes)) * (1 + 0.25 * np.sin(np.arctan2(y, x) * 17))[:, None]
    white = SCLERA * (1 - 0.35 * np.clip(np.abs(offset[:, :1]) / 0.15, 0, 1) ** 2)
    mixed = (white * (1 - iris) + colour * iris) * (1 - 0.6 * rim)
    under_lid = 1 - 0.6 * np.clip((offset[:, 1:] + 0.005) / 0.07, 0, 1)
    return (mixed * (1 - pupil) + 0.008 * pupil) * under_lid
