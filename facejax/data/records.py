"""The output of dataset readers: one photo or clip, its location and its labels."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Record:
    """One photo of a dataset, before face detection.

    Attributes:
        id: Unique within the dataset and stable: the path below the dataset's folder if there is one. Used as the key
            for resuming, sorting and reporting the preparation.
        split: ``train``, ``validation`` or ``test``.
        image: Path of the file, or a function that returns the photo: uint8 RGB (height, width, 3).
        labels: Label by field name (`facejax.tasks.Task.label_key`). ``emotion`` (index in EMOTION8), ``gender`` and
            ``ethnicity`` are indices, ``age`` is in years, ``identity`` is an index that counts from 0 over the whole
            dataset, ``valence_arousal`` is a pair in [-1, 1]. Unknown labels are omitted. Other fields (``person``, a
            name) are kept as text or numbers.
        bbox: The dataset's own box [x1, y1, x2, y2] in pixels, if it publishes one.
        landmarks: The dataset's own landmarks (n, 2), x and y in pixels, if it publishes them.
    """

    id: str
    split: str
    image: pathlib.Path | Callable[[], np.ndarray]
    labels: Mapping[str, object] = dataclasses.field(default_factory=dict)
    bbox: tuple[float, float, float, float] | None = None
    landmarks: np.ndarray | None = None
