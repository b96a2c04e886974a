"""Reads folders prepared by TensorFlow Datasets in a random-access format (array_record), without TensorFlow.

Labels are read without decoding a photo; photos are decoded like any other file, by `facejax.data.decode`.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from facejax.data.decode import decode_image

MARK = "dataset_info.json"  # present in every prepared folder


def examples(folder: pathlib.Path, split: str) -> Iterator[Mapping[str, Any]]:
    """Yields the examples of a split in file order; ``image`` is the encoded photo.

    Raises:
        ValueError: The folder is damaged, has no such split, or is in a file format that needs TensorFlow.
    """
    try:
        source = _source(folder, split)
        for index in range(len(source)):
            yield source[index]
    except NotImplementedError as error:
        raise ValueError(
            f"{folder} is in a file format without random access; prepare it again with "
            f"`tfds build {folder.parent.name} --file_format=array_record`"
        ) from error
    except Exception as error:  # a damaged file makes TFDS, protobuf and array_record raise anything
        raise ValueError(f"{folder} is not a readable TensorFlow Datasets folder: {error!a}") from error


def photo(folder: pathlib.Path, split: str, index: int) -> np.ndarray:
    """The photo of one example: uint8 RGB (height, width, 3); bound by `functools.partial` it can be a `Record.image`.

    Raises:
        CorruptImageError: The photo is damaged.
    """
    return decode_image(_source(folder, split)[index]["image"])


@functools.cache
def _source(folder: pathlib.Path, split: str):
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
