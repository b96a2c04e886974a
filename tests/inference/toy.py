"""Small networks with random weights, and a detector that returns given boxes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from facejax.detect import MTCNN, Detections
from facejax.inference import LoadedModel
from facejax.models import init_variables, model_from_cfg, pretrained_cfg
from facejax.preprocessing import Preprocessing

SIZE = 32


def toy_model(*tasks: str, seed: int = 0, **preprocessing) -> LoadedModel:
    cfg = dataclasses.replace(
        pretrained_cfg("mobilenet_v1"),
        tag="toy",
        tasks=tasks,
        preprocessing=Preprocessing(SIZE, **preprocessing),
    )
    return LoadedModel(cfg, init_variables(model_from_cfg(cfg), seed=seed, image_size=SIZE))


class FixedDetector(MTCNN):
    """Finds the same boxes in every photo, with or without faces; none in photos smaller than 20 pixels."""

    def __init__(self, boxes: Sequence[Sequence[float]]):
        self._boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        return [self._found(image) for image in images]

    def _found(self, image: np.ndarray) -> Detections:
        boxes = self._boxes if min(image.shape[:2]) >= 20 else self._boxes[:0]
        parts = np.array([[0.3, 0.35], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
        points = boxes[:, None, :2] + parts * (boxes[:, None, 2:] - boxes[:, None, :2])
        return Detections(boxes, np.linspace(1, 0.9, len(boxes), dtype=np.float32), points)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
