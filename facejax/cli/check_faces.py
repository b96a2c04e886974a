"""Faces for checking exported files: from the user's photos, or rendered ones."""

import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from facejax.cli.options import photos_of

if TYPE_CHECKING:
    import numpy as np


def check_faces(sources: Sequence[str] | None, count: int) -> list["np.ndarray"]:
    """Returns face crops, uint8 RGB.

    Args:
        sources: Photos and folders; unreadable files are skipped, and their number is printed to standard error. None
            for rendered faces.
        count: Maximum number of faces.

    Raises:
        ValueError: No face was found in the photos.
    """
    if not sources:
        return _rendered(count)
    faces = _found(sources, count)
    if not faces:
        raise ValueError(f"no face was found in the photos of {', '.join(sources)}")
    return faces


def _found(sources: Sequence[str], count: int) -> list["np.ndarray"]:
    from facejax.detect import MTCNN, crop_face
    from facejax.inference import read_image
    from facejax.inference.analyzer import boxes_inside

    detector, crops, unreadable = MTCNN(min_face=40), [], 0
    for path in photos_of(sources):
        try:
            image = read_image(path)
        except (OSError, ValueError):
            unreadable += 1
            continue
        found = detector.detect([image])[0]
        found = found[boxes_inside(found, *image.shape[:2])]
        for box, points in zip(found.bboxes, found.landmarks, strict=True):
            crops.append(crop_face(image, box, points))
        if len(crops) >= count:
            break
    if unreadable:
        print(f"{unreadable} photo(s) cannot be read and were skipped", file=sys.stderr)
    return crops[:count]


def _rendered(count: int) -> list["np.ndarray"]:
    """Photos of the built-in rendered dataset `people`, in which heads fill most of the frame."""
    from facejax.datasets.people.reader import People

    records = itertools.islice(People().records(None, num_train=count, num_validation=0), count)
    made: list[Any] = [record.image for record in records]
    return [image() for image in made]
