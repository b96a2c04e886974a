"""CelebA (Liu et al., 2015): 202,599 photos of 10,177 celebrities, upright, 178 x 218 pixels.

Read from a folder prepared by TensorFlow Datasets (``celeb_a/2.1.0``, or 2.0.1, which has no identities), with the
features ``image``, ``landmarks`` (``lefteye_x`` ... ``rightmouth_y``), ``attributes`` (40 binary ones, of which only
``Male`` is read) and ``identity`` (``Identity_No``, from 1).
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from facejax.data.records import Record
from facejax.datasets import tfds_folder
from facejax.datasets.layout import find
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import GENDER

_VERSIONS = ("2.1.0", "2.0.1")
_PLACES = (".", *_VERSIONS, *(f"celeb_a/{version}" for version in _VERSIONS))
_POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")


@register_dataset
class CelebA(Dataset):
    """Gender and identity, in addition to the paper's datasets; the published split, whose parts share no people."""

    name = "celeb_a"
    description = "photos of celebrities with gender, identity and five landmarks, as TensorFlow Datasets prepares them"
    licence = "for non-commercial research (photos remain their owners')"
    url = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    tasks = ("gender", "identity")
    expected_counts: ClassVar = {"train": 162_770, "validation": 19_867, "test": 19_962}
    default_crop = "mtcnn"

    def records(self, raw: pathlib.Path | None) -> Iterator[Record]:
        """Yields the photos split by split in file order; identities are the dataset's numbers minus 1.

        Args:
            raw: Folder prepared by TensorFlow Datasets, or one above it.

        Raises:
            ValueError: The folder contains another dataset.
        """
        folder = find(self, raw, *(f"{place}/{tfds_folder.MARK}" for place in _PLACES)).parent
        for split in self.expected_counts:
            for index, example in enumerate(tfds_folder.examples(folder, split)):
                record_id = f"{split}/{index:06d}"
                try:
                    gender = GENDER.index("male" if example["attributes"]["Male"] else "female")
                    identity = {key: int(example[key]["Identity_No"]) - 1 for key in ("identity",) if key in example}
                    points = [[example["landmarks"][f"{point}_{axis}"] for axis in "xy"] for point in _POINTS]
                except (KeyError, TypeError) as error:
                    raise ValueError(f"{folder} does not contain CelebA: its examples lack {error}") from error
                image = functools.partial(tfds_folder.photo, folder, split, index)
                yield Record(
                    record_id, split, image, {"gender": gender, **identity}, landmarks=np.array(points, np.float32)
                )
