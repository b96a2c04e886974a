"""VGAF (Sharma, Ghosh and Dhall, EmotiW 2020): 2661 + 766 clips of groups of people with the group's emotion.

Published layout (the challenge's label files as stored in hslrock/EmotiW2020 and read by augusmaa/Emotiw2023)::

    Train_labels.txt, Val_labels.txt      "Vid_name Label", then "1_1 3" ...; 1 positive, 2 neutral, 3 negative
    Train/1_1.mp4 ..., Val/...
"""

import pathlib
from collections.abc import Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets.layout import Skips, consistent_labels, find, lines, parse_int
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import GROUP_EMOTION

_HEADER = ["Vid_name", "Label"]
_SPLITS = {"train": "Train", "validation": "Val"}


@register_dataset
class Vgaf(Dataset):
    """Emotion of a group (paper section 3.3, Table 5); the label ``group_emotion`` is an index in `GROUP_EMOTION`."""

    name = "vgaf"
    description = "clips of groups of people, the group's emotion being positive, neutral or negative"
    licence = "for non-commercial research, on request (the clips remain their owners')"
    url = "https://sites.google.com/view/emotiw2020"
    tasks = ()
    expected_counts: ClassVar = {"train": 2_661, "validation": 766}
    default_crop = "mtcnn"
    kind = "video"

    def clips(self, raw: pathlib.Path | None) -> Iterator[Record]:
        """Yields the clips in the order of the label files.

        Counted and skipped: duplicate rows of a clip, clips whose rows contradict each other or whose file is missing.

        Args:
            raw: Folder with ``Train``, ``Val`` and the two label files.
        """
        skip = Skips(self)
        for split, name in _SPLITS.items():
            listing = find(self, raw, f"{name}_labels.txt")
            folder = find(self, raw, name)
            for clip, label in consistent_labels(_labels(listing, skip), skip, "clip").items():
                path = skip.listed(folder, clip)
                if path is None:
                    continue
                if not path.is_file():
                    skip("no such clip", f"{name}/{clip}")
                    continue
                yield Record(f"{name}/{clip}", split, path, {"group_emotion": label})


def _labels(listing: pathlib.Path, skip: Skips) -> Iterator[tuple[str, int]]:
    """File name and label of each row."""
    for place, line in lines(listing, skip):
        cells = line.split()
        if cells == _HEADER:
            continue
        label = parse_int(cells[1]) if len(cells) == 2 else None
        if label is None or not 1 <= label <= len(GROUP_EMOTION):
            skip("malformed row", place)
            continue
        yield f"{cells[0].removesuffix('.mp4')}.mp4", label - 1
