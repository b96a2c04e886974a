"""Random access to the decoded records of one split of a prepared dataset."""

import contextlib
import copy
import logging
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from facejax.data.decode import CorruptImageError, decode_image
from facejax.data.example import decode_example
from facejax.data.metadata import STORED_FIELDS, Field, find_set, read_fields, read_splits
from facejax.data.tfrecord import CorruptRecordError, TFRecordSource

logger = logging.getLogger(__name__)


class FaceSource:
    """Face crops and labels of a prepared dataset, by index.

    A record is a dict: ``image`` uint8 RGB (height, width, 3) of the stored size, ``index`` (index in the split), and
    the numeric labels: NumPy int32 (missing: -1) or float32 (missing: NaN).

    Corrupt records: with ``on_corrupt="raise"`` reading one raises an error. With ``"skip"`` the number and order of
    records do not change, so that the stream of a training run, its resumption and its share on every host do not
    depend on what is damaged: `source[i]` returns the next readable record after i instead (cyclically), evaluation
    masks the record (`facejax.data.loader.eval_batches`), and `corrupt` lists it. Each one is logged once.

    Attributes:
        name: ``<dataset>/<split>``, for messages.
        fields: Types of the stored fields by name; `labels` returns the values of each.
        label_keys: Names of the numeric labels, which records and batches contain.
        corrupt: Reason by record index, for the records found corrupt so far (in this process).
    """

    def __init__(self, data_dir: str | os.PathLike, name: str, split: str, on_corrupt: str = "raise"):
        """Opens ``data_dir/name/<version>``.

        Raises:
            FileNotFoundError: The dataset is not prepared there, or a shard is missing.
            ValueError: There is no such split, the shards have more or fewer records than the metadata says, or
                `on_corrupt` is invalid.
        """
        if on_corrupt not in ("raise", "skip"):
            raise ValueError(f"on_corrupt must be 'raise' or 'skip', not {on_corrupt!r}")
        self.directory = find_set(pathlib.Path(data_dir), name)
        splits = read_splits(self.directory)
        if split not in splits:
            raise ValueError(
                f"dataset {name!r} has no split {split!r}; it has {', '.join(splits)} (for training: "
                "--config.data.train_split, --config.data.eval_split)"
            )
        self.name = f"{name}/{split}"
        self.fields: dict[str, Field] = read_fields(self.directory)
        self.label_keys = [
            key for key, field in self.fields.items() if field.dtype != "text" and key not in STORED_FIELDS
        ]
        self.on_corrupt = on_corrupt
        self.corrupt: dict[int, str] = {}
        self._records = TFRecordSource([shard for shard, _ in splits[split]])
        expected = sum(length for _, length in splits[split])
        if len(self._records) != expected:
            raise ValueError(
                f"{self.name}: the shards in {self.directory} have {len(self._records)} records, but "
                f"dataset_info.json says {expected}: shards of two preparations are mixed; prepare the dataset again"
            )
        self._chosen: np.ndarray | None = None
        self._lock = threading.Lock()

    def select(self, chosen: np.ndarray | Sequence[int]) -> "FaceSource":
        """The same split restricted to some records (indices or a boolean mask); `index` then counts only those.

        Raises:
            ValueError: The mask has the wrong length.
        """
        chosen = np.asarray(chosen)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"expected a boolean mask over {len(self)} records, got shape {chosen.shape}")
            chosen = np.flatnonzero(chosen)
        part = copy.copy(self)
        part.corrupt = {}
        part._chosen = chosen.astype(np.int64) if self._chosen is None else self._chosen[chosen]
        return part

    def labels(self, key: str) -> np.ndarray:
        """Values of a label for all records: int64, float32 or text, (records,) or (records, length).

        They are read from the shards' indices, or from the records themselves if an index is missing. In that case a
        corrupt record has no label (-1, NaN or empty) if `on_corrupt` is ``skip``.

        Raises:
            KeyError: The dataset has no such label.
            CorruptRecordError: There is no index, a record is corrupt, and `on_corrupt` is ``raise``.
        """
        if key not in self.fields:
            raise KeyError(f"{self.name} has no label {key!r}; it has {', '.join(sorted(self.fields))}")
        column = self._records.labels.get(key)
        if column is None:
            column = self.fields[key].column([self._read_label(key, place) for place in range(len(self._records))])
            self._records.labels[key] = column
        return column if self._chosen is None else column[self._chosen]

    def ids(self) -> list[str]:
        """Ids of all records (the photos' paths within the published dataset); reads the records, see `labels`."""
        return self.labels("id").tolist()

    def _read_label(self, key: str, place: int):
        try:
            with self._naming_record(place):
                return self._label(key, decode_example(self._records[place]))
        except CorruptRecordError as error:
            if self.on_corrupt == "raise":
                raise
            if self._chosen is None:  # otherwise it has another index, and is noted when the record is read
                self.note_corrupt(place, error)
            return self.fields[key].missing

    @contextlib.contextmanager
    def _naming_record(self, place: int) -> Iterator[None]:
        try:
            yield
        except CorruptRecordError:
            raise
        except (CorruptImageError, ValueError, KeyError, IndexError) as error:
            raise CorruptRecordError(*self._records.locate(place), f"{type(error).__name__}: {error}") from error

    def _label(self, key: str, features: Mapping[str, list]):
        values = features[key]
        if self.fields[key].dtype == "text":
            return values[0].decode()
        return values if self.fields[key].length else values[0]

    def _place(self, index: int) -> int:
        return int(index) if self._chosen is None else int(self._chosen[index])

    def read(self, index: int) -> dict[str, np.ndarray]:
        """One decoded record; see the class for its contents.

        Raises:
            CorruptRecordError: The shard, Example or JPEG is damaged; the message names the shard and the offset.
        """
        place = self._place(index)
        data = self._records[place]
        with self._naming_record(place):
            features = decode_example(data)
            record = {"image": decode_image(features["image"][0])}
            for key in self.label_keys:
                record[key] = self.fields[key].in_batch(self._label(key, features))
        record["index"] = np.asarray(index, np.int64)
        return record

    def note_corrupt(self, index: int, error: CorruptRecordError) -> None:
        """Counts and logs a corrupt record, once."""
        with self._lock:
            if index in self.corrupt:
                return
            self.corrupt[index] = str(error)
        logger.warning("%s: record %d skipped: %s", self.name, index, error)

    def __len__(self) -> int:
        return len(self._records) if self._chosen is None else len(self._chosen)

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """One record; the next readable one instead of a corrupt one if `on_corrupt` is ``skip``."""
        for ahead in range(len(self)):
            place = (int(index) + ahead) % len(self)
            try:
                return self.read(place)
            except CorruptRecordError as error:
                if self.on_corrupt == "raise":
                    raise
                self.note_corrupt(place, error)
        raise ValueError(f"{self.name}: none of its {len(self)} records can be read")

    def __repr__(self) -> str:
        return f"FaceSource({self.name}, {len(self)} records, on_corrupt={self.on_corrupt!r})"
