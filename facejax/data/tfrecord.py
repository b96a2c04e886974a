"""TFRecord shards without TensorFlow: written atomically, with an index for random access to records.

A record consists of: uint64 length, uint32 masked CRC32C of the length, the data, uint32 masked CRC32C of the data; all
little-endian. Source: TensorFlow's record_writer.h (the format) and lib/hash/crc32c.h (the mask). The index is stored
next to the shard, as ``<shard>.index``: a NumPy .npz file (no pickles) with the records' offsets and lengths and
columns of labels, so that class counts and filters need not read the photos.
"""

import io
import os
import pathlib
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence

import google_crc32c
import numpy as np

from facejax.atomic import atomic_file, write_atomically

HEADER_BYTES, FOOTER_BYTES = 12, 4
_MASK_DELTA = 0xA282EAD8


class CorruptRecordError(ValueError):
    """A record that cannot be read; the message names its shard and offset."""

    hint = (
        "Copy the shard again, or delete its folder and run tools/prepare_dataset.py again; on_corrupt='skip' "
        "(--config.data.on_corrupt=skip) skips and counts such records."
    )

    def __init__(self, shard: str | os.PathLike, offset: int, reason: str):
        super().__init__(f"{os.fspath(shard)}: record at byte {offset}: {reason}. {self.hint}")
        self.shard, self.offset, self.reason = os.fspath(shard), offset, reason

    def __reduce__(self):
        return type(self), (self.shard, self.offset, self.reason)


class BrokenFramingError(CorruptRecordError):
    """A shard without an index has a record with a damaged length, so that the records after it cannot be found."""

    hint = (
        "Without the shard's .index the records after it cannot be found, so this one cannot be skipped: copy the "
        "index, or the shard, again, or delete the folder and run tools/prepare_dataset.py again."
    )


def masked_crc32c(data: bytes) -> int:
    """CRC32C of bytes, rotated and offset as in the TFRecord format."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as stored in a shard: header, data, footer."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))


def write_shard(path: pathlib.Path, records: Sequence[bytes], labels: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes records and their index, each file atomically, the index last.

    Args:
        path: The shard's file.
        records: The serialised records.
        labels: Label columns for the index: arrays (records, ...), numbers or text.
    """
    frames = [frame(record) for record in records]
    lengths = np.array([len(record) for record in records], np.int64)
    sizes = lengths + HEADER_BYTES + FOOTER_BYTES
    write_atomically(path, b"".join(frames))
    write_index(path, np.cumsum(sizes) - sizes, lengths, labels or {})


def index_path(shard: pathlib.Path) -> pathlib.Path:
    """Path of a shard's index."""
    return shard.with_name(shard.name + ".index")


def write_index(
    shard: pathlib.Path, offsets: np.ndarray, lengths: np.ndarray, labels: Mapping[str, np.ndarray]
) -> None:
    """Writes a shard's index: int64 offsets of the records' headers, int64 lengths of their data, label columns."""
    columns = {f"label/{key}": column for key, column in labels.items()}
    with atomic_file(index_path(shard)) as file:
        np.savez(file, offsets=offsets, lengths=lengths, **columns)  # pyright: ignore


def read_index(shard: pathlib.Path) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Offsets, lengths and label columns of a shard's records; scans the shard if there is no index.

    Raises:
        BrokenFramingError: There is no index and the shard's framing is broken.
        ValueError: The index is damaged.
    """
    path = index_path(shard)
    if not path.exists():
        offsets, lengths = np.array(list(_scan(shard)), np.int64).reshape(-1, 2).T
        return offsets, lengths, {}
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            labels = {key.removeprefix("label/"): stored[key] for key in stored.files if key.startswith("label/")}
            return stored["offsets"], stored["lengths"], labels
    except (ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"index {path} is damaged ({error}); delete it to scan the shard instead") from error


def _scan(shard: pathlib.Path) -> Iterator[tuple[int, int]]:
    size, position = os.path.getsize(shard), 0
    with open(shard, "rb") as file:
        while position < size:
            file.seek(position)
            try:
                length = _checked_length(shard, position, file.read(HEADER_BYTES))
            except CorruptRecordError as error:
                raise BrokenFramingError(shard, position, error.reason) from error
            end = position + HEADER_BYTES + length + FOOTER_BYTES
            if end > size:
                raise BrokenFramingError(shard, position, f"truncated: ends at byte {end}, but the shard at {size}")
            yield position, length
            position = end


def _checked_length(shard: str | os.PathLike, offset: int, header: bytes) -> int:
    if len(header) < HEADER_BYTES:
        raise CorruptRecordError(
            shard, offset, f"truncated: {len(header)} of its header's {HEADER_BYTES} bytes are present"
        )
    length, crc = struct.unpack("<QI", header)
    if masked_crc32c(header[:8]) != crc:
        raise CorruptRecordError(shard, offset, "bad CRC of its length")
    return length


class TFRecordSource:
    """Random access to the records of several shards: ``len(source)``, ``source[i] -> bytes``.

    Safe to share among threads (`os.pread` has no file position) and to fork.

    Attributes:
        labels: Label columns that the indices of all shards have in common, over all records.
    """

    def __init__(self, shards: Sequence[str | os.PathLike]):
        """Opens shards in the given order.

        Raises:
            BrokenFramingError: A shard without an index has broken framing.
            FileNotFoundError: A shard is missing.
        """
        self.shards = [pathlib.Path(shard) for shard in shards]
        for shard in self.shards:
            if not shard.exists():
                raise FileNotFoundError(
                    f"shard {shard} is missing; prepare the dataset again: tools/prepare_dataset.py"
                )
        parts = [read_index(shard) for shard in self.shards]
        self._offsets = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
        self._lengths = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
        self._shard_of = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        shared = set.intersection(*(set(part[2]) for part in parts)) if parts else set()
        self.labels = {key: np.concatenate([part[2][key] for part in parts]) for key in sorted(shared)}
        self._descriptors: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index) -> bytes:
        """The bytes of one record, after checking both of its CRCs.

        Raises:
            CorruptRecordError: The shard is truncated here, or a CRC does not match.
            IndexError: There is no such record.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = int(self._shard_of[index])
        offset, length = int(self._offsets[index]), int(self._lengths[index])
        whole = HEADER_BYTES + length + FOOTER_BYTES
        data = os.pread(self._descriptor(shard), whole, offset)
        stored = _checked_length(self.shards[shard], offset, data[:HEADER_BYTES])
        if stored != length:
            raise CorruptRecordError(self.shards[shard], offset, f"is {stored} bytes long, but its index says {length}")
        if len(data) < whole:
            raise CorruptRecordError(self.shards[shard], offset, f"truncated: {len(data)} of {whole} bytes are present")
        record = data[HEADER_BYTES:-FOOTER_BYTES]
        if masked_crc32c(record) != int.from_bytes(data[-FOOTER_BYTES:], "little"):
            raise CorruptRecordError(self.shards[shard], offset, "bad CRC of its data")
        return record

    def locate(self, index: int) -> tuple[pathlib.Path, int]:
        """Shard and byte offset of a record, for messages."""
        return self.shards[int(self._shard_of[index])], int(self._offsets[index])

    def _descriptor(self, shard: int) -> int:
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            with self._lock:
                if shard not in self._descriptors:
                    self._descriptors[shard] = os.open(self.shards[shard], os.O_RDONLY)
                descriptor = self._descriptors[shard]
        return descriptor

    def close(self) -> None:
        """Closes the shards' files; the next read reopens them."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def __del__(self):
        if hasattr(self, "_descriptors") and not sys.is_finalizing():  # at exit, the system closes them
            self.close()
