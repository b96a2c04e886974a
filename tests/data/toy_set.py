"""A small prepared dataset, written record by record; the colour of each image encodes its index."""

import pathlib

import cv2
import numpy as np

from facejax.data.example import encode_example
from facejax.data.metadata import STORED_FIELDS, Field, shard_name, write_metadata
from facejax.data.tfrecord import write_shard

FIELDS = {
    "emotion": Field("int64"),
    "age": Field("float32"),
    "valence_arousal": Field("float32", 2),
    "person": Field("text"),
}


def labels_of(index: int) -> dict:
    return {
        "emotion": -1 if index == 3 else index % 8,
        "age": float("nan") if index == 4 else index + 0.5,
        "valence_arousal": [index / 100, -index / 100],
        "person": f"person {index // 2}",
    }


def image_of(index: int) -> np.ndarray:
    """uint8 RGB (20, 30, 3) of one colour."""
    return np.full((20, 30, 3), (index * 2 % 256, index // 128 * 40, 255 - index * 2 % 256), np.uint8)


def write_toy_set(data_dir: pathlib.Path, count: int, shards: int = 3) -> pathlib.Path:
    """Writes DATA/toy/1.0.0 with a split ``train`` of `count` lossless (BMP) crops; returns the folder."""
    directory = data_dir / "toy" / "1.0.0"
    directory.mkdir(parents=True)
    lengths, size = [], 0
    for shard, places in enumerate(np.array_split(np.arange(count), shards)):
        records = []
        for index in places.tolist():
            image = cv2.imencode(".bmp", image_of(index)[..., ::-1].copy())[1].tobytes()
            stored = {
                "image": image,
                "id": f"photos/{index:03d}.jpg",
                "bbox": [0.0, 0.0, 1.0, 1.0],
                "score": 0.9,
                "num_faces": 1,
            }
            records.append(encode_example({**labels_of(index), **stored}))
        columns = {key: field.column([labels_of(i)[key] for i in places.tolist()]) for key, field in FIELDS.items()}
        path = directory / shard_name("toy", "train", shard, shards)
        write_shard(path, records, columns)
        lengths.append(len(records))
        size += path.stat().st_size
    write_metadata(
        directory, "toy", FIELDS | STORED_FIELDS, "bmp", {"train": (lengths, size)}, "A toy.", "https://x.org", "MIT"
    )
    return directory
