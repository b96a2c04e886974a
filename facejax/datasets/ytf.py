r"""YouTube Faces (Wolf, Hassner and Maoz, 2011): 3,425 videos of 1,595 people as frames with a box.

Published layout (from the dataset's readme; also read by visym/vipy)::

    frame_images_DB/Richard_Gere/3/3.618.jpg ...
    frame_images_DB/Richard_Gere.labeled_faces.txt     Richard_Gere\3\3.618.jpg,0,262,165,132,132,0.0,1

The numbers after the 0 are centre x, centre y, width and height of the face in pixels.
"""

import pathlib
from collections.abc import Iterable, Iterator
from typing import ClassVar

from facejax.data.records import Record
from facejax.datasets.layout import Skips, chosen, find, parse_float, rows, where_to_get
from facejax.datasets.registry import Dataset, register_dataset

_LISTING = ".labeled_faces.txt"


@register_dataset
class YouTubeFaces(Dataset):
    """Its names of people select the LFW subjects of the paper's Table 1 (`facejax.datasets.lfw.shared_subjects`)."""

    name = "ytf"
    description = "621,126 frames of 3,425 videos of 1,595 people; all test"
    licence = "for research, on request (videos remain their owners')"
    commercial = "unclear"
    url = "https://www.cs.tau.ac.il/~wolf/ytfaces/"
    tasks = ("identity",)
    expected_counts: ClassVar = {"test": 621_126}
    default_crop = "annotation"

    def records(
        self, raw: pathlib.Path | None, *, subjects: pathlib.Path | Iterable[str] | None = None
    ) -> Iterator[Record]:
        """Yields the frames by person in the order of their listing; identities are numbered by name.

        Args:
            raw: Folder with ``frame_images_DB``, or that folder.
            subjects: Keeps only these people: names, or a text file with one per line.
        """
        skip = Skips(self)
        root = find(self, raw, "frame_images_DB", ".")
        wanted = chosen(subjects, skip)
        names = [name for name in self.names(raw) if wanted is None or name in wanted]
        for identity, name in enumerate(names):
            for place, cells in rows(root / f"{name}{_LISTING}", skip):
                numbers = [number for cell in cells[2:6] if (number := parse_float(cell)) is not None]
                if len(numbers) < 4:
                    skip("malformed row", place)
                    continue
                x, y, width, height = numbers
                if min(width, height) <= 0:
                    skip("empty box", place)
                    continue
                image = skip.listed(root, cells[0])
                if image is None:
                    continue
                record_id = image.relative_to(root).as_posix()
                if not record_id.startswith(f"{name}/"):
                    skip("frame of another person", place)
                    continue
                yield Record(
                    record_id,
                    "test",
                    image,
                    {"identity": identity, "person": name},
                    bbox=(x - width / 2, y - height / 2, x + width / 2, y + height / 2),
                )

    def names(self, raw: pathlib.Path | None) -> list[str]:
        """Sorted names of the people who have a video.

        Raises:
            FileNotFoundError: There is no listing at all.
        """
        root = find(self, raw, "frame_images_DB", ".")
        listings = (path for path in root.iterdir() if path.name.endswith(_LISTING) and path.is_file())
        names = sorted(p.name.removesuffix(_LISTING) for p in listings if p.name[0] != "." and p.name.isprintable())
        if not names:
            raise FileNotFoundError(f"{self.name}: no Name{_LISTING} in {root}; {where_to_get(self)}")
        return names
