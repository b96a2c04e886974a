"""A dataset made for the tests of the preparation: small PNG photos whose first pixel gives the number of faces."""

import functools
import pathlib
import time
from collections.abc import Iterator
from types import SimpleNamespace

import cv2
import numpy as np

from facejax.data.records import Record
from facejax.datasets.registry import Dataset

COUNT = 40


def photo(index: int) -> np.ndarray:
    """uint8 RGB (40, 60, 3) of noise; first pixel: red = number of faces (0 for each tenth photo)."""
    pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    pixels[0, 0, 0] = 0 if index % 10 == 9 else 1 + (index % 10 == 5)
    return pixels


def labels_of(index: int) -> dict[str, object]:
    labels: dict[str, object] = {"emotion": index % 8, "person": f"p{index // 4}"}
    if index % 2:
        labels["age"] = index + 20
    return labels


def write_photos(raw: pathlib.Path, count: int = COUNT) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(raw / f"{index:03d}.png"), photo(index)[..., ::-1])


class ToyFaces(Dataset):
    """Files of a folder; every fifth for validation."""

    name = "toy_faces"
    description = "Noise."
    licence = "MIT"
    url = "https://example.org/toy"
    tasks = ("emotion8",)
    expected_counts = {"train": 32, "validation": 8, "test": 5}  # noqa: RUF012
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None, **options: object) -> Iterator[Record]:
        if raw is None:
            for index in range(int(str(options["count"]))):
                yield Record(f"{index:03d}", "train", functools.partial(photo, index), labels_of(index))
            return
        for path in sorted(raw.iterdir()):
            index = int(path.stem[:3])
            split = "validation" if index % 5 == 0 else "train"
            yield Record(path.name, split, path, labels_of(index), (5.0, 6.0, 25.0, 36.0))


class ToyDetector:
    """As many boxes as the photo's first pixel says; the second one is larger and less probable."""

    def __init__(self, seconds: float = 0.0):
        self._seconds = seconds
        self.min_face = 20

    def detect(self, images):
        time.sleep(self._seconds)
        return [self._detections(int(image[0, 0, 0])) for image in images]

    def _detections(self, faces: int) -> SimpleNamespace:
        bboxes = np.array([[2.0, 3.0, 22.0, 33.0], [10.0, 0.0, 50.0, 40.0]], np.float32)[:faces]
        eyes = np.array([[8.0, 10.0], [16.0, 10.0], [12.0, 15.0], [9.0, 20.0], [15.0, 20.0]], np.float32)
        landmarks = np.stack([eyes, eyes])[:faces]
        return SimpleNamespace(bboxes=bboxes, scores=np.array([0.99, 0.9], np.float32)[:faces], landmarks=landmarks)
