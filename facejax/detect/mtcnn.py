"""MTCNN (Zhang et al. 2016, "Joint Face Detection and Alignment using Multitask Cascaded CNNs") over many photos.

Results equal facenet-pytorch's one-photo-at-a-time cascade, but photos of mixed sizes share the device's work: their
pixels lie in one buffer (`sampling`), their pyramids share a strip (`pyramid`), their candidates share batches, and
all of these come in few fixed shapes, so that a data set compiles nothing after its first photos. The host keeps what
is small and ragged: thresholds, suppression, tables.
"""

import concurrent.futures
import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from facejax.detect import boxes, networks, pyramid, sampling, strip, weights

# Canvases, and crops for R- and O-Net: how many come in one call (each number is compiled once), and how many of them
# a network looks at at a time. On a CPU few, whose activations stay in the cache, but many turns in a call, since its
# cores wait for each other between calls; an accelerator looks at all at once.
_BATCH_SIZES = {
    "cpu": {"pnet": (1, 4, 16), "rnet": (8, 32, 128), "onet": (2, 8, 32)},
    "accelerator": {"pnet": (4, 16, 32, 64), "rnet": (64, 256, 512, 1024), "onet": (32, 128, 256, 512)},
}
_AT_A_TIME = {"cpu": {"pnet": 1, "rnet": 32, "onet": 8}, "accelerator": {"pnet": 64, "rnet": 1024, "onet": 512}}

_NETWORKS = {"pnet": networks.PNet(), "rnet": networks.RNet(), "onet": networks.ONet()}

# Groups of photos at once, each in a thread of its own: XLA on a CPU runs most of these small layers on one core; an
# accelerator works for one group while the host prepares another.
_GROUPS_AT_ONCE = {"cpu": min(4, os.cpu_count() or 1), "accelerator": min(3, os.cpu_count() or 1)}
# Pixels of a group, least and most: bounds the memory of a data set of any length. An accelerator wants large batches,
# and the photos that are cut off between two groups may make one larger by half a photo.
_GROUP_PIXELS = {"cpu": (1, 2**22 // _GROUPS_AT_ONCE["cpu"]), "accelerator": (2**20, 2**22 - 2**19)}

# Windows of a canvas that may pass P-Net before all of its outputs are brought to the host: 10 to 110 do on average.
_PASSING = 256


@dataclasses.dataclass(frozen=True)
class Detections:
    """The faces of one photo, best score first; the arrays are empty where there is none.

    Attributes:
        bboxes: [x1, y1, x2, y2] in pixels of the photo; not square, and may reach beyond its edges.
        scores: Probabilities of a face, by O-Net.
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

    def best(self) -> "Detections":
        """The face with the highest score alone; empty where there is none."""
        return self[:1]

    def largest(self) -> "Detections":
        """The face whose box has the largest area alone; empty where there is none."""
        return self[np.argsort(-np.prod(self.bboxes[:, 2:] - self.bboxes[:, :2], axis=1), kind="stable")[:1]]


class MTCNN:
    """Finds faces, their boxes and five landmarks in photos.

    Args:
        min_face: Side of the smallest face that is looked for, in pixels of the photo; at least 12.
        thresholds: Least probabilities of P-, R- and O-Net. Defaults are facenet-pytorch's; the paper's code uses 32 or
            64 pixels and (0.6, 0.7, 0.9).
        factor: Ratio of the sizes of neighbouring pyramid levels.

    Raises:
        FileNotFoundError: The package ``mtcnn``, which brings the weights, is not installed.
    """

    def __init__(
        self,
        min_face: float | int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ):
        if min_face < pyramid.WINDOW:
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
        self._params = {name: jax.device_put(weights.load(name)) for name in _NETWORKS}
        kind = "cpu" if jax.default_backend() == "cpu" else "accelerator"
        self._batch_sizes, self._at_a_time = _BATCH_SIZES[kind], _AT_A_TIME[kind]
        self._groups_at_once, self._group_pixels = _GROUPS_AT_ONCE[kind], _GROUP_PIXELS[kind]
        self._accelerator = kind == "accelerator"

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """The faces of each photo.

        Photos larger than 8 megapixels, or longer than 32,768 pixels, are shrunk to that before: the smallest
        face that is found grows by the same factor. Boxes and landmarks are in pixels of the photo as given.

        Args:
            images: uint8 RGB photos (height, width, 3) of any sizes.

        Returns:
            One `Detections` for each photo, in the same order. The results of a photo do not depend on the others.

        Raises:
            ValueError: One image is not uint8 RGB.
        """
        for index, image in enumerate(images):
            _check(image, index)
        with concurrent.futures.ThreadPoolExecutor(self._groups_at_once) as pool:
            groups = pool.map(self._detect_group, _groups(images, self._groups_at_once, *self._group_pixels))
            return [found for group in groups for found in group]

    def _detect_group(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """The faces of photos that fit in memory together."""
        shrunk = [_shrink(image) for image in images]
        buffer = sampling.integral_buffer(shrunk, on_device=self._accelerator)
        photo, found = self._propose(buffer)
        photo, found = self._refine(buffer, photo, found)
        photo, found, scores, landmarks = self._finish(buffer, photo, found)
        detections = []
        for index, (image, small) in enumerate(zip(images, shrunk, strict=True)):
            mine = np.flatnonzero(photo == index)
            mine = mine[np.argsort(-scores[mine], kind="stable")]
            ratio = np.array(image.shape[1::-1], np.float32) / np.array(small.shape[1::-1], np.float32)
            detections.append(Detections(found[mine] * np.tile(ratio, 2), scores[mine], landmarks[mine] * ratio))
        return detections

    def _propose(self, buffer: sampling.PhotoBuffer) -> tuple[np.ndarray, np.ndarray]:
        """Square candidates of P-Net: index of the photo, box."""
        tiles, height = pyramid.lay_out(pyramid.levels(buffer.sizes, self.min_face, self.factor))
        if not len(tiles):
            return np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
        count = pyramid.canvases(height)
        table, tile_map = strip.strip_tables(buffer, tiles, count)
        runs = []
        for start, stop, size in _batches(count, self._batch_sizes["pnet"], round_up=self._accelerator):
            canvases = np.minimum(np.arange(start, start + size), stop - 1)
            tables = strip.canvas_tables(table, tile_map, tiles["place"][:, 0], canvases)
            outputs = self._apply("pnet", *sampling.canvas_pixels(buffer.sums, *tables))
            few = ()
            if self._accelerator:
                few = _passing(*outputs, self.thresholds[0])
                _fetch(few)
            runs.append((start, stop, outputs, few))
        seen, scores, offsets = self._collect(runs)
        # The rows of windows of all canvases, one behind the other, are those of the strip.
        window, index, inside = strip.windows(seen, tiles, tile_map)
        scores, offsets = scores[inside], offsets[inside]
        photo, level, scale = (tiles[name][index] for name in ("photo", "level", "scale"))
        corner = pyramid.STRIDE * window[:, ::-1].astype(np.float32)
        found = np.concatenate([corner + 1, corner + pyramid.WINDOW], axis=1) / scale.astype(np.float32)[:, None]
        found = np.floor(found)
        kept = boxes.nms(found, scores, 0.5, key=photo * (level.max(initial=0) + 1) + level)
        kept = kept[boxes.nms(found[kept], scores[kept], 0.7, key=photo[kept])]
        return photo[kept], boxes.squares(boxes.calibrate(found[kept], offsets[kept], end_pixel=0.0))

    def _collect(self, runs: Sequence[tuple]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of P-Net's windows that reach its threshold: number of the window on the strip, probability, offsets."""
        columns = []
        for start, stop, (probability, offsets), few in runs:
            windows = math.prod(probability.shape[1:])
            if few and (passing := int(few[0])) <= len(few[1]):
                index, scores, offsets = (np.asarray(part)[:passing] for part in few[1:])
            else:
                scores, offsets = np.asarray(probability).ravel(), np.asarray(offsets).reshape(-1, 4)
                index = np.flatnonzero(scores >= self.thresholds[0])
                scores, offsets = scores[index], offsets[index]
            used = np.searchsorted(index, (stop - start) * windows)
            columns.append((start * windows + index[:used], scores[:used], offsets[:used]))
        seen, scores, offsets = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        return seen, scores, offsets

    def _refine(
        self, buffer: sampling.PhotoBuffer, photo: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Square candidates of R-Net: index of the photo, box."""
        photo, found, outputs = self._look("rnet", buffer, photo, found)
        if not outputs:
            return photo, found
        scores, offsets = outputs
        kept = np.flatnonzero(scores > self.thresholds[1])
        kept = kept[boxes.nms(found[kept], scores[kept], 0.7, key=photo[kept])]
        return photo[kept], boxes.squares(boxes.calibrate(found[kept], offsets[kept], end_pixel=1.0))

    def _finish(
        self, buffer: sampling.PhotoBuffer, photo: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Faces by O-Net: index of the photo, box, score, landmarks."""
        photo, found, outputs = self._look("onet", buffer, photo, found)
        if not outputs:
            return photo, found, np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
        scores, offsets, points = outputs
        # Several candidates of a clear face reach exactly 1. The reference prefers the one that R-Net thought least of.
        kept = np.flatnonzero(scores > self.thresholds[2])[::-1]
        photo, found, scores = photo[kept], found[kept], scores[kept]
        size = found[:, None, 2:] - found[:, None, :2] + 1
        landmarks = points[kept].reshape(-1, 2, 5).transpose(0, 2, 1) * size + found[:, None, :2] - 1
        found = boxes.calibrate(found, offsets[kept], end_pixel=1.0)
        kept = boxes.nms(found, scores, 0.7, key=photo, relative_to="smaller", end_pixel=1.0)
        return photo[kept], found[kept], scores[kept], landmarks[kept]

    def _look(
        self, name: str, buffer: sampling.PhotoBuffer, photo: np.ndarray, found: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Runs a network on the crops of all candidates; those that lie outside their photo are dropped."""
        side = {"rnet": 24, "onet": 48}[name]
        # Boxes count pixels from 1 and hold both ends, as in the Matlab original.
        low = np.maximum(np.trunc(found[:, :2]).astype(np.int64), 1) - 1
        high = np.minimum(np.trunc(found[:, 2:]).astype(np.int64), buffer.sizes[photo, ::-1])
        inside = (high > low).all(axis=1)
        photo, found = photo[inside], found[inside]
        rectangle = np.concatenate([low, high], axis=1)[inside]
        table = sampling.regions(buffer, photo, rectangle, np.full((len(photo), 2), side))
        runs = []
        for start, stop, size in _batches(len(table), self._batch_sizes[name], round_up=self._accelerator):
            inputs = sampling.crop_pixels(buffer.sums, _pad(table[start:stop], size), side=side)
            outputs = self._apply(name, inputs)
            _fetch(outputs)
            runs.append((stop - start, outputs))
        return photo, found, _gather(runs)

    def _apply(self, name: str, *inputs: Array) -> tuple[Array, ...]:
        return _apply(name, self._at_a_time[name], self._params[name], *inputs)


# Apart from the sampling, whose shapes follow the buffer's length, so that the slow part to compile has few shapes.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(name: str, at_a_time: int, params: dict, *inputs: Array) -> tuple[Array, ...]:
    """A network's outputs for a batch, of which it looks at so many rows at a time."""

    def look(rows: tuple[Array, ...]) -> tuple[Array, ...]:
        return _NETWORKS[name].apply({"params": params}, *rows)  # pyright: ignore

    total = len(inputs[0])
    if total <= at_a_time:
        return look(inputs)
    turns = jax.lax.map(look, tuple(rows.reshape(-1, at_a_time, *rows.shape[1:]) for rows in inputs))
    return tuple(rows.reshape(total, *rows.shape[2:]) for rows in turns)


@jax.jit
def _passing(
    probability: Float[Array, "canvases rows columns"],
    offsets: Float[Array, "canvases rows columns 4"],
    threshold: Float[Array, ""],
) -> tuple[Array, ...]:
    """How many windows reach the threshold, and of the first `_PASSING` a canvas: index, probability, offsets."""
    size = _PASSING * len(probability)
    probability, offsets = probability.ravel(), offsets.reshape(-1, 4)
    passing = probability >= threshold
    # Only those that pass are written, where `jnp.nonzero` would add up all windows in a few places.
    count = jnp.cumsum(passing)
    place = jnp.where(passing, count - 1, size)
    index = jnp.zeros(size, jnp.int32).at[place].set(jnp.arange(len(passing)), mode="drop")
    return count[-1], index, probability[index], offsets[index]


def _check(image: np.ndarray, index: int) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"expected a list of uint8 RGB photos (height, width, 3), got {got} at index {index}")
    if 0 in image.shape:
        raise ValueError(f"expected a photo with pixels, got shape {image.shape} at index {index}")


def _shrink(image: np.ndarray) -> np.ndarray:
    """The photo, made smaller where it is beyond the limits of `sampling`."""
    height, width = image.shape[:2]
    ratio = min(1.0, (sampling.MAX_PIXELS / (height * width)) ** 0.5, sampling.MAX_SIDE / max(height, width))
    if ratio == 1:
        return image
    return cv2.resize(image, (max(1, int(width * ratio)), max(1, int(height * ratio))), interpolation=cv2.INTER_AREA)


def _groups(images: Sequence[np.ndarray], at_once: int, least: int, most: int) -> Iterator[list[np.ndarray]]:
    """Splits photos, in order, into groups alike in size, enough of them to run so many at once.

    A group has `least` to `most` pixels, within half a photo; a larger photo is a group by itself.
    """
    sizes = [(image.shape[0] + 1) * (image.shape[1] + 1) for image in images]
    limit = min(max(sum(sizes) / at_once, least), most)
    group, pixels = [], 0
    for image, size in zip(images, sizes, strict=True):
        if group and pixels + size / 2 > limit:
            yield group
            group, pixels = [], 0
        group.append(image)
        pixels += size
    if group:
        yield group


def _batches(total: int, sizes: tuple[int, ...], *, round_up: bool) -> list[tuple[int, int, int]]:
    """Start, stop and size of batches that cover `total` items; all but the last are full.

    Rounded up, the rest comes in one batch, as large as need be; else in several, so that little of the last is empty.
    """
    result, start = [], 0
    while start < total:
        left = total - start
        fitting = [size for size in sizes if size <= left]
        size = fitting[-1] if fitting else sizes[0]
        if round_up:
            size = next((size for size in sizes if size >= left), sizes[-1])
        result.append((start, min(total, start + size), size))
        start += size
    return result


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    """Repeats the first row up to `size` rows."""
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])


def _fetch(outputs: Sequence[Array]) -> None:
    """Has the device send outputs as soon as they are there, not when the host asks for each."""
    for part in outputs:
        part.copy_to_host_async()


def _gather(runs: Sequence[tuple[int, tuple[Array, ...]]]) -> list[np.ndarray]:
    """Outputs of several batches on the host, each cut to the rows that are no padding, one behind the other."""
    columns = zip(*(outputs for _, outputs in runs), strict=True)
    lengths = [length for length, _ in runs]
    return [
        np.concatenate([np.asarray(part)[:length] for length, part in zip(lengths, column, strict=True)])
        for column in columns
    ]
