"""Faces of a clip's frames: found in batches of frames, chosen, cut out, and kept as one small file a clip."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, Int

from facejax.atomic import whole_file
from facejax.data.decode import decode_image
from facejax.video.frames import Frame

CHOICES = ("largest", "probable", "all")
# Frames that the detector sees at once: bounds the memory; it makes groups of its own by pixels.
FRAMES_AT_ONCE = 16
_QUALITY = 95


@runtime_checkable
class Detector(Protocol):
    """What finds faces: `facejax.detect.MTCNN`."""

    def detect(self, images: Sequence[Any]) -> Sequence[Any]:
        """``bboxes`` (n, 4), ``scores`` (n,), ``landmarks`` (n, 5, 2) for each uint8 RGB image, best score first."""
        ...


# (image, bbox, landmarks) -> crop, uint8 RGB: `facejax.detect.crop_face`, or a warp by the landmarks.
Cutter = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Face:
    """One face in one frame.

    Attributes:
        frame: Number of the frame.
        time: Seconds from the start of the clip.
        bbox: [x1, y1, x2, y2] in pixels of the file's frame.
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
    """All chosen faces of a clip, in the order of its frames; a face's place is the same in every field.

    Attributes:
        num_frames: Frames that were looked at, also those without a face.
        frame: Number of each face's frame.
        time: Seconds.
        bbox: [x1, y1, x2, y2] in pixels.
        score: Probability of a face.
        landmarks: x and y in pixels.
        crops: uint8 RGB (height, width, 3) each, of different sizes.
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
        """Writes the clip's faces as ``.npz``, the crops as JPEG (quality 95); the file appears whole or not at all."""
        encoded = [_jpeg(crop) for crop in self.crops]
        with whole_file(path) as file:
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
        """What `save` wrote."""
        with np.load(path) as stored:
            data, ends = stored["jpeg"].tobytes(), np.cumsum(stored["length"])
            starts = ends - stored["length"]
            crops = [decode_image(data[start:end]) for start, end in zip(starts, ends, strict=True)]
            arrays = {name: stored[name] for name in ("frame", "time", "bbox", "score", "landmarks")}
            return cls(int(stored["num_frames"]), crops=crops, **arrays)


def find_faces(
    frames: Iterable[Frame],
    detector: Detector,
    cut: Cutter,
    *,
    choose: str = "largest",
    at_once: int = FRAMES_AT_ONCE,
) -> Iterator[tuple[Frame, list[Face]]]:
    """Yields each frame with its chosen faces; holds `at_once` frames in memory, however long the clip is.

    Args:
        frames: See `facejax.video.frames`.
        detector: Sees the frames in groups.
        cut: Cuts a face out of a frame. Its ValueError (a box without a pixel in the frame) drops the face.
        choose: ``largest`` box of each frame (the paper's text, AFEW), the most ``probable`` one (its published code),
            or ``all`` (VGAF).
        at_once: Frames of a group.

    Raises:
        ValueError: `choose` is another word.
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
    """Indices of the faces of a frame that are used, see `find_faces`; none where there is none."""
    if choose == "all" or not len(scores):
        return np.arange(len(scores))
    weight = scores if choose == "probable" else (bboxes[:, 2:] - bboxes[:, :2]).prod(axis=1)
    return np.array([weight.argmax()])


def clip_faces(faces: Iterable[tuple[Frame, Sequence[Face]]]) -> ClipFaces:
    """The faces of a whole (short) clip together."""
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


def _cut(frame: Frame, detections: Any, chosen: np.ndarray, cut: Cutter) -> Iterator[Face]:
    for place in chosen:
        bbox, landmarks = detections.bboxes[place], detections.landmarks[place]
        try:
            crop = cut(frame.image, bbox, landmarks)
        except ValueError:
            continue
        # Crops are views of the frame where nothing was warped: a copy lets the frame go.
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
