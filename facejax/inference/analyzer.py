"""From a photo to its faces and what the networks say about them: detector, crops and any number of networks."""

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Bool

from facejax.detect import MTCNN, Detections, crop_face
from facejax.inference.images import Source, read_image
from facejax.inference.model import LoadedModel, load_model
from facejax.inference.results import Classification, Face, PhotoResult
from facejax.inference.video import VIDEO_SUFFIXES, VideoFrame, analyze_frames
from facejax.video.frames import read_frames

# Attribute of a face that a task fills. Identity heads name people of a training set: their features are what is used.
ATTRIBUTES = {
    "age": "age",
    "gender": "gender",
    "ethnicity": "ethnicity",
    "emotion8": "emotion",
    "emotion7": "emotion",
    "valence_arousal": "valence_arousal",
}
# Photos that are decoded and detected together: up to so many, and up to so many pixels.
_GROUP_PHOTOS, _GROUP_PIXELS = 32, 1 << 25


class FaceAnalyzer:
    """Finds the faces of photos and says, for each, what its networks predict.

    Photos are **RGB** throughout; what a network is fed is defined by its own weights (`PretrainedCfg.preprocessing`).
    Faces are cut out as in the paper (the detector's box, eyes level) and run through each network in batches
    of few padded sizes, so that nothing compiles anew as the number of faces varies.

    Attributes:
        models: The networks, in the order given.
        detector: What finds the faces.
        labels: Class names by attribute of `Face` (``emotion``: 8 or 7), for those that the networks tell.
    """

    def __init__(self, models: Sequence[LoadedModel], detector: MTCNN | None = None, *, align: bool = True):
        """Puts networks together.

        Args:
            models: Networks with different tasks: one for age and gender, another for expressions. The features of the
                first are the embedding.
            detector: None for `MTCNN` with its defaults.
            align: Whether crops are turned so that the eyes are level, as facejax prepares its training crops.

        Raises:
            ValueError: No network, or two that tell the same.
        """
        if not models:
            raise ValueError("expected at least one network: FaceAnalyzer.load(FOLDER_OR_NAME, ...)")
        self.models = tuple(models)
        self.detector = MTCNN() if detector is None else detector
        self.labels: dict[str, tuple[str, ...]] = {}
        self._align = align
        for model in self.models:
            for task in model.cfg.tasks:
                if task not in ATTRIBUTES:
                    continue
                attribute = ATTRIBUTES[task]
                if attribute in self.labels:
                    raise ValueError(f"two networks tell the {attribute} of a face; load one of them")
                self.labels[attribute] = model.class_names(task)

    @classmethod
    def load(
        cls, *names_or_dirs: str | os.PathLike, detector: MTCNN | None = None, align: bool = True
    ) -> "FaceAnalyzer":
        """An analyzer of trained networks.

        Args:
            *names_or_dirs: Each a folder (``workdirs/emotion_b2/best``) or the name of published weights
                (``mobilenet_v1.vggface2_age_gender``); see `load_model`.
            detector: As of `__init__`.
            align: As of `__init__`.
        """
        return cls([load_model(name) for name in names_or_dirs], detector, align=align)

    @overload
    def analyze(self, source: Source) -> PhotoResult | list[VideoFrame]: ...
    @overload
    def analyze(self, source: Sequence[Source]) -> list[PhotoResult]: ...

    def analyze(self, source):
        """The faces of a photo, of each photo of a list, or of a short video.

        Args:
            source: What `read_image` takes (a path, bytes, an RGB array), a list of these, or the path of a video. All
                frames of a video are kept in memory: a long one is for `video`.

        Returns:
            One `PhotoResult`, a list of them in the same order, or the list of what `video` yields.

        Raises:
            ValueError: A photo cannot be read; the message names it.
            FileNotFoundError: The same.
        """
        if isinstance(source, str | os.PathLike) and pathlib.PurePath(source).suffix.lower() in VIDEO_SUFFIXES:
            return list(self.video(source))
        if isinstance(source, list | tuple):
            return list(self.photos(source))
        return next(self.photos([source]))

    def photos(self, sources: Iterable[Source]) -> Iterator[PhotoResult]:
        """The faces of many photos, one result after the other, in memory that does not grow with their number."""
        for group in _groups((source, read_image(source)) for source in sources):
            for (source, image), faces in zip(group, self.faces([image for _, image in group]), strict=True):
                yield PhotoResult(tuple(faces), image.shape[1], image.shape[0], source)

    def video(
        self,
        path: str | os.PathLike,
        *,
        every: int = 1,
        max_side: int = 0,
        smoothing: float | int = 0.5,
        max_gap: float | int = 1.0,
    ) -> Iterator[VideoFrame]:
        """The frames of a video file with their faces, numbered by track and smoothed, in flat memory.

        Args:
            path: A file that OpenCV's FFmpeg reads.
            every: Looks at every n-th frame.
            max_side: Larger frames are reduced to this many pixels on their longer side, and boxes are in pixels of the
                reduced frame; 0 for never.
            smoothing: Seconds after which what was seen of a face weighs 1/e; 0 for none.
            max_gap: Seconds that a track outlives its face.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no video.
        """
        frames = read_frames(pathlib.Path(path), every=every, max_side=max_side)
        return analyze_frames(self, frames, smoothing=smoothing, max_gap=max_gap)

    def faces(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """The faces of decoded photos, uint8 RGB (height, width, 3), in one batch: a list for each photo."""
        found = self.detector.detect(images)
        found = [photo[inside(photo, *image.shape[:2])] for photo, image in zip(found, images, strict=True)]
        attributes = self._attributes(images, found)
        return [
            [
                Face(box, points, float(score), **next(attributes))
                for box, points, score in zip(photo.bboxes, photo.landmarks, photo.scores, strict=True)
            ]
            for photo in found
        ]

    def _attributes(self, images: Sequence[np.ndarray], found: Sequence[Detections]) -> Iterator[dict[str, Any]]:
        """What the networks say of all faces, photo by photo."""
        faces: list[dict[str, Any]] = [{} for photo in found for _ in range(len(photo))]
        for model in self.models if faces else ():
            margin = model.cfg.preprocessing.margin
            # Resized at once: a thousand crops of a huge photo are not held in full.
            crops = [
                model.cfg.preprocessing.resize(crop_face(image, box, points, margin=margin, align=self._align))
                for image, photo in zip(images, found, strict=True)
                for box, points in zip(photo.bboxes, photo.landmarks, strict=True)
            ]
            outputs = model.outputs(crops)
            predictions = model.decode(outputs)
            for index, face in enumerate(faces):
                face.setdefault("features", outputs["features"][index])
                for task in model.cfg.tasks:
                    if task in ATTRIBUTES:
                        face |= _values(ATTRIBUTES[task], predictions[task][index], self.labels)
        return iter(faces)


def _values(attribute: str, prediction: Any, labels: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    if attribute == "age":
        return {"age": float(prediction)}
    if attribute == "valence_arousal":
        return {"valence": float(prediction[0]), "arousal": float(prediction[1])}
    named = zip(labels[attribute], prediction.tolist(), strict=True)
    return {attribute: Classification(dict(named))}


def inside(found: Detections, height: int, width: int) -> Bool[np.ndarray, " faces"]:
    """Which boxes hold a whole pixel of a photo of this size, (n,) bool; the regression may push one out of it."""
    low = np.trunc(np.maximum(found.bboxes[:, :2], 0))
    high = np.trunc(np.minimum(found.bboxes[:, 2:], [width, height]))
    return np.asarray((high > low).all(axis=1))


def _groups(photos: Iterable[tuple[Source, np.ndarray]]) -> Iterator[list[tuple[Source, np.ndarray]]]:
    """Lists of photos that are worked on together."""
    photos = iter(photos)
    for first in photos:
        group, pixels = [first], first[1].size // 3
        while pixels < _GROUP_PIXELS and len(group) < _GROUP_PHOTOS:
            following = list(itertools.islice(photos, 1))
            if not following:
                break
            group += following
            pixels += following[0][1].size // 3
        yield group
