"""From a photo to its faces and their predicted attributes: the detector, the crops and any number of networks."""

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

# Task -> attribute of `Face` that it sets. Identity heads name people of a training set, so only the features are used.
ATTRIBUTES = {
    "age": "age",
    "gender": "gender",
    "ethnicity": "ethnicity",
    "emotion8": "emotion",
    "emotion7": "emotion",
    "valence_arousal": "valence_arousal",
}
# Limits on a group of photos that are decoded and passed to the detector together: photos, and pixels in total.
_GROUP_PHOTOS, _GROUP_PIXELS = 32, 1 << 25


class FaceAnalyzer:
    """Finds the faces in photos and runs the networks on each of them.

    Photos are **RGB** throughout; the preprocessing of each network is stored with its weights
    (`PretrainedCfg.preprocessing`). Faces are cropped as in the paper (the detector's box, eyes level) and run through
    each network in padded batches of a few sizes, so that nothing is recompiled as the number of faces varies.

    Attributes:
        models: The networks, in the order given.
        detector: The face detector.
        labels: Class names by attribute of `Face` (``emotion``: 8 or 7), for the attributes that the networks predict.
    """

    def __init__(self, models: Sequence[LoadedModel], detector: MTCNN | None = None, *, align: bool = True):
        """Combines networks and a detector.

        Args:
            models: Networks with different tasks, such as one for age and gender and another for expressions. The
                features of the first are the embedding.
            detector: None for `MTCNN` with its defaults.
            align: Whether crops are rotated so that the eyes are level, as facejax prepares its training crops.

        Raises:
            ValueError: There is no network, or two of them predict the same attribute.
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
                    raise ValueError(f"two networks predict the {attribute} of a face; load only one of them")
                self.labels[attribute] = model.class_names(task)

    @classmethod
    def load(
        cls, *names_or_dirs: str | os.PathLike, detector: MTCNN | None = None, align: bool = True
    ) -> "FaceAnalyzer":
        """Loads trained networks by folder or name.

        Args:
            *names_or_dirs: Each a folder (``workdirs/emotion_b2/best``) or the name of published weights
                (``mobilenet_v1.vggface2_age_gender``); see `load_model`.
            detector: As in `__init__`.
            align: As in `__init__`.
        """
        return cls([load_model(name) for name in names_or_dirs], detector, align=align)

    @overload
    def analyze(self, source: Source) -> PhotoResult | list[VideoFrame]: ...
    @overload
    def analyze(self, source: Sequence[Source]) -> list[PhotoResult]: ...

    def analyze(self, source):
        """Returns the faces of a photo, of each photo in a list, or of a short video.

        Args:
            source: Anything `read_image` takes (a path, bytes, an RGB array), a list of these, or the path of a video.
                All frames of a video are kept in memory: use `video` for long ones.

        Returns:
            One `PhotoResult`, a list of them in the same order, or for a video the list of its `VideoFrame`s.

        Raises:
            ValueError: A photo cannot be read; the message names it.
            FileNotFoundError: A file does not exist; the message names it.
        """
        if isinstance(source, str | os.PathLike) and pathlib.PurePath(source).suffix.lower() in VIDEO_SUFFIXES:
            return list(self.video(source))
        if isinstance(source, list | tuple):
            return list(self.photos(source))
        return next(self.photos([source]))

    def photos(self, sources: Iterable[Source]) -> Iterator[PhotoResult]:
        """Yields a result for each of many photos; memory use does not grow with their number.

        Raises:
            ValueError: A single photo is given, or one cannot be read; the message names it.
            FileNotFoundError: A file does not exist; the message names it.
        """
        # Otherwise the letters of a path, or the rows of an array, would be taken for photos.
        one_array = isinstance(sources, np.ndarray) and sources.ndim < 4
        if one_array or isinstance(sources, str | os.PathLike | bytes):
            raise ValueError("photos() takes several photos, such as a list; for a single one, call analyze()")
        return self._photos(sources)

    def _photos(self, sources: Iterable[Source]) -> Iterator[PhotoResult]:
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
        """Yields the frames of a video file with their faces, tracked and smoothed, in constant memory.

        Args:
            path: A file that OpenCV's FFmpeg can read.
            every: Analyses every n-th frame.
            max_side: Larger frames are downscaled to this many pixels on their longer side, and boxes are in pixels of
                the downscaled frame; 0 for never.
            smoothing: Time constant of the exponential smoothing in seconds (older predictions decay to 1/e); 0 for
                none.
            max_gap: Seconds for which a track is kept after its face was last seen.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: It is not a video.
        """
        frames = read_frames(pathlib.Path(path), every=every, max_side=max_side)
        return analyze_frames(self, frames, smoothing=smoothing, max_gap=max_gap)

    def faces(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        """Returns a list of faces for each decoded photo, uint8 RGB (height, width, 3); all photos form one batch."""
        found = self.detector.detect(images)
        found = [photo[boxes_inside(photo, *image.shape[:2])] for photo, image in zip(found, images, strict=True)]
        attributes = self._attributes(images, found)
        return [
            [
                Face(box, points, float(score), **next(attributes))
                for box, points, score in zip(photo.bboxes, photo.landmarks, photo.scores, strict=True)
            ]
            for photo in found
        ]

    def _attributes(self, images: Sequence[np.ndarray], found: Sequence[Detections]) -> Iterator[dict[str, Any]]:
        """The networks' predictions for all faces, photo by photo, as keyword arguments of `Face`."""
        faces: list[dict[str, Any]] = [{} for photo in found for _ in range(len(photo))]
        for model in self.models if faces else ():
            margin = model.cfg.preprocessing.margin
            # Resized immediately, so that a thousand crops of a huge photo are not kept at full size.
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


def boxes_inside(found: Detections, height: int, width: int) -> Bool[np.ndarray, " faces"]:
    """Which boxes contain a whole pixel of a photo of this size, (n,) bool; the regression may push one outside."""
    low = np.trunc(np.maximum(found.bboxes[:, :2], 0))
    high = np.trunc(np.minimum(found.bboxes[:, 2:], [width, height]))
    return np.asarray((high > low).all(axis=1))


def _groups(photos: Iterable[tuple[Source, np.ndarray]]) -> Iterator[list[tuple[Source, np.ndarray]]]:
    """Groups of photos that are processed together."""
    group, pixels = [], 0
    for photo in photos:
        group.append(photo)
        pixels += photo[1].size // 3
        if pixels >= _GROUP_PIXELS or len(group) >= _GROUP_PHOTOS:
            yield group
            group, pixels = [], 0
    if group:
        yield group
