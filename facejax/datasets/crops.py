"""Turns one photo of a dataset into a tf.train.Example with a face crop, or into the reason why there is none."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from facejax.data.decode import CorruptImageError, decode_image
from facejax.data.example import encode_example
from facejax.data.metadata import Field
from facejax.data.records import Record
from facejax.datasets.registry import Crop
from facejax.detect.align import centre_crop, crop_face
from facejax.detect.boxes import overlap

MAX_PHOTO_SIDE = 2048  # larger photos are downscaled before detection; their faces still span hundreds of pixels


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """How a face is cropped and stored.

    Attributes:
        crop: ``mtcnn``, ``centre``, ``annotation`` or ``none`` (the whole photo), see `Dataset.default_crop`.
        margin: Widens the box of crop ``mtcnn`` or ``annotation`` by this fraction of its size (paper section 3: 0).
        align: Rotates box crops so that the eyes are level, where landmarks are known.
        face: Which of several detected faces to keep: ``largest`` (box area), ``probable`` (score) or ``central`` (box
            centre nearest to the photo's). Where the dataset publishes a box, the face that overlaps it most is kept
            instead; a photo in which no face overlaps that box counts as one without a face.
        no_face: ``skip`` a photo without a face, or keep its ``centre`` crop (for protocols that score every photo).
        max_side: Larger crops are downscaled to this many pixels on their longer side.
        quality: JPEG quality, 1 to 100.
        image_format: ``jpeg``, or ``bmp``: raw pixels, ten times as large, with almost no decoding cost.
    """

    crop: Crop = "mtcnn"
    margin: float = 0.0
    align: bool = True
    face: Literal["largest", "probable", "central"] = "largest"
    no_face: Literal["skip", "centre"] = "skip"
    max_side: int = 320
    quality: int = 95
    image_format: Literal["jpeg", "bmp"] = "jpeg"

    def __post_init__(self):
        """Checks the numeric settings.

        Raises:
            ValueError: `margin` is negative, not finite, or set for a crop without a box; `max_side` is below 1;
                `quality` is outside 1 to 100.
        """
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin must be 0 or more, got {self.margin}")
        if self.margin and self.crop in ("centre", "none"):
            raise ValueError(f"margin {self.margin} widens a box, and crop {self.crop!r} has none: leave it out")
        if self.max_side < 1:
            raise ValueError(f"max_side must be 1 pixel or more, got {self.max_side}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 1 to 100, got {self.quality}")


@dataclasses.dataclass(frozen=True)
class Photo:
    """A record with its decoded photo, or with the reason why there is none.

    Attributes:
        record: The record.
        image: uint8 RGB (height, width, 3), downscaled to at most `MAX_PHOTO_SIDE`.
        scale: Factor from the file's pixels to the image's.
        problem: Kind (``missing``, ``corrupt``) and reason, if there is no image.
    """

    record: Record
    image: np.ndarray | None = None
    scale: float = 1.0
    problem: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of processing one photo.

    Attributes:
        record_id: Id of its record.
        kind: ``face``, ``no_face``, ``missing`` or ``corrupt``.
        reason: Why, if `kind` is not ``face``.
        example: The serialised tf.train.Example; empty if `kind` is not ``face``.
        labels: Label values, with missing ones filled in.
        num_faces: Number of faces found; -1 if no detector was run.
    """

    record_id: str
    kind: str
    reason: str = ""
    example: bytes = b""
    labels: Mapping[str, object] = dataclasses.field(default_factory=dict)
    num_faces: int = -1


def load_photo(record: Record, raw: pathlib.Path | None) -> Photo:
    """Reads or generates a record's photo. An unusable file becomes a `Photo.problem`, never an exception.

    Args:
        record: The record.
        raw: The dataset's folder; a path outside it (from a hostile or broken list file) is not opened.
    """
    if callable(record.image):
        try:
            return _reduced(record, record.image())
        except CorruptImageError as error:
            return Photo(record, problem=("corrupt", str(error)))
    if raw is not None and not _inside(record.image, raw):
        return Photo(record, problem=("corrupt", "its path is outside the dataset's folder"))
    try:
        return _reduced(record, decode_image(record.image.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return Photo(record, problem=("missing", "no such file"))
    except (CorruptImageError, OSError, ValueError) as error:
        return Photo(record, problem=("corrupt", str(error)))


def _inside(path: pathlib.Path, folder: pathlib.Path) -> bool:
    # Links are not resolved: a dataset's folders may be links to other disks.
    return pathlib.Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _reduced(record: Record, image: np.ndarray) -> Photo:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{record.id}: expected a uint8 RGB photo, its function returned {image.dtype} {image.shape}")
    image, scale = fit_image(image, MAX_PHOTO_SIDE)
    return Photo(record, image, scale)


def fit_image(image: np.ndarray, max_side: int) -> tuple[np.ndarray, float]:
    """Downscales a photo to at most `max_side` pixels on its longer side; returns it and the scale factor."""
    scale = max_side / max(image.shape[:2])
    if scale >= 1:
        return image, 1.0
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def choose_face(
    bboxes: np.ndarray,
    scores: np.ndarray,
    height: int,
    width: int,
    rule: Literal["largest", "probable", "central"],
    annotated: np.ndarray | None = None,
) -> int | None:
    """Index of the face to keep, or None if there is none; see `CropSettings.face`.

    Args:
        bboxes: (n, 4) [x1, y1, x2, y2] in pixels.
        scores: (n,).
        height: Height of the photo, pixels.
        width: Width of the photo, pixels.
        rule: Which of several faces to keep.
        annotated: The dataset's own box (4,) in the same pixels, if it has one.
    """
    if len(bboxes) == 0:
        return None
    if annotated is not None:
        shared = overlap(bboxes, annotated[None])[:, 0]
        best = int(shared.argmax())
        return best if shared[best] > 0 else None
    if rule == "probable":
        return int(scores.argmax())
    if rule == "central":
        centres = (bboxes[:, :2] + bboxes[:, 2:]) / 2
        return int(((centres - (width / 2, height / 2)) ** 2).sum(axis=1).argmin())
    return int((bboxes[:, 2:] - bboxes[:, :2]).prod(axis=1).argmax())


def five_points(landmarks: np.ndarray) -> np.ndarray | None:
    """Eyes, nose and mouth corners (5, 2) from a dataset's landmarks: 5 as they are, 68 in iBUG order; else None."""
    if len(landmarks) == 5:
        return landmarks
    if len(landmarks) == 68:
        eyes = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)]
        return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])
    return None


def cut_face(photo: Photo, fields: Mapping[str, Field], settings: CropSettings, detections=None) -> Outcome:
    """Crops a photo's face and encodes it as an Example.

    Args:
        photo: The loaded photo.
        fields: Types of the dataset's labels.
        settings: How to crop.
        detections: `facejax.detect.Detections` of the photo, for crop ``mtcnn``.
    """
    record, image = photo.record, photo.image
    if image is None:
        kind, reason = photo.problem or ("corrupt", "")
        return Outcome(record.id, kind, reason)
    annotated = None if record.bbox is None else np.asarray(record.bbox, np.float64) * photo.scale
    bbox, landmarks, score, num_faces = None, None, math.nan, -1
    if settings.crop == "mtcnn":
        assert detections is not None
        num_faces = len(detections.bboxes)
        height, width = image.shape[:2]
        chosen = choose_face(detections.bboxes, detections.scores, height, width, settings.face, annotated)
        if chosen is not None:
            bbox, landmarks = detections.bboxes[chosen], detections.landmarks[chosen]
            score = float(detections.scores[chosen])
    elif settings.crop == "annotation":
        bbox = annotated
        if record.landmarks is not None:
            landmarks = five_points(np.asarray(record.landmarks) * photo.scale)
    if settings.crop == "none":
        crop = image
    elif bbox is not None or settings.crop == "centre" or settings.no_face == "centre":
        try:
            crop = _cut(image, bbox, landmarks, settings)
        except ValueError as error:  # the box is entirely outside the photo
            if settings.no_face == "skip":
                return Outcome(record.id, "no_face", str(error), num_faces=num_faces)
            bbox, crop = None, _cut(image, None, None, settings)
    else:
        reason = "the dataset has no box for it" if settings.crop == "annotation" else "no face was detected"
        if num_faces > 0:
            reason = f"none of {num_faces} detected faces overlaps the dataset's own box"
        return Outcome(record.id, "no_face", reason, num_faces=num_faces)
    labels = {key: record.labels.get(key, field.missing) for key, field in fields.items()}
    stored = [math.nan] * 4 if bbox is None else [float(side) / photo.scale for side in bbox]
    example = {key: field.column([labels[key]])[0] for key, field in fields.items() if field.dtype != "text"}
    example |= {key: str(labels[key]) for key, field in fields.items() if field.dtype == "text"}
    example |= {"id": record.id, "bbox": np.array(stored, np.float32), "score": np.float32(score)}
    example |= {"num_faces": num_faces, "image": _encode(crop, settings)}
    return Outcome(record.id, "face", "", encode_example(example), labels, num_faces)


def _cut(image: np.ndarray, bbox, landmarks, settings: CropSettings) -> np.ndarray:
    if bbox is None:
        return centre_crop(image)
    return crop_face(image, bbox, landmarks, margin=settings.margin, align=settings.align)


def _encode(crop: np.ndarray, settings: CropSettings) -> bytes:
    crop, _ = fit_image(crop, settings.max_side)
    extension = {"jpeg": ".jpg", "bmp": ".bmp"}[settings.image_format]
    options = [cv2.IMWRITE_JPEG_QUALITY, settings.quality] if settings.image_format == "jpeg" else []
    encoded, data = cv2.imencode(extension, cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode a crop of {crop.shape}")
    return data.tobytes()
