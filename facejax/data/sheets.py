"""Contact sheets of a prepared dataset: one PNG per class, for a visual check before training."""

import pathlib
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

from facejax.atomic import write_atomically
from facejax.data.decode import decode_image
from facejax.data.example import decode_example
from facejax.data.metadata import class_names
from facejax.data.tfrecord import TFRecordSource

COLUMNS, ROWS, TILE, TITLE = 10, 6, 96, 24


def contact_sheet(images: list[np.ndarray], title: str) -> UInt8[np.ndarray, "height width 3"]:
    """RGB images on grey below a title, ten per row, each fitted into 96 pixels without stretching; uint8 RGB."""
    images = images[: ROWS * COLUMNS]
    rows = -(-len(images) // COLUMNS)  # only as many as needed: a rare class may have only a handful
    sheet = np.full((TITLE + rows * TILE, COLUMNS * TILE, 3), 64, np.uint8)
    cv2.putText(sheet, title, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    for place, image in enumerate(images):
        scale = TILE / max(image.shape[:2])
        width, height = (max(round(side * scale), 1) for side in (image.shape[1], image.shape[0]))
        top = TITLE + place // COLUMNS * TILE + (TILE - height) // 2
        left = place % COLUMNS * TILE + (TILE - width) // 2
        sheet[top : top + height, left : left + width] = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA
        )
    return sheet


def _groups(count: int, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Indices of `count` records by file stem: all records, each named class of each label, ages by decade."""
    groups = {"all": np.arange(count)}
    for key, column in labels.items():
        if names := class_names(key):
            groups |= {f"{key}_{name}": np.flatnonzero(column == place) for place, name in enumerate(names)}
        elif key == "age":
            known = column[column >= 0]  # NaN compares false
            for decade in sorted(set((known // 10).astype(int))):
                groups[f"age_{decade * 10:03d}"] = np.flatnonzero(column // 10 == decade)
    return groups


def write_contact_sheets(records: TFRecordSource, directory: pathlib.Path, split: str) -> None:
    """Writes ``<split>_all.png`` and ``<split>_<label>_<class>.png``: up to 60 crops of each, evenly spaced."""
    directory.mkdir(exist_ok=True)
    for stem, places in _groups(len(records), records.labels).items():
        total = len(places)
        if not total:
            continue
        places = places[np.linspace(0, len(places) - 1, min(len(places), ROWS * COLUMNS)).round().astype(int)]
        chosen = [decode_example(records[place]) for place in places]
        images = [decode_image(example["image"][0]) for example in chosen]
        title = f"{split} {stem}: {len(images)} of {total} crops"
        _, png = cv2.imencode(".png", contact_sheet(images, title)[..., ::-1])
        write_atomically(directory / f"{split}_{stem}.png", png.tobytes())
