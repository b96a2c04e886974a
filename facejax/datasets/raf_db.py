"""RAF-DB, basic expressions (Li, Deng and Du, 2017): 12,271 + 3,068 aligned faces, 100 x 100 pixels.

Published layout (as read by zczcwh/POSTER and many others; the misspelt name of the list is the dataset's own)::

    basic/EmoLabel/list_patition_label.txt       train_00001.jpg 5
    basic/Image/aligned/train_00001_aligned.jpg ...

Labels are 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets.layout import Skips, find, lines
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION8

_EMOTION = tuple(map(EMOTION8.index, ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")))
_ROW = re.compile(r"((train|test)_[0-9]{4,6})\.jpg\s+([1-7])", re.ASCII)


@register_dataset
class RafDb(Dataset):
    """Expression in 7 classes, for users without an AffectNet licence; the photos are already crops."""

    name = "raf_db"
    description = "aligned faces from the web with one of 7 basic expressions: train and test"
    licence = "for non-commercial research, on request (photos remain their owners')"
    url = "http://www.whdeng.cn/RAF/model1.html"
    tasks = ("emotion7",)
    expected_counts: ClassVar = {"train": 12_271, "test": 3_068}
    default_crop = "none"

    def records(self, raw: pathlib.Path | None) -> Iterator[Record]:
        """Yields the faces in the order of the list.

        Args:
            raw: Folder with ``basic``, that folder itself, or one with the list next to ``aligned``.
        """
        skip = Skips(self)
        name = "list_patition_label.txt"
        listing = find(self, raw, f"basic/EmoLabel/{name}", f"EmoLabel/{name}", name)
        images = find(self, raw, "basic/Image/aligned", "Image/aligned", "aligned")
        for place, line in lines(listing, skip):
            match = _ROW.fullmatch(line.strip())
            if match is None:
                skip("malformed row", place)
                continue
            file_name = f"{match[1]}_aligned.jpg"
            labels = {"emotion": _EMOTION[int(match[3]) - 1]}
            yield Record(f"aligned/{file_name}", match[2], images / file_name, labels)
