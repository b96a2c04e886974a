"""A photo: a person in front of a background, taken by a camera that blurs, tints, adds grain and saves as JPEG."""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facejax.datasets.people import hair as hairdo
from facejax.datasets.people.accessories import hide, sample_glasses
from facejax.datasets.people.assets import load_pack
from facejax.datasets.people.background import sample_background
from facejax.datasets.people.camera import Camera
from facejax.datasets.people.expression import Expression
from facejax.datasets.people.light import sample_light
from facejax.datasets.people.noise import white
from facejax.datasets.people.outfit import sample_outfit
from facejax.datasets.people.points import face_points
from facejax.datasets.people.render import Layer, Look, Person, draw


@dataclasses.dataclass(frozen=True)
class Setting:
    """The circumstances under which photos are taken.

    Attributes:
        plain: Soft light, an even background and a clean camera.
        glasses: Share of photos with glasses.
        hidden: Share of photos with something in front of the face.
        frontal: Share of people who look nearly into the camera.
        face: Smallest and largest height of a face, as a share of the photo's.
        talking: Share of faces that talk.
        weakest: Minimum intensity of an expression.
    """

    plain: bool
    glasses: float
    hidden: float
    frontal: float
    face: tuple[float, float]
    talking: float
    weakest: float


SETTINGS = {
    "wild": Setting(False, 0.13, 0.08, 0.6, (0.30, 0.62), 0.25, 0.5),
    "studio": Setting(True, 0.0, 0.0, 1.0, (0.50, 0.60), 0.0, 0.85),
}


@dataclasses.dataclass(frozen=True)
class Finish:
    """What a camera does to a picture.

    Attributes:
        grey: Black and white.
        contrast: Slope about mid grey.
        brightness: Factor.
        tint: Factor of each channel.
        saturation: 1 keeps the colours.
        blur: Gaussian blur, pixels.
        motion: Length and angle (radians) of a motion blur, pixels.
        noise: Standard deviation of the grain, 0 to 255.
        shrink: Relative resolution that the picture once had; below 1 it was upscaled.
        quality: JPEG quality.
    """

    grey: bool
    contrast: float
    brightness: float
    tint: tuple[float, float, float]
    saturation: float
    blur: float
    motion: tuple[float, float]
    noise: float
    shrink: float
    quality: int


def sample_camera(rng: np.random.Generator, size: int, setting: Setting = SETTINGS["wild"]) -> Camera:
    """Draws a pose and framing for a square photo of `size` pixels whose face may be small or fill it."""
    spread = 0.35 if rng.random() < setting.frontal else 1.0
    yaw = float(np.clip(rng.normal(0, 0.34) * spread, -0.9, 0.9))
    pitch = float(np.clip(rng.normal(0.02, 0.15) * spread, -0.4, 0.4))
    roll = float(np.clip(rng.normal(0, 0.12) * (0.6 + 0.4 * spread), -0.4, 0.4))
    face = float(np.exp(rng.uniform(*np.log(setting.face)))) * size
    wiggle = rng.normal(0, 0.035, 2)
    center = float(0.5 + wiggle[0]) * size, float(0.52 + wiggle[1]) * size
    return Camera(
        yaw,
        pitch,
        roll,
        face,
        center,
        float(rng.uniform(3.5, 9)),
        float(yaw * rng.uniform(0, 0.7) + rng.normal(0, 0.15)),
    )


def sample_finish(rng: np.random.Generator) -> Finish:
    """Draws a camera: mostly clean, some old, cheap, dark, grey or blurred."""
    warm = float(rng.normal(0, 0.035))
    rough = rng.random() < 0.25
    return Finish(
        grey=bool(rng.random() < 0.25),
        contrast=float(rng.normal(1.05, 0.13)),
        brightness=float(np.exp(rng.normal(0, 0.12))),
        tint=(1 + warm, 1 + float(rng.normal(0, 0.012)), 1 - warm),
        saturation=float(rng.uniform(0.55, 1.15)),
        blur=float(rng.uniform(0.2, 0.7) + (rng.uniform(0, 0.9) if rough else 0)),
        motion=(float(rng.uniform(3, 7)) if rng.random() < 0.06 else 0.0, float(rng.uniform(0, np.pi))),
        noise=float(rng.uniform(1, 4) + (rng.uniform(0, 9) if rng.random() < 0.25 else 0)),
        shrink=float(rng.uniform(0.45, 0.8)) if rng.random() < 0.15 else 1.0,
        quality=int(rng.integers(55, 97)),
    )


CLEAN = Finish(False, 1.05, 1.0, (1.0, 1.0, 1.0), 0.9, 0.4, (0.0, 0.0), 1.5, 1.0, 92)


def finish(
    image: Float[np.ndarray, "rows columns 3"], camera: Finish, rng: np.random.Generator
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The photo that a camera makes of a picture (sRGB 0 to 255)."""
    rows, columns = image.shape[:2]
    image = cv2.transform(image, _colours(camera))
    if camera.shrink < 1:
        small = round(columns * camera.shrink), round(rows * camera.shrink)
        image = cv2.resize(
            cv2.resize(image, small, interpolation=cv2.INTER_AREA), (columns, rows), interpolation=cv2.INTER_LINEAR
        )
    image = cv2.GaussianBlur(image, (0, 0), camera.blur)
    length, angle = camera.motion
    if length:
        reach = int(np.ceil(length / 2))
        kernel = np.zeros((2 * reach + 1,) * 2, np.float32)
        step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        start, stop = (np.round((reach + sign * step) * 16).astype(int) for sign in (-1, 1))
        cv2.line(kernel, start.tolist(), stop.tolist(), 1.0, 1, cv2.LINE_8, 4)
        image = cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1))
    grain = [white(rng, rows, columns)] * 3 if camera.grey else [white(rng, rows, columns) for _ in range(3)]
    image = cv2.scaleAdd(cv2.merge(grain), camera.noise, image)
    bytes_ = cv2.cvtColor(image.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bytes_, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def _colours(camera: Finish) -> Float[np.ndarray, "3 4"]:
    """Tint, brightness, saturation and contrast as one affine map of a pixel's channels."""
    saturation = 0.0 if camera.grey else camera.saturation
    grey = np.array([0.299, 0.587, 0.114])
    mixed = saturation * np.eye(3) + (1 - saturation) * grey
    map_ = camera.contrast * mixed * np.array(camera.tint) * camera.brightness
    return np.concatenate([map_, np.full((3, 1), 118 * (1 - camera.contrast))], 1).astype(np.float32)


def put(image: Float[np.ndarray, "rows columns 3"], layer: Layer) -> None:
    """Composites a layer over a picture, in place."""
    rows, columns = layer.rgba.shape[:2]
    window = image[layer.top : layer.top + rows, layer.left : layer.left + columns]
    behind = cv2.cvtColor(255 - layer.rgba[..., 3], cv2.COLOR_GRAY2RGB)
    shown = cv2.multiply(window, behind, scale=1 / 255, dtype=cv2.CV_32F)
    window[:] = cv2.add(shown, cv2.cvtColor(layer.rgba, cv2.COLOR_RGBA2RGB), dtype=cv2.CV_32F)


def photo(
    person: Person, expression: Expression, camera: Camera, rng: np.random.Generator, size: int, setting: Setting
) -> UInt8[np.ndarray, "size size 3"]:
    """Takes a photo: draws light, hair, clothes, background and camera, and renders.

    Args:
        person: The person.
        expression: The expression.
        camera: The pose.
        rng: Source of everything that does not belong to the person.
        size: Side of the photo, pixels.
        setting: The circumstances.
    """
    light = sample_light(rng, soft=setting.plain)
    # About two times in three a person wears the usual hair.
    hair = _usual_hair(person) if rng.random() < 0.65 else sample_hair(person, rng)
    image = sample_background(rng, size, size, "studio" if setting.plain else None)
    look = Look(
        hair, sample_outfit(rng, person.skin.base), sample_glasses(rng) if rng.random() < setting.glasses else None
    )
    layer = draw(person, expression, camera, light, look, (size, size), sample_exposure(rng))
    if layer is not None:
        put(image, layer)
        if rng.random() < setting.hidden:
            points, _ = face_points(person.identity).in_photo(expression, camera)
            nose_x, nose_y = points[2].astype(int).clip(2, size - 3).tolist()
            red, green, blue = image[nose_y - 2 : nose_y + 3, nose_x - 2 : nose_x + 3].mean((0, 1)).tolist()
            hide(image, points, (red, green, blue), rng)
    return finish(image, CLEAN if setting.plain else sample_finish(rng), rng)


@functools.lru_cache(maxsize=4)
def _usual_hair(person: Person) -> hairdo.Hair:
    return sample_hair(person, person.identity.rng("hair"))


def sample_hair(person: Person, rng: np.random.Generator) -> hairdo.Hair:
    """Draws a hair style and grows it on a person's head."""
    return hairdo.grow(load_pack(), person.rest, hairdo.sample_style(person.identity, rng), rng)


def sample_exposure(rng: np.random.Generator) -> float:
    """Mean linear brightness of a well-exposed face."""
    return float(np.clip(0.24 * np.exp(rng.normal(0, 0.28)), 0.08, 0.5))
