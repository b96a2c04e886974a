"""AFEW 8.0 (Dhall et al., EmotiW 2019): 773 + 383 film clips, each with one of 7 expressions.

Published layout (counts from albanie/mcnDatasets, folders from av-savchenko/face-emotion-recognition)::

    Train_AFEW/Angry/000046280.avi ..., Disgust, Fear, Happy, Neutral, Sad, Surprise
    Val_AFEW/Angry/...

The test clips have no labels and are not read.
"""

import pathlib
from collections.abc import Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets.layout import Skips, find
from facejax.datasets.registry import Dataset, register_dataset
from facejax.tasks import EMOTION8

EMOTION_OF_FOLDER = {
    "Angry": EMOTION8.index("anger"),
    "Disgust": EMOTION8.index("disgust"),
    "Fear": EMOTION8.index("fear"),
    "Happy": EMOTION8.index("happiness"),
    "Neutral": EMOTION8.index("neutral"),
    "Sad": EMOTION8.index("sadness"),
    "Surprise": EMOTION8.index("surprise"),
}
# Folder names as unpacked from the archives, and as used by the paper's code.
_FOLDERS = {"train": ("Train_AFEW", "Train", "train"), "validation": ("Val_AFEW", "Val", "val")}
VIDEO_SUFFIXES = frozenset({".avi", ".mp4"})


@register_dataset
class Afew(Dataset):
    """Expression of a clip (paper section 3.3, Table 4)."""

    name = "afew"
    description = "clips of films with one of 7 expressions: train and validation"
    licence = "for non-commercial research, on request (the films remain their owners')"
    url = "https://cs.anu.edu.au/few/AFEW.html"
    tasks = ("emotion7",)
    expected_counts: ClassVar = {"train": 773, "validation": 383}
    default_crop = "mtcnn"
    kind = "video"

    def clips(self, raw: pathlib.Path | None) -> Iterator[Record]:
        """Yields the clips, sorted by class folder and file name; the ``emotion`` label is an index in EMOTION8.

        Args:
            raw: Folder with ``Train_AFEW`` and ``Val_AFEW``.
        """
        skip = Skips(self)
        for split, names in _FOLDERS.items():
            folder = find(self, raw, *names)
            for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
                if class_folder.name not in EMOTION_OF_FOLDER:
                    skip("folder of no class", f"{folder.name}/{class_folder.name}")
                    continue
                for clip in skip.files(class_folder, VIDEO_SUFFIXES):
                    record_id = f"{folder.name}/{class_folder.name}/{clip.name}"
                    yield Record(record_id, split, clip, {"emotion": EMOTION_OF_FOLDER[class_folder.name]})
