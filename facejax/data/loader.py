"""Batches of face crops: endless and shuffled for training; in order, with each record exactly once, for evaluation.

A batch is a dict of NumPy arrays: ``image`` uint8 RGB (batch, size, size, 3), range 0-255, resized by the weights'
`Preprocessing` but not normalised (the device does that); one array per label, int32 (missing: -1) or float32 (missing:
NaN); ``mask`` float32 (batch,), 1 for records and 0 for padding; ``index`` int64 (batch,), the record's index in the
split, -1 for padding.
"""

import collections
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
from grain.experimental import RngPool, index_shuffle

from facejax.data.source import FaceSource
from facejax.data.tfrecord import CorruptRecordError
from facejax.data.transforms import Transform
from facejax.preprocessing import Preprocessing

Batch = dict[str, np.ndarray]


def _local_size(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size <= 0 or batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} (of all processes together) is not a multiple of {process_count} processes"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index {process_index} is not in 0..{process_count - 1}")
    return batch_size // process_count


class _Batches(Sequence):
    """This process's contiguous part of every global batch of an endless shuffled stream, from a given step on.

    `make` returns the batch of some records, given their indices and their positions in the stream.

    Grain's own slicing gives process p the records p, p + P, ...: the same records in a batch, in another order. With
    contiguous parts the global array does not depend on the number of processes, nor does anything that depends on a
    record's position in it (dropout masks, the split over devices).
    """

    def __init__(
        self,
        make: Callable[[list[int], range], Batch],
        records: int,
        batch_size: int,
        seed: int,
        start_step: int,
        process_index: int,
        process_count: int,
    ):
        self._make, self._records, self._seed = make, records, seed
        self._batch, self._local = batch_size, _local_size(batch_size, process_index, process_count)
        self._start = start_step * batch_size + process_index * self._local

    def __len__(self) -> int:
        return (sys.maxsize - self._start) // self._batch

    def __getitem__(self, index):
        first = self._start + index * self._batch
        positions = range(first, first + self._local)
        return self._make([self._record(position) for position in positions], positions)

    def _record(self, position: int) -> int:
        epoch, place = divmod(position, self._records)
        return index_shuffle(place, max_index=self._records - 1, seed=(self._seed + epoch) % 2**32, rounds=4)


def _stacked(elements: Iterable[Batch], count: int) -> Batch:
    """The batch of `count` elements of equal shapes, each copied into place before the next is computed.

    Grain copies elements into a batch only once all of them are ready, when the first have already left the cache. With
    its per-element calls that took 0.07-0.13 ms per crop of 224 pixels, so batches are assembled here.
    """
    batch: Batch = {}
    for place, element in enumerate(elements):
        if not batch:
            batch = {key: np.empty((count, *value.shape), value.dtype) for key, value in element.items()}
        for key, value in element.items():
            batch[key][place] = value
    return batch


def train_loader(
    source: FaceSource,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    *,
    augment: Sequence[Transform] = (),
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> grain.IterDataset:
    """Endless shuffled training batches of this process.

    The stream concatenates a permutation of all records for every epoch (a batch may contain the end of one epoch and
    the start of the next; no record is dropped). It is a pure function of the seed: global batch k contains the same
    records, with the same augmentation, for any number of processes or threads. The position in the stream is therefore
    the step: resume with ``start_step=step``, or by ``iterator.set_state(iterator.get_state())`` (Grain's state is
    ``{"next_index": steps since start_step}``).

    Args:
        source: The records.
        preprocessing: Defines the size and the kernel of the final resize.
        batch_size: Records per step over all processes.
        seed: Seed of the permutations and the augmentation.
        augment: Transforms applied in order to the decoded crop, before the final resize.
        start_step: Global step of the first batch.
        process_index: Index of this process, `jax.process_index()`.
        process_count: Number of processes, `jax.process_count()`.
        threads: Number of threads, each of which prepares whole batches (OpenCV releases the GIL).

    Returns:
        A Grain dataset; its ``iter()`` returns an iterator with ``get_state`` and ``set_state``.

    Raises:
        ValueError: `batch_size` is not a multiple of `process_count`, or the split is empty.
    """
    if len(source) == 0:
        raise ValueError(f"{source.name} has no records")
    order_seed, augmentation_seed = _seeds(seed)
    generators = RngPool(augmentation_seed)

    def load(index: int, position: int) -> Batch:
        record = source[index]
        image = record["image"]
        if augment:
            generator = generators.acquire_rng(position)
            for transform in augment:
                image = transform(image, generator)
            generators.release_rng(generator)
        return {**record, "image": preprocessing.resize(image), "mask": np.ones((), np.float32)}

    def make(indices: list[int], positions: range) -> Batch:
        return _stacked(map(load, indices, positions), len(indices))

    batches = _Batches(make, len(source), batch_size, order_seed, start_step, process_index, process_count)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, threads))
    return grain.MapDataset.source(batches).to_iter_dataset(options)


def array_loader(
    arrays: Batch, batch_size: int, seed: int, *, start_step: int = 0, process_index: int = 0, process_count: int = 1
) -> grain.IterDataset:
    """Endless shuffled batches of in-memory arrays (cached features of a frozen backbone); order as in `train_loader`.

    Args:
        arrays: Arrays by name, each (records, ...).
        batch_size: Records per step over all processes.
        seed: Seed of the permutations.
        start_step: Global step of the first batch.
        process_index: Index of this process.
        process_count: Number of processes.

    Raises:
        ValueError: `batch_size` is not a multiple of `process_count`, or there are no records.
    """
    records = len(next(iter(arrays.values()), ()))
    if records == 0:
        raise ValueError("the arrays have no records")

    def make(indices: list[int], positions: range) -> Batch:
        del positions
        return {name: array[indices] for name, array in arrays.items()}

    batches = _Batches(make, records, batch_size, _seeds(seed)[0], start_step, process_index, process_count)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return grain.MapDataset.source(batches).to_iter_dataset(options)


def _seeds(seed: int) -> list[int]:
    """Independent seeds of order and augmentation, even for consecutive `seed`s, as each epoch adds 1 to the first."""
    return np.random.SeedSequence(seed).generate_state(2).tolist()


def eval_batches(
    source: FaceSource,
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> Iterator[Batch]:
    """Yields this process's part of every batch of the split, in order; over all processes each record appears once.

    All batches have the same shape and all processes yield the same number of them. The tail is padded: ``mask`` 0,
    ``index`` -1, black image, missing labels. With ``on_corrupt="skip"`` corrupt records are masked in the same way.

    Args:
        source: The records.
        preprocessing: Defines the size and kernel of the resize.
        batch_size: Records per batch over all processes.
        process_index: Index of this process.
        process_count: Number of processes.
        threads: Number of threads that read and decode ahead.

    Raises:
        ValueError: `batch_size` is not a multiple of `process_count`.
        CorruptRecordError: A record is corrupt and the source's `on_corrupt` is ``raise``.
    """
    local = _local_size(batch_size, process_index, process_count)
    size = preprocessing.image_size
    padding: Batch = {"image": np.zeros((size, size, 3), np.uint8), "mask": np.zeros((), np.float32)}
    padding["index"] = np.asarray(-1, np.int64)
    for key in source.label_keys:
        field = source.fields[key]
        padding[key] = field.in_batch(field.missing)

    def load(index: int) -> Batch:
        if index >= len(source):
            return padding
        try:
            record = source.read(index)
        except CorruptRecordError as error:
            if source.on_corrupt == "raise":
                raise
            source.note_corrupt(index, error)
            return padding
        return {**record, "image": preprocessing.resize(record["image"]), "mask": np.ones((), np.float32)}

    steps = -(-len(source) // batch_size)
    wanted = (
        range(step * batch_size + process_index * local, step * batch_size + (process_index + 1) * local)
        for step in range(steps)
    )
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        ahead: collections.deque = collections.deque()
        for indices in wanted:
            ahead.append([pool.submit(load, index) for index in indices])
            if len(ahead) > 2:
                yield _stacked((future.result() for future in ahead.popleft()), local)
        while ahead:
            yield _stacked((future.result() for future in ahead.popleft()), local)
