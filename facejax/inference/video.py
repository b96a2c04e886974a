"""Analyses videos: faces are detected in groups of frames, tracked and smoothed over time, in constant memory."""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import UInt8

from facejax.inference.drawing import draw_faces
from facejax.inference.results import Classification, Face
from facejax.inference.tracking import FaceTracker
from facejax.video.frames import Frame, ffmpeg_path
from facejax.video.smoothing import ExponentialSmoother

if TYPE_CHECKING:
    from facejax.inference.analyzer import FaceAnalyzer

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
# Frames that are processed together.
_GROUP = 8
# MPEG-4 divides a second into at most 65535 units, which limits the frame rate and its number of decimals.
_MAX_FPS, _MAX_FPS_OF_3_DECIMALS = 600, 65


@dataclasses.dataclass(frozen=True, eq=False)
class VideoFrame:
    """The faces of one frame of a video, equal only to itself.

    Attributes:
        index: Index in the file, from 0; skipped frames count.
        time: Seconds from the start.
        faces: With `Face.track`; probabilities, age, valence and arousal are smoothed over the track. Boxes and
            landmarks are in pixels of `image`.
        image: The frame, uint8 RGB, downscaled if ``max_side`` required it. Dropping the result frees its memory.
    """

    index: int
    time: float
    faces: tuple[Face, ...]
    image: UInt8[np.ndarray, "height width 3"] = dataclasses.field(repr=False)

    def to_dict(self, *, embedding: bool = False) -> dict[str, Any]:
        """A JSON-serialisable dict; boxes refer to the ``width`` and ``height`` in it."""
        faces = [face.to_dict(embedding=embedding) for face in self.faces]
        height, width = self.image.shape[:2]
        return {"frame": self.index, "time": round(self.time, 4), "width": width, "height": height, "faces": faces}

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per face (`Face.to_row`), after ``frame`` and ``time``."""
        return [{"frame": self.index, "time": round(self.time, 4), **face.to_row()} for face in self.faces]

    def draw(self) -> UInt8[np.ndarray, "height width 3"]:
        """The frame with boxes, track numbers and captions, as a new uint8 RGB array."""
        return draw_faces(self.image, self.faces)


def analyze_frames(
    analyzer: "FaceAnalyzer",
    frames: Iterable[Frame],
    *,
    smoothing: float | int = 0.5,
    max_gap: float | int = 1.0,
    at_once: int = _GROUP,
) -> Iterator[VideoFrame]:
    """Yields frames with their faces; only `at_once` frames (plus those buffered by `frames`) are in memory.

    Args:
        analyzer: Detects the faces and predicts their attributes.
        frames: From `facejax.video.frames.read_frames` or `webcam_frames`.
        smoothing: Time constant in seconds, after which older predictions decay to 1/e; 0 for none.
        max_gap: Seconds for which a track is kept after its face was last seen (`FaceTracker`).
        at_once: Frames per group; 1 for the lowest latency.
    """
    tracker, smoothers = FaceTracker(max_gap), {}
    iterator = iter(frames)
    while group := list(itertools.islice(iterator, at_once)):
        for frame, faces in zip(group, analyzer.faces([frame.image for frame in group]), strict=True):
            boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
            numbers = tracker.update(frame.time, boxes)
            faces = [dataclasses.replace(face, track=number) for face, number in zip(faces, numbers, strict=True)]
            if smoothing:
                faces = [_smoothed(face, frame.time, float(smoothing), smoothers) for face in faces]
                ended = smoothers.keys() - tracker.alive
                for number in ended:
                    del smoothers[number]
            yield VideoFrame(frame.index, frame.time, tuple(faces), frame.image)


def webcam_frames(device: int = 0) -> Iterator[Frame]:
    """Yields a camera's frames with as little delay as possible; times are real time since the start.

    Raises:
        ValueError: The camera cannot be opened.
    """
    capture = cv2.VideoCapture(device)
    try:
        if not capture.isOpened():
            raise ValueError(f"cannot open camera {device}: is it connected, and not in use by another program?")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        start = time.monotonic()
        for index in itertools.count():
            whole, image = capture.read()
            if not whole:
                return
            rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            yield Frame(index, time.monotonic() - start, rgb, 1.0)
    finally:
        capture.release()


class VideoWriter:
    """Writes RGB frames to an mp4 file (MPEG-4), which appears once it is complete.

    Use as a context manager: after an error inside it, no file is left.

    Raises:
        ValueError: On the first frame, if OpenCV cannot write such a video.
    """

    def __init__(self, path: pathlib.Path | str, fps: float | int):
        """`fps`: frames per second; clipped to 0.01-600 and rounded to what MPEG-4 can represent."""
        self.path = pathlib.Path(path)
        # OpenCV picks the container by the suffix.
        self._partial = self.path.with_name(f".{self.path.stem}.partial.mp4")
        fps = min(max(fps, 0.01), _MAX_FPS)
        self._fps = round(fps, 3 if fps < _MAX_FPS_OF_3_DECIMALS else 2)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def write(self, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """Adds a frame; frames of a different size are resized to the first one's."""
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._size = image.shape[1] // 2 * 2, image.shape[0] // 2 * 2
            name, kind = ffmpeg_path(self._partial), cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(name, kind, self._fps, self._size)
            if not self._writer.isOpened():
                raise ValueError(f"OpenCV cannot write a video of {self._size} to {self._partial}")
        if image.shape[1::-1] != self._size:
            image = np.asarray(cv2.resize(image, self._size, interpolation=cv2.INTER_AREA))
        self._writer.write(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)


def _smoothed(face: Face, time: float, seconds: float, smoothers: dict[int, ExponentialSmoother]) -> Face:
    """The face with its predictions smoothed over its track."""
    parts = {name: part for name in ("gender", "ethnicity", "emotion") if (part := getattr(face, name)) is not None}
    numbers = {name: value for name in ("age", "valence", "arousal") if (value := getattr(face, name)) is not None}
    flat = [*numbers.values(), *(p for part in parts.values() for p in part.probabilities.values())]
    if not flat:
        return face
    assert face.track is not None
    if face.track not in smoothers:
        smoothers[face.track] = ExponentialSmoother(seconds)
    values = iter(smoothers[face.track](time, np.array(flat, np.float64)).tolist())
    changes: dict[str, Any] = {name: next(values) for name in numbers}
    changes |= {
        name: Classification({label: next(values) for label in part.probabilities}) for name, part in parts.items()
    }
    return dataclasses.replace(face, **changes)
