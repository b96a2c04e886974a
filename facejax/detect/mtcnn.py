"""MTCNN (Zhang et al. 2016, "Joint Face Detection and Alignment using Multitask Cascaded CNNs") over many photos.

Results equal those of facenet-pytorch's cascade, which processes one photo at a time, but here photos of mixed sizes
are batched: their pixels share one buffer (`sampling`), their pyramids share a strip (`pyramid`) and their candidates
share batches. All of these come in a few fixed shapes, so that nothing is compiled after the first photos of a dataset.
Small, ragged computations stay on the host: thresholds, suppression, tables.

Difference from the paper's code: it runs the cascade of facenet's TensorFlow port, which pads a candidate that extends
beyond the photo with zeros, where facenet-pytorch stretches the part within the photo.
"""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float

from facejax.detect import boxes, cascade, pyramid, sampling, strip

# Overlaps above which boxes are suppressed: within a level of P-Net, between its levels, after R-Net and after O-Net.
SUPPRESSION = (0.5, 0.7, 0.7, 0.7)
# Groups of photos processed concurrently, each in its own thread: XLA on a CPU runs most of these small layers on one
# core; an accelerator processes one group while the host prepares another.
_GROUPS_AT_ONCE = {"cpu": min(4, os.cpu_count() or 1), "accelerator": min(3, os.cpu_count() or 1)}
# Minimum and maximum pixels of a group: bounds the memory for a dataset of any size. An accelerator needs large
# batches, and a photo at the boundary between two groups may make one larger by half a photo.
_GROUP_PIXELS = {"cpu": (1, 2**22 // _GROUPS_AT_ONCE["cpu"]), "accelerator": (2**20, 2**22 - 2**19)}


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The faces of one photo, best score first, equal only to itself; the arrays are empty if there are none.

    Attributes:
        bboxes: [x1, y1, x2, y2] in pixels of the photo; not square, and may extend beyond its edges.
        scores: Face probabilities from O-Net.
        landmarks: x and y in pixels of the left eye, right eye, nose, left and right mouth corner as seen in the photo.
    """

    bboxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    landmarks: Float[np.ndarray, "n 5 2"]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, keep: slice | np.ndarray) -> "Detections":
        """The faces of a slice, an index array or a mask."""
        return Detections(self.bboxes[keep], self.scores[keep], self.landmarks[keep])

    def largest(self) -> "Detections":
        """Only the face whose box has the largest area; empty if there is none."""
        return self[np.argsort(-np.prod(self.bboxes[:, 2:] - self.bboxes[:, :2], axis=1), kind="stable")[:1]]


class MTCNN:
    """Detects faces in photos: boxes and five landmarks.

    It can be copied and pickled, for spawned processes (JAX does not work in forked ones). A detector may be shared by
    several threads.

    Args:
        min_face: Side of the smallest detectable face, in pixels of the photo; at least 12.
        thresholds: Minimum probabilities for P-, R- and O-Net. Defaults are facenet-pytorch's; the paper's code uses 32
            or 64 pixels and (0.6, 0.7, 0.9).
        factor: Ratio of the sizes of neighbouring pyramid levels.

    Raises:
        FileNotFoundError: The package ``mtcnn``, which provides the weights, is not installed.
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        min_face: float | int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ):
        if not min_face >= pyramid.WINDOW:  # NaN as well
            raise ValueError(
                f"expected min_face of at least {pyramid.WINDOW} pixels, got {min_face}: enlarge the photos"
            )
        if len(thresholds) != 3 or not all(0 <= threshold <= 1 for threshold in thresholds):
            raise ValueError(f"expected thresholds as three probabilities, got {thresholds!r}")
        if not 0 < factor < 1:
            raise ValueError(f"expected a factor between 0 and 1, got {factor}")
        self.min_face = float(min_face)
        self.thresholds = tuple(thresholds)
        self.factor = factor
        self._levels_clash = _levels_clash(self.min_face, factor)
        self._cascade = cascade.Cascade(thresholds[0])
        kind = "accelerator" if self._cascade.accelerator else "cpu"
        self._groups_at_once, self._group_pixels = _GROUPS_AT_ONCE[kind], _GROUP_PIXELS[kind]
        self._pool = concurrent.futures.ThreadPoolExecutor(self._groups_at_once)
        self._spare: list[np.ndarray] | None = [] if self._cascade.accelerator else None

    def __reduce__(self):
        # Threads and device arrays are recreated.
        return MTCNN, (self.min_face, self.thresholds, self.factor)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detects the faces of each photo.

        Photos larger than 8 megapixels, or longer than 32,768 pixels, are first downscaled to that limit: the smallest
        detectable face grows by the same factor. Boxes and landmarks are in pixels of the original photo.

        Args:
            images: uint8 RGB photos (height, width, 3) of any sizes.

        Returns:
            One `Detections` per photo, in the same order. The results for a photo do not depend on the other photos.

        Raises:
            ValueError: An image is not uint8 RGB.
        """
        images = list(images)  # an iterator would be used up by the check
        for index, image in enumerate(images):
            _check(image, index)
        groups = self._pool.map(self._detect_group, _groups(images, self._groups_at_once, *self._group_pixels))
        return [found for group in groups for found in group]

    def _detect_group(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detects the faces of a group of photos that fit in memory together."""
        shrunk = [_shrink(image) for image in images]
        buffer = sampling.integral_buffer(shrunk, self._spare)
        photo, found = self._propose(buffer)
        photo, found = self._refine(buffer, photo, found)
        photo, found, scores, landmarks = self._finish(buffer, photo, found)
        sizes = np.array([image.shape[1::-1] for image in images], np.float32)
        ratio = (sizes / buffer.sizes[:, ::-1].astype(np.float32))[photo]
        faces = Detections(found * np.tile(ratio, 2), scores, landmarks * ratio[:, None])
        ends = np.searchsorted(photo, np.arange(len(images) + 1)).tolist()
        if self._spare is not None and buffer.pixels is not None:
            # The device no longer reads this memory, since all results computed from its sums have arrived.
            self._spare.append(buffer.pixels)
        return [faces[start:stop] for start, stop in itertools.pairwise(ends)]

    def _propose(self, buffer: sampling.PhotoBuffer) -> tuple[np.ndarray, np.ndarray]:
        """Square candidates from P-Net: index of the photo, box."""
        tiles = strip.Strip.of_photos(buffer, self.min_face, self.factor)
        if not tiles.canvases:
            return np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
        seen, scores, offsets = self._cascade.propose(buffer.sums, tiles)
        y, x, tile, inside = tiles.windows(seen)
        scores, offsets = scores[inside], offsets.take(inside, axis=0)
        photo, level, scale = (tiles.tiles[name].take(tile) for name in ("photo", "level", "scale"))
        first = pyramid.STRIDE * np.stack([x, y, x, y]).astype(np.float32)
        edges = np.array([[1], [1], [pyramid.WINDOW], [pyramid.WINDOW]], np.float32)
        found = np.floor((first + edges) / scale.astype(np.float32)).T.copy()
        kept = boxes.nms(found, scores, SUPPRESSION[0], key=photo * (level.max(initial=0) + 1) + level)
        if self._levels_clash:
            kept = kept[boxes.nms(found[kept], scores[kept], SUPPRESSION[1], key=photo[kept])]
        else:
            kept = kept[boxes.best_first(scores[kept], photo[kept])]
        return photo[kept], boxes.squares(boxes.calibrate(found[kept], offsets[kept], end_pixel=0.0))

    def _refine(
        self, buffer: sampling.PhotoBuffer, photo: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Square candidates from R-Net: index of the photo, box."""
        photo, found, table = _crops(buffer, photo, found, cascade.SIDES["rnet"])
        if not len(table):
            return photo, found
        scores, offsets, _ = self._cascade.refine("rnet", buffer.sums, table)
        kept = np.flatnonzero(scores > self.thresholds[1])
        kept = kept[boxes.nms(found[kept], scores[kept], SUPPRESSION[2], key=photo[kept])]
        return photo[kept], boxes.squares(boxes.calibrate(found[kept], offsets[kept], end_pixel=1.0))

    def _finish(
        self, buffer: sampling.PhotoBuffer, photo: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Faces from O-Net, photo by photo with the best first: index of the photo, box, score, landmarks."""
        photo, found, table = _crops(buffer, photo, found, cascade.SIDES["onet"])
        if not len(table):
            return photo, found, np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
        scores, offsets, points = self._cascade.refine("onet", buffer.sums, table)
        # Several candidates of a clear face may score exactly 1. The reference prefers the one R-Net ranked lowest.
        kept = np.flatnonzero(scores > self.thresholds[2])[::-1]
        photo, found, scores = photo[kept], found[kept], scores[kept]
        size = found[:, None, 2:] - found[:, None, :2] + 1
        landmarks = points[kept].reshape(-1, 2, 5).transpose(0, 2, 1) * size + found[:, None, :2] - 1
        found = boxes.calibrate(found, offsets[kept], end_pixel=1.0)
        kept = boxes.nms(found, scores, SUPPRESSION[3], key=photo, relative_to="smaller", end_pixel=1.0)
        return photo[kept], found[kept], scores[kept], landmarks[kept]


def _crops(
    buffer: sampling.PhotoBuffer, photo: np.ndarray, found: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates whose box overlaps their photo: photo, box, crop (a row of `sampling.REGION` columns)."""
    # Boxes count pixels from 1 and include both ends, as in the Matlab original.
    left, top, right, bottom = np.trunc(found.T).astype(np.int64)
    height, width = buffer.sizes.take(photo, axis=0).T
    left, top = np.maximum(left, 1) - 1, np.maximum(top, 1) - 1
    right, bottom = np.minimum(right, width), np.minimum(bottom, height)
    inside = np.flatnonzero((right > left) & (bottom > top))
    photo, found = photo.take(inside), found.take(inside, axis=0)
    rectangle = np.stack([left, top, right, bottom], axis=1).take(inside, axis=0)
    return photo, found, sampling.regions(buffer, photo, rectangle, np.array([side, side]))


def _levels_clash(min_face: float, factor: float) -> bool:
    """Whether windows of two levels can overlap more than P-Net's second suppression allows; not with the defaults.

    The overlap is largest if the smaller window lies within the larger one. Sides are whole pixels, and differ from 11
    pixels of their level by at most one pixel (plus float32 rounding).
    """
    side = (pyramid.WINDOW - 1) * min_face / pyramid.WINDOW
    return (side + 1.01) ** 2 > SUPPRESSION[1] * max(0.0, side / factor - 1.01) ** 2


def _check(image: np.ndarray, index: int) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"expected a list of uint8 RGB photos (height, width, 3), got {got} at index {index}")
    if 0 in image.shape:
        raise ValueError(f"expected a non-empty photo, got shape {image.shape} at index {index}")


def _shrink(image: np.ndarray) -> np.ndarray:
    """The photo, downscaled if it exceeds the limits of `sampling`."""
    height, width = image.shape[:2]
    ratio = min(1.0, (sampling.MAX_PIXELS / (height * width)) ** 0.5, sampling.MAX_SIDE / max(height, width))
    if ratio == 1:
        return image
    return cv2.resize(image, (max(1, int(width * ratio)), max(1, int(height * ratio))), interpolation=cv2.INTER_AREA)


def _groups(images: Sequence[np.ndarray], at_once: int, least: int, most: int) -> Iterator[Sequence[np.ndarray]]:
    """Splits photos, in order, into groups of similar size, with enough groups to run `at_once` concurrently.

    A group has between `least` and `most` pixels, give or take half a photo at either end; fewer than `least` pixels
    form a single group. A photo belongs to the group that contains its middle pixel.
    """
    sizes = np.array([(image.shape[0] + 1) * (image.shape[1] + 1) for image in images], np.int64)
    total = int(sizes.sum())
    number = max(1, math.ceil(total / most), min(at_once, total // least))
    group = (np.cumsum(sizes) - sizes / 2) // (total / number)
    starts = np.flatnonzero(np.diff(group, prepend=-1, append=number)).tolist()
    for start, stop in itertools.pairwise(starts):
        yield images[start:stop]
