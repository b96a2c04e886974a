"""Writes the shards of a dataset in chunks, so that a killed preparation can resume and yields identical bytes.

The photos of a split, in a fixed order, are divided into chunks. Each chunk is written to a small TFRecord file of its
own, followed by a JSON note that marks it as done; its contents depend only on its photos. Shards are whole chunks in a
hashed order (TFRecord files can simply be concatenated). All of this happens in ``<version>.partial``, which is
published by a single rename once it is complete.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from facejax.atomic import atomic_file, write_atomically
from facejax.data.metadata import shard_name
from facejax.data.tfrecord import index_path, read_index, write_index, write_shard
from facejax.locks import exclusive_lock

PHOTOS_PER_CHUNK = 128
PHOTOS_PER_SHARD = 8192  # about 200 MB of crops, the size recommended by TFDS and tf.data


def differences(made: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """The keys in which two plans differ, with both values, for an error message."""
    keys = [key for key in {**made, **wanted} if made.get(key) != wanted.get(key)]
    return ", ".join(f"{key}: {made.get(key)!r} -> {wanted.get(key)!r}" for key in keys)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Photos ``start`` to ``stop`` (exclusive) of a split."""

    split: str
    number: int
    start: int
    stop: int


class ChunkedShards:
    """The partial folder of one preparation.

    Attributes:
        final: Folder of the finished dataset.
        partial: Folder of the work in progress.
        staging: Folder that will be renamed to `final`.
        chunks: All chunks in order.
    """

    def __init__(self, final: pathlib.Path, name: str, split_sizes: Mapping[str, int], num_shards: int | None = None):
        """Plans the chunks, without accessing any files.

        Args:
            final: Folder of the finished dataset: ``DATA/name/version``.
            name: Name of the dataset, for the shards' names.
            split_sizes: Number of photos in each split.
            num_shards: Shards per split; None for one per 8192 photos. Never more than there are photos.
        """
        self.final, self._name = final, name
        self.partial = final.with_name(final.name + ".partial")
        self.staging = self.partial / "set"
        self._chunk_dir = self.partial / "chunks"
        self._shards: dict[str, list[list[Chunk]]] = {}
        self.chunks: list[Chunk] = []
        for split, size in split_sizes.items():
            shards = min(num_shards or -(-size // PHOTOS_PER_SHARD), size)
            # At least one chunk per shard, so that a shard is a sequence of whole chunks.
            count = max(shards, -(-size // PHOTOS_PER_CHUNK))
            bounds = [size * number // count for number in range(count + 1)]
            chunks = [Chunk(split, number, bounds[number], bounds[number + 1]) for number in range(count)]
            edges = [count * shard // shards for shard in range(shards + 1)]
            self.chunks += chunks
            # Neighbouring photos (of one class or person) go to different positions and shards.
            chunks = sorted(chunks, key=lambda chunk: hashlib.sha256(f"{chunk.split}/{chunk.number}".encode()).digest())
            self._shards[split] = [chunks[edges[shard] : edges[shard + 1]] for shard in range(shards)]

    @contextlib.contextmanager
    def locked(self, plan: Mapping[str, object]) -> Iterator[None]:
        """Locks the partial folder for this process; creates it, or checks that it was started with the same plan.

        Raises:
            BlockingIOError: Another process is preparing this dataset.
            ValueError: The partial folder was started with other settings, photos or code.
        """
        with exclusive_lock(self.partial):
            self._chunk_dir.mkdir(exist_ok=True)
            path = self.partial / "plan.json"
            if path.exists():
                begun = json.loads(path.read_text())
                if begun != plan:
                    raise ValueError(
                        f"{self.partial} was started with other settings, photos or code ({differences(begun, plan)}); "
                        "delete it to start again, or choose another folder"
                    )
            else:
                write_atomically(path, json.dumps(plan, sort_keys=True).encode())
            yield

    def _chunk_path(self, chunk: Chunk) -> pathlib.Path:
        return self._chunk_dir / f"{chunk.split}-{chunk.number:06d}.tfrecord"

    def _note_path(self, chunk: Chunk) -> pathlib.Path:
        return self._chunk_path(chunk).with_suffix(".json")

    def pending(self) -> list[Chunk]:
        """Chunks that are not done yet, in order."""
        return [chunk for chunk in self.chunks if not self._note_path(chunk).exists()]

    def write_chunk(
        self, chunk: Chunk, records: Sequence[bytes], labels: Mapping[str, np.ndarray], note: Mapping[str, object]
    ) -> None:
        """Writes a chunk's records and label columns; the note, written last, marks it as done."""
        write_shard(self._chunk_path(chunk), records, labels)
        write_atomically(self._note_path(chunk), json.dumps(note, sort_keys=True).encode())

    def notes(self) -> Iterator[tuple[Chunk, dict]]:
        """Yields the notes of all chunks, in order."""
        return ((chunk, json.loads(self._note_path(chunk).read_text())) for chunk in self.chunks)

    @property
    def shards(self) -> list[tuple[str, int]]:
        """Split and index of every shard."""
        return [(split, number) for split, shards in self._shards.items() for number in range(len(shards))]

    def assemble_shard(self, split: str, number: int) -> tuple[int, int]:
        """Joins chunks into a shard in the staging folder, atomically; deletes the chunks once the shard is written.

        Returns:
            Number of records, and bytes.

        Raises:
            ValueError: A chunk has no readable index; it no longer counts as done.
        """
        self.staging.mkdir(exist_ok=True)
        chunks = self._shards[split][number]
        path = self.staging / shard_name(self._name, split, number, len(self._shards[split]))
        if not index_path(path).exists():
            self._join(path, chunks)
        for chunk in chunks:
            self._chunk_path(chunk).unlink(missing_ok=True)
        return len(read_index(path)[0]), path.stat().st_size

    def assemble(self) -> dict[str, tuple[list[int], int]]:
        """Assembles all shards that are not written yet.

        Returns:
            By split, what the metadata needs: number of records in each shard, and total bytes.
        """
        splits = {}
        for split, shards in self._shards.items():
            sizes = [self.assemble_shard(split, number) for number in range(len(shards))]
            splits[split] = ([records for records, _ in sizes], sum(size for _, size in sizes))
        return splits

    def _join(self, shard: pathlib.Path, chunks: Sequence[Chunk]) -> None:
        offsets, lengths, labels, start = [], [], [], 0
        with atomic_file(shard) as joined:
            for chunk in chunks:
                part = self._chunk_path(chunk)
                part_offsets, part_lengths, part_labels = self._read_chunk_index(chunk)
                offsets.append(part_offsets + start)
                lengths.append(part_lengths)
                labels.append(part_labels)
                with open(part, "rb") as file:
                    shutil.copyfileobj(file, joined, 1 << 20)
                start = joined.tell()
        columns = {key: np.concatenate([column[key] for column in labels]) for key in labels[0]}
        write_index(shard, np.concatenate(offsets), np.concatenate(lengths), columns)

    def _read_chunk_index(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        path = self._chunk_path(chunk)
        with contextlib.suppress(ValueError):
            if index_path(path).exists():  # otherwise `read_index` would scan the chunk, without labels
                return read_index(path)
        self._note_path(chunk).unlink(missing_ok=True)
        raise ValueError(
            f"index {index_path(path)} is missing or damaged; run the same command again to redo these photos"
        )

    def publish(self) -> None:
        """Renames the staging folder to the final one and removes the partial one."""
        for left in self.staging.glob("*.tmp"):  # left by a process that was killed
            left.unlink()
        os.replace(self.staging, self.final)
        shutil.rmtree(self.partial)
