"""Turns the photos of a published dataset into face crops in TFRecord shards, resumably, with a summary of the outcome.

`prepare_dataset` creates ``DATA/<name>/<version>/`` (layout: `facejax.data.metadata`). Photos are read in the reader's
order, which is that of the disk or of the rendered people. Crops are stored in chunks; both the chunks and the examples
within a chunk are in a hashed order, so that reading the shards sequentially gives mixed classes. The same photos and
settings give the same bytes, whether or not the preparation was interrupted, with any number of workers, and on one
machine or many (`facejax.datasets.beam`).
"""

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any, get_args

from facejax.atomic import write_atomically
from facejax.data.metadata import STORED_FIELDS, VERSION, read_splits, write_metadata
from facejax.data.records import Record
from facejax.data.shards import Chunk, ChunkedShards, differences
from facejax.data.sheets import write_contact_sheets
from facejax.data.tfrecord import TFRecordSource
from facejax.datasets.chunks import Detector, find_and_cut, load_and_cut, load_photos, write_chunk
from facejax.datasets.crops import CropSettings, Outcome, load_photo
from facejax.datasets.plan import code_versions, make_plan
from facejax.datasets.registry import Dataset, get_dataset
from facejax.datasets.summary import LISTS, Progress, describe_summary, explain_no_crop, summarise
from facejax.datasets.survey import Survey, by_chunk, read_records, survey
from facejax.full_disk import explain_full_disk

PHOTOS_PER_TASK = 16  # consecutive photos go to one worker, which builds a rendered person once for all of them

Log = Callable[[str], None]


def is_prepared(data_dir: str | os.PathLike, name: str) -> bool:
    """Whether ``data_dir/name`` contains a completely prepared dataset."""
    return (pathlib.Path(data_dir) / name / VERSION / "dataset_info.json").exists()


@dataclasses.dataclass(frozen=True)
class Preparation:
    """The preparation of one dataset, surveyed and planned; picklable, as workers on other machines need it.

    Attributes:
        reader: Reader of the dataset.
        raw: The dataset's folder.
        options: Options of the reader.
        settings: How faces are cropped.
        survey: What the reader yields.
        plan: All settings and photos; stored with the finished dataset.
        code: Versions of the code that began it, from `plan.code_versions`.
        store: The chunks.
        log: Receives lines of progress; None on another machine.
    """

    reader: Dataset
    raw: pathlib.Path | None
    options: Mapping[str, object]
    settings: CropSettings
    survey: Survey
    plan: Mapping[str, Any]
    code: Mapping[str, str]
    store: ChunkedShards
    log: Log | None = None

    def pending(self) -> Iterator[tuple[Chunk, list[Record]]]:
        """Yields the unfinished chunks with their records; reads the dataset once more."""
        records = read_records(self.reader, self.raw, self.options, self.survey.repeated)
        return by_chunk(records, self.store.chunks, self.store.pending())

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Locks the partial folder for this process; see `ChunkedShards.locked`."""
        return self.store.locked({**self.plan, **self.code})

    def without_log(self) -> "Preparation":
        """A copy without `log` for a worker: it does not report progress, and a function may not be picklable."""
        return dataclasses.replace(self, log=None)


def prepare_dataset(
    name: str,
    raw: str | os.PathLike | None,
    out: str | os.PathLike,
    crop: str | None = None,
    margin: float = 0.0,
    align: bool = True,
    num_shards: int | None = None,
    *,
    detector: Detector | None = None,
    workers: int | None = None,
    detect_batch: int = 32,
    reader_options: Mapping[str, object] | None = None,
    log: Log | None = None,
    **crop_settings: Any,
) -> pathlib.Path:
    """Prepares a dataset. Resumes an interrupted preparation; does nothing if the dataset is already complete.

    Args:
        name: Name in `list_datasets()`.
        raw: Folder with the dataset in its published layout; None for datasets that need none.
        out: The data folder; the dataset is written to ``out/name/<version>``.
        crop: ``mtcnn``, ``centre``, ``annotation`` or ``none``; None uses the dataset's default.
        margin: Widens the box by this fraction of its size.
        align: Rotates photos so that the eyes are level.
        num_shards: Shards of each split; None makes one per 8192 photos.
        detector: For crop ``mtcnn``; None uses `facejax.detect.MTCNN` with its defaults.
        workers: Threads that decode and encode photos (OpenCV releases the GIL), or processes if the dataset generates
            its photos (the calling script then needs an ``if __name__ == "__main__"``); None uses one per CPU core.
        detect_batch: Photos per batch of the detector; another number may change the last bits of the stored boxes.
        reader_options: Options of the dataset's reader.
        log: Receives lines of progress; None writes them to standard error.
        **crop_settings: Further fields of `CropSettings`: face, no_face, max_side, quality, image_format.

    Returns:
        The dataset's folder, with ``summary.json``, lists of skipped photos, and ``sheets/*.png``.

    Raises:
        ValueError: The dataset or a setting is unknown; the dataset was prepared with other settings, or begun with
            other settings or code; no record, or no face, was found.
        BlockingIOError: Another process is preparing it.
        DiskFullError: The disk is full; what is finished is kept.
    """
    if (crop or get_dataset(name).default_crop) == "mtcnn" and detector is None:
        from facejax.detect import MTCNN

        detector = MTCNN()
    preparation = plan_preparation(
        name, raw, out, crop, margin, align, num_shards, detector, reader_options, log, **crop_settings
    )
    if not finished_before(preparation):
        with explain_full_disk(preparation.store.partial, lambda: "What is finished is kept"), preparation.locked():
            _write_chunks(preparation, detector, workers or os.cpu_count() or 1, detect_batch)
            finish(preparation)
    return preparation.store.final


def plan_preparation(
    name: str,
    raw: str | os.PathLike | None,
    out: str | os.PathLike,
    crop: str | None,
    margin: float,
    align: bool,
    num_shards: int | None,
    detector: Detector | None,
    reader_options: Mapping[str, object] | None,
    log: Log | None,
    **crop_settings: Any,
) -> Preparation:
    """Checks the settings and surveys the dataset; see `prepare_dataset` for the arguments and errors."""
    reader = get_dataset(name)
    if reader.kind != "photo":
        raise ValueError(
            f"{name} is a video dataset, which experiments/run.py reads directly (--config.clips.raw=DIR, "
            "docs/protocols.md): there is nothing to prepare"
        )
    if num_shards is not None and num_shards < 1:
        raise ValueError(f"num_shards must be 1 or more, got {num_shards}")
    words = {"crop": crop or reader.default_crop, **crop_settings}
    for field in dataclasses.fields(CropSettings):
        choices, word = get_args(field.type), words.get(field.name, field.default)
        if choices and word not in choices:
            raise ValueError(f"{field.name} must be one of {', '.join(choices)}, not {word!r}")
    settings = CropSettings(crop=crop or reader.default_crop, margin=margin, align=align, **crop_settings)  # pyright: ignore
    options = {key: _reiterable(value) for key, value in (reader_options or {}).items()}
    raw = None if raw is None else pathlib.Path(raw)
    if raw is not None and not raw.is_dir():
        raise ValueError(f"--raw {raw} is not a folder; it must contain {name} as published at {reader.url}")
    final = pathlib.Path(out) / name / VERSION
    if not is_prepared(out, name) and final.exists() and any(final.iterdir()):
        raise ValueError(f"{final} has files but no prepared dataset (dataset_info.json): delete it or move it away")
    found = survey(reader, raw, options)
    if settings.crop == "annotation" and settings.no_face == "skip" and not found.boxed:
        raise ValueError(f"crop 'annotation' uses the dataset's own boxes, and {name} in {raw} has none; see --crop")
    used = detector if settings.crop == "mtcnn" else None
    plan = make_plan(reader, settings, options, found, num_shards, used)
    store = ChunkedShards(final, name, found.photos, num_shards)
    log = log or partial(print, file=sys.stderr, flush=True)
    return Preparation(reader, raw, options, settings, found, plan, code_versions(reader, used), store, log)


def _reiterable(value: object) -> object:
    """An option's value in a form that is the same in every process and can be iterated repeatedly."""
    if isinstance(value, Set):
        return sorted(value)
    return list(value) if isinstance(value, Iterator) else value


def finished_before(preparation: Preparation) -> bool:
    """Whether the dataset is already prepared.

    Raises:
        ValueError: It is, but with other settings or photos.
    """
    store, log = preparation.store, preparation.log
    if not (store.final / "dataset_info.json").exists():
        return False
    made = json.loads((store.final / "summary.json").read_text())["plan"]
    if made != preparation.plan:
        differ = differences(made, preparation.plan)
        raise ValueError(f"{store.final} was prepared differently ({differ}); delete it or choose another --out")
    if log:
        name, left_out = preparation.reader.name, _left_out(store.final)
        without = f", without {len(left_out)} missing or corrupt photos" if left_out else ""
        log(f"{name}: {store.final} is already prepared{without}")
        if readable := _count_readable(preparation, left_out):
            log(f"WARNING: {name}: {readable} of these can be read now; to include them, delete {store.final}")
    shutil.rmtree(store.partial, ignore_errors=True)  # left if the process was killed between the last two steps
    return True


def _left_out(folder: pathlib.Path) -> set[str]:
    """Ids of the photos that could not be read when the dataset was prepared."""
    lists = [path for path in (folder / "missing.txt", folder / "corrupt.txt") if path.exists()]
    lines = itertools.chain.from_iterable(path.read_text("utf-8").splitlines() for path in lists)
    return {line.split("\t")[0] for line in lines if "\t" in line}  # a reason may span several lines


def _count_readable(preparation: Preparation, left_out: set[str]) -> int:
    if not left_out:
        return 0
    records = read_records(preparation.reader, preparation.raw, preparation.options, preparation.survey.repeated)
    return sum(load_photo(record, preparation.raw).problem is None for record in records if record.id in left_out)


def _ahead(pool: Executor, function: Callable, items: Iterable, window: int) -> Iterator:
    """Yields function(item) in order, computed in the pool up to `window` items ahead."""
    items = iter(items)
    futures = deque(pool.submit(function, item) for item in itertools.islice(items, window))
    while futures:
        result = futures.popleft().result()
        futures.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
        yield result


def _write_chunks(preparation: Preparation, detector: Detector | None, workers: int, detect_batch: int) -> None:
    store, settings, fields = preparation.store, preparation.settings, preparation.survey.fields
    todo = sum(chunk.stop - chunk.start for chunk in store.pending())
    total = sum(preparation.survey.photos.values())
    assert preparation.log is not None
    progress = Progress(preparation.reader.name, todo, total - todo, preparation.log)
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        pool: Executor = threads
        if workers > 1 and todo and preparation.survey.made:
            # Photos are made in Python: threads would take turns. Spawned, because this process may run JAX threads.
            pool = stack.enter_context(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")))
        stack.callback(pool.shutdown, cancel_futures=True)
        begun: deque[Chunk] = deque()
        if settings.crop == "mtcnn":
            work = partial(load_photos, raw=preparation.raw)
        else:
            work = partial(load_and_cut, raw=preparation.raw, fields=fields, settings=settings)
        loaded = itertools.chain.from_iterable(_ahead(pool, work, _tasks(preparation, begun), workers + 2))
        for first in loaded:  # first photo of a chunk
            chunk = begun.popleft()
            photos = itertools.chain([first], itertools.islice(loaded, chunk.stop - chunk.start - 1))
            outcomes: list[Outcome] = []
            if detector is not None and settings.crop == "mtcnn":
                batches = find_and_cut(photos, fields, settings, detector, detect_batch, threads)
            else:
                batches = ([outcome] for outcome in photos)
            for batch in batches:
                outcomes += batch
                progress.add(batch)
            write_chunk(store, chunk, outcomes, fields)
    progress.report(last=True)


def _tasks(preparation: Preparation, begun: deque[Chunk]) -> Iterator[list[Record]]:
    """Yields the records to load, one worker task at a time; appends each chunk to `begun` before its first task."""
    for chunk, records in preparation.pending():
        begun.append(chunk)
        for start in range(0, len(records), PHOTOS_PER_TASK):
            yield records[start : start + PHOTOS_PER_TASK]


def finish(preparation: Preparation) -> None:
    """Assembles the missing shards, writes metadata, contact sheets and summary, and publishes the dataset.

    Raises:
        ValueError: No photo gave a crop; the partial folder is removed.
    """
    store, reader, settings = preparation.store, preparation.reader, preparation.settings
    splits = store.assemble()
    summary = summarise(store, reader, preparation.survey.skipped, preparation.plan)
    if not sum(sum(lengths) for lengths, _ in splits.values()):
        reason = explain_no_crop(summary, store.notes())
        shutil.rmtree(store.partial)  # otherwise the same command would find every photo done, and fail again
        raise ValueError(reason)
    folder = store.staging
    fields = {**preparation.survey.fields, **STORED_FIELDS}
    write_metadata(
        folder, reader.name, fields, settings.image_format, splits, reader.description, reader.url, reader.licence
    )
    for split, shards in read_splits(folder).items():
        write_contact_sheets(TFRecordSource([shard for shard, _ in shards]), folder / "sheets", split)
    for kind in LISTS:
        lines = [f"{row[0]}\t{row[1]}\n" for _, note in store.notes() for row in note["lists"][kind]]
        write_atomically(folder / f"{kind}.txt", "".join(sorted(lines)).encode())
    skipped = sorted(preparation.survey.skipped.items())
    lines = [f"{place}\t{reason}\n" for reason, places in skipped for place in places]
    write_atomically(folder / "skipped.txt", "".join(lines).encode())
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    store.publish()
    if preparation.log:
        for line in describe_summary(summary):
            preparation.log(line)
        preparation.log(f"{reader.name}: prepared in {store.final}; check its sheets/*.png")
