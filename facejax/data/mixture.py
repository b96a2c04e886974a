"""Several prepared datasets as one: records are mixed within each batch, and labels a dataset lacks are missing."""

import itertools
import logging
import os
import pathlib
import threading
from collections.abc import Sequence

import numpy as np

from facejax.data.metadata import find_set, read_splits
from facejax.data.source import FaceSource

logger = logging.getLogger(__name__)


class MixedSource(FaceSource):
    """The concatenated records of several sources; identities of different sources are different people.

    The interface is that of `FaceSource`; a record has the labels of all sources, with the missing value (-1 or NaN)
    for those that its own dataset lacks.
    """

    def __init__(self, sources: Sequence[FaceSource], first_identity: Sequence[int]):
        """Joins the sources.

        Args:
            sources: One or more sources.
            first_identity: For each source, the index that its identity 0 gets in the mixture; the others follow.

        Raises:
            ValueError: There are no sources, or two of them have a label of the same name with incompatible types.
        """
        if not sources:
            raise ValueError("a mixture needs at least one source")
        self.sources = tuple(sources)
        self.name = "+".join(source.name for source in sources)
        self.on_corrupt = sources[0].on_corrupt
        self.corrupt = {}
        self.fields = {}
        for source in sources:
            for key, field in source.fields.items():
                known = self.fields.get(key, field)
                joined = known.joined(field)
                if joined is None:
                    raise ValueError(f"{source.name} stores {key!r} as {field}, another dataset in the mix as {known}")
                self.fields[key] = joined
        self.label_keys = list(dict.fromkeys(key for source in sources for key in source.label_keys))
        self._offsets = np.cumsum([0, *(len(source) for source in sources)])
        self._first_identity = tuple(first_identity)
        self._chosen = None
        self._lock = threading.Lock()

    def labels(self, key: str) -> np.ndarray:
        """Values of a label for all records; see `FaceSource.labels`.

        Raises:
            KeyError: None of the sources has the label.
        """
        if key not in self.fields:
            raise KeyError(f"{self.name} has no label {key!r}; it has {', '.join(sorted(self.fields))}")
        field, columns = self.fields[key], []
        for source, first in zip(self.sources, self._first_identity, strict=True):
            if key in source.fields:
                column = source.labels(key)
                if key == "identity":
                    column = np.where(column >= 0, column + first, -1)
                elif source.fields[key].dtype != field.dtype:  # int64 in this dataset, float32 in another
                    column = np.where(column == -1, np.nan, column).astype(np.float32)
                columns.append(column)
            else:
                columns.append(field.column([field.missing] * len(source)))
        column = np.concatenate(columns)
        return column if self._chosen is None else column[self._chosen]

    def ids(self) -> list[str]:
        """Ids of all records, each prefixed with the name of its dataset."""
        ids = [f"{source.name}/{name}" for source in self.sources for name in source.ids()]
        return [ids[self._place(index)] for index in range(len(self))]

    def read(self, index: int) -> dict[str, np.ndarray]:
        """One decoded record; see `FaceSource.read`."""
        place = self._place(index)
        number = int(np.searchsorted(self._offsets, place, side="right")) - 1
        record = self.sources[number].read(place - int(self._offsets[number]))
        for key in self.label_keys:
            field = self.fields[key]
            if key not in record:
                record[key] = field.in_batch(field.missing)
            elif self.sources[number].fields[key].dtype != field.dtype:
                record[key] = np.where(record[key] == -1, np.nan, record[key]).astype(np.float32)
        if "identity" in record and record["identity"] >= 0:
            record["identity"] = record["identity"] + np.int32(self._first_identity[number])
        record["index"] = np.asarray(index, np.int64)
        return record

    def __len__(self) -> int:
        return int(self._offsets[-1]) if self._chosen is None else len(self._chosen)

    def __repr__(self) -> str:
        return f"MixedSource({self.name}, {len(self)} records)"


def _identities(data_dir: str | os.PathLike, name: str) -> int:
    """Number of identities of a prepared dataset over all splits: a person has the same index in all of them."""
    splits = [FaceSource(data_dir, name, split) for split in read_splits(find_set(pathlib.Path(data_dir), name))]
    return max(int(s.labels("identity").max(initial=-1)) if "identity" in s.fields else -1 for s in splits) + 1


def open_source(
    data_dir: str | os.PathLike, name: str, split: str, on_corrupt: str = "raise", *, some: bool = False
) -> FaceSource:
    """Opens a split of a prepared dataset, or of several datasets whose names are joined by ``+``.

    Args:
        data_dir: Folder of the prepared datasets.
        name: ``affectnet``, or ``imdb_wiki+adience``.
        split: The split; each dataset must have it, unless `some` is set.
        on_corrupt: See `FaceSource`.
        some: Leave out datasets that lack the split (Adience has no validation split), unless all do, and log a warning
            that names them. A person keeps the index that they have in the other splits.

    Raises:
        FileNotFoundError: A dataset is not prepared there.
        ValueError: There is no such split, or the datasets are incompatible.
    """
    parts = name.split("+")
    if len(parts) == 1:
        return FaceSource(data_dir, name, split, on_corrupt)
    # Counted over all datasets: the people of one that lacks this split have their indices in another split.
    persons = [_identities(data_dir, part) for part in parts]
    first = list(itertools.accumulate(persons[:-1], initial=0))
    if some:
        lacking = [part for part in parts if split not in read_splits(find_set(pathlib.Path(data_dir), part))]
        if 0 < len(lacking) < len(parts):
            logger.warning("%s: no split %r, so only the other datasets are used", ", ".join(lacking), split)
            first = [number for part, number in zip(parts, first, strict=True) if part not in lacking]
            parts = [part for part in parts if part not in lacking]
    return MixedSource([FaceSource(data_dir, part, split, on_corrupt) for part in parts], first)
