"""Faces in the frames of a clip: found in batches, chosen, cropped, and stored as one small file per clip."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, Int

from facejax.atomic import atomic_file
from facejax.data.decode import decode_image
from facejax.video.frames import Frame

CHOICES = ("largest", "probable", "all")
# Frames passed to the detector at once, which bounds the memory; it forms its own groups by pixels.
FRAMES_AT_ONCE = 16
_QUALITY = 95


@runtime_checkable
class Detector(Protocol):
    """A face detector, such as `facejax.detect.MTCNN`."""

    def detect(self, images: Sequence[Any]) -> Sequence[Any]:
        """``bboxes`` (n, 4), ``scores`` (n,), ``landmarks`` (n, 5, 2) for each uint8 RGB image, best score first."""
        ...


# (image, bbox, landmarks) -> crop, uint8 RGB: `facejax.detect.crop_face`, or a warp based on the landmarks.
Cropper = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Face:
    """One face in one frame.

    Attributes:
        frame: Frame number.
        time: Seconds from the start of the clip.
        bbox: [x1, y1, x2, y2] in pixels of the original frame.
        score: The detector's probability.
        landmarks: Eyes, nose and mouth corners, x and y in the same pixels.
        crop: uint8 RGB (height, width, 3), of any size.
    """

    frame: int
    time: float
    bbox: Float[np.ndarray, "4"]
    score: float
    landmarks: Float[np.ndarray, "5 2"]
    crop: np.ndarray


@dataclasses.dataclass(frozen=True)
class ClipFaces:
    """All chosen faces of a clip, in frame order; a face has the same index in every field.

    Attributes:
        num_frames: Number of frames examined, including those without a face.
        frame: Frame number of each face.
        time: Seconds.
        bbox: [x1, y1, x2, y2] in pixels.
        score: Probability of a face.
        landmarks: x and y in pixels.
        crops: Crops, uint8 RGB (height, width, 3), of different sizes.
    """

    num_frames: int
    frame: Int[np.ndarray, " n"]
    time: Float[np.ndarray, " n"]
    bbox: Float[np.ndarray, "n 4"]
    score: Float[np.ndarray, " n"]
    landmarks: Float[np.ndarray, "n 5 2"]
    crops: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.frame)

    def save(self, path: pathlib.Path) -> None:
        """Writes the clip's faces as ``.npz``, the crops as JPEG (quality 95), atomically."""
        encoded = [_jpeg(crop) for crop in self.crops]
        with atomic_file(path) as file:
            np.savez(
                file,
                num_frames=self.num_frames,
                frame=self.frame,
                time=self.time,
                bbox=self.bbox,
                score=self.score,
                landmarks=self.landmarks,
                jpeg=np.frombuffer(b"".join(encoded), np.uint8),
                length=np.array([len(data) for data in encoded], np.int64),
            )

    @classmethod
    def load(cls, path: pathlib.Path) -> "ClipFaces":
        """Reads what `save` wrote."""
        with np.load(path) as stored:
            data, ends = stored["jpeg"].tobytes(), np.cumsum(stored["length"])
            starts = ends - stored["length"]
            crops = [decode_image(data[start:end]) for start, end in zip(starts, ends, strict=True)]
            arrays = {name: stored[name] for name in ("frame", "time", "bbox", "score", "landmarks")}
            return cls(int(stored["num_frames"]), crops=crops, **arrays)


def find_faces(
    frames: Iterable[Frame],
    detector: Detector,
    cut: Cropper,
    *,
    choose: str = "largest",
    at_once: int = FRAMES_AT_ONCE,
) -> Iterator[tuple[Frame, list[Face]]]:
    """Yields each frame with its chosen faces; keeps `at_once` frames in memory, however long the clip is.

    Args:
        frames: See `facejax.video.frames`.
        detector: Processes the frames in groups.
        cut: Crops a face from a frame. If it raises ValueError (a box entirely outside the frame), the face is dropped.
        choose: ``largest`` box of each frame (the paper's text, AFEW), the most ``probable`` one (its published code),
            or ``all`` (VGAF).
        at_once: Frames per group.

    Raises:
        ValueError: `choose` is none of these.
    """
    if choose not in CHOICES:
        raise ValueError(f"choose must be one of {', '.join(CHOICES)}, got {choose!r}")
    iterator = iter(frames)
    while group := list(itertools.islice(iterator, at_once)):
        found = detector.detect([frame.image for frame in group])
        for frame, detections in zip(group, found, strict=True):
            chosen = chosen_faces(detections.bboxes, detections.scores, choose)
            yield frame, list(_cut(frame, detections, chosen, cut))


def chosen_faces(
    bboxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], choose: str
) -> Int[np.ndarray, " k"]:
    """Indices of the faces of a frame that are used, see `find_faces`; empty if there is none."""
    if choose == "all" or not len(scores):
        return np.arange(len(scores))
    weight = scores if choose == "probable" else (bboxes[:, 2:] - bboxes[:, :2]).prod(axis=1)
    return np.array([weight.argmax()])


def clip_faces(faces: Iterable[tuple[Frame, Sequence[Face]]]) -> ClipFaces:
    """Collects the faces of a whole (short) clip."""
    num_frames, kept = 0, []
    for _, of_frame in faces:
        num_frames += 1
        kept.extend(of_frame)
    return ClipFaces(
        num_frames,
        np.array([face.frame for face in kept], np.int64),
        np.array([face.time for face in kept], np.float64),
        np.array([face.bbox for face in kept], np.float32).reshape(-1, 4),
        np.array([face.score for face in kept], np.float32),
        np.array([face.landmarks for face in kept], np.float32).reshape(-1, 5, 2),
        [face.crop for face in kept],
    )


def _cut(frame: Frame, detections: Any, chosen: np.ndarray, cut: Cropper) -> Iterator[Face]:
    for place in chosen:
        bbox, landmarks = detections.bboxes[place], detections.landmarks[place]
        try:
            crop = cut(frame.image, bbox, landmarks)
        except ValueError:
            continue
        # Crops are views of the frame if nothing was warped: copying lets the frame be freed.
        crop = np.array(crop)
        yield Face(
            frame.index,
            frame.time,
            np.asarray(bbox / frame.scale, np.float32),
            float(detections.scores[place]),
            np.asarray(landmarks / frame.scale, np.float32),
            crop,
        )


def _jpeg(crop: np.ndarray) -> bytes:
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not encoded:
        raise ValueError(f"a crop of shape {crop.shape} could not be stored as JPEG")
    return data.tobytes()
