"""What a data set reader yields: one photo or clip, where it is, and what is known of it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Record:
    """One photo of a data set before any face was looked for.

    Attributes:
        id: Unique within the data set and stable: the path below the set's folder where there is one. Preparation
            resumes, sorts and reports by it.
        split: ``train``, ``validation`` or ``test``.
        image: Path of the file, or a function that makes the photo: uint8 RGB (height, width, 3).
        labels: Label by field name (`facejax.tasks.Task.label_key`). ``emotion`` (index in EMOTION8), ``gender`` and
            ``ethnicity`` are indices, ``age`` is in years, ``identity`` is an index that counts from 0 over the whole
            set, ``valence_arousal`` is a pair in [-1, 1]. What is not known is left out. Other fields (``person``, a
            name) are kept as text or numbers.
        bbox: The set's own box [x1, y1, x2, y2] in pixels, where it publishes one.
        landmarks: The set's own landmarks (n, 2), x and y in pixels, where it publishes them.
    """

    id: str
    split: str
    image: pathlib.Path | Callable[[], np.ndarray]
    labels: Mapping[str, object] = dataclasses.field(default_factory=dict)
    bbox: tuple[float, float, float, float] | None = None
    landmarks: np.ndarray | None = None
