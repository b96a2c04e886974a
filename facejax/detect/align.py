"""Cropping of detected faces: the paper's box without margin, eye alignment, the centre crop, the ArcFace warp."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from facejax.naming import did_you_mean

# Eyes, nose and mouth corners (x, y) in a face of 112 pixels: ArcFace's template (Deng et al. 2019; insightface).
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_TEMPLATE_SIZE, _WARPED = 112, 224  # pixels of the template, and of a warped face as in the published code

# Table 1's centre crop: the whole photo is resized to a fixed size, and its centre is cropped (LFW is 250 pixels wide).
_CENTRE_PHOTO, _CENTRE_CROP = 250, 128


def align_eyes(
    image: UInt8[np.ndarray, "height width 3"],
    left_eye: Float[np.ndarray, "2"],
    right_eye: Float[np.ndarray, "2"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Rotates the image about its centre so that both eyes are on the same row; same size, black corners.

    As in the paper's code: the angle is atan2(dy, dx) between the eyes, the scale stays 1. Intended difference: the
    centre is that of the pixel grid, ((width - 1) / 2, (height - 1) / 2), where the code rounds to a whole pixel.

    Args:
        image: uint8 RGB, usually a crop.
        left_eye: x and y in pixels of the eye on the left side of the image.
        right_eye: x and y of the other.
    """
    dx, dy = float(right_eye[0]) - float(left_eye[0]), float(right_eye[1]) - float(left_eye[1])
    height, width = image.shape[:2]
    angle = np.degrees(np.arctan2(dy, dx))
    rotation = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(angle), 1.0)
    return np.asarray(cv2.warpAffine(image, rotation, (width, height), flags=cv2.INTER_LINEAR))


def crop_face(
    image: UInt8[np.ndarray, "height width 3"],
    bbox: Float[np.ndarray, "4"],
    landmarks: Float[np.ndarray, "5 2"] | None = None,
    *,
    margin: float = 0.0,
    align: bool = True,
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Crops the face from a photo, without making it square or resizing it; the crop is clipped to the photo.

    Args:
        image: uint8 RGB photo.
        bbox: [x1, y1, x2, y2] in pixels; edges are truncated to whole pixels.
        landmarks: Points in the order of `facejax.detect.Detections`; only the first two, the eyes, are used.
        margin: Added on every side, as a fraction of the box's width and height (paper section 3: none; Table 6: 0.4).
        align: Rotate the crop so that the eyes are level (`align_eyes`), if `landmarks` are given.

    Raises:
        ValueError: The box contains no whole pixel of the photo.
    """
    x1, y1, x2, y2 = (float(edge) for edge in bbox)
    height, width = image.shape[:2]
    extra_x, extra_y = margin * (x2 - x1), margin * (y2 - y1)
    left, top = int(max(x1 - extra_x, 0)), int(max(y1 - extra_y, 0))
    right, bottom = int(min(x2 + extra_x, width)), int(min(y2 + extra_y, height))
    if left >= right or top >= bottom:
        raise ValueError(f"expected a box that overlaps the photo of {width}x{height}, got {[x1, y1, x2, y2]}")
    crop = image[top:bottom, left:right]
    if landmarks is None or not align:
        return np.ascontiguousarray(crop)
    corner = np.array([left, top])
    return align_eyes(crop, landmarks[0] - corner, landmarks[1] - corner)


def centre_crop(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "128 128 3"]:
    """Crops the centre of a photo, without face detection: the alternative in Table 1, for LFW's centred faces."""
    shrinks = min(image.shape[:2]) > _CENTRE_PHOTO
    kernel = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    photo = cv2.resize(image, (_CENTRE_PHOTO, _CENTRE_PHOTO), interpolation=kernel)
    start = (_CENTRE_PHOTO - _CENTRE_CROP) // 2
    return np.ascontiguousarray(photo[start : start + _CENTRE_CROP, start : start + _CENTRE_CROP])


def warp_five_points(
    image: UInt8[np.ndarray, "height width 3"], landmarks: Float[np.ndarray, "5 2"]
) -> UInt8[np.ndarray, "224 224 3"]:
    """Warps the face onto ArcFace's template by rotation, uniform scale and translation; black outside the photo.

    The paper's code does this for group emotion (VGAF). The fit is the least-squares similarity transform (Umeyama 1991
    without reflection), in closed form over complex numbers.

    Args:
        image: uint8 RGB photo.
        landmarks: x and y in pixels of the eyes, nose and mouth corners, in the order of `Detections`.

    Raises:
        ValueError: All landmarks coincide.
    """
    source = np.asarray(landmarks, np.float64) @ np.array([1, 1j])
    target = _TEMPLATE * (_WARPED / _TEMPLATE_SIZE) @ np.array([1, 1j])
    centred = source - source.mean()
    spread = np.vdot(centred, centred).real
    if spread == 0:
        raise ValueError(f"expected five different landmarks, got {np.asarray(landmarks).tolist()}")
    turn = np.vdot(centred, target - target.mean()) / spread
    shift = target.mean() - turn * source.mean()
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return np.asarray(cv2.warpAffine(image, matrix, (_WARPED, _WARPED), flags=cv2.INTER_LINEAR))


def make_cropper(name: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """The cropping function (image, bbox, landmarks) -> crop of a `facejax.protocol_config.DetectionConfig`.

    Args:
        name: ``box``: the box as is; ``eyes``: the box rotated so that the eyes are level; or ``five_points``.

    Raises:
        ValueError: The name is unknown.
    """
    cuts = {
        "box": functools.partial(crop_face, align=False),
        "eyes": crop_face,
        "five_points": lambda image, bbox, landmarks: warp_five_points(image, landmarks),
    }
    if name not in cuts:
        raise ValueError(f"no face crop is called {name!r}{did_you_mean(name, cuts)}")
    return cuts[name]
