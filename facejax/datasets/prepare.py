"""Photos of a published data set -> face crops in TFRecord shards, resumably, with a summary of what became of each.

`prepare_dataset` makes ``DATA/<name>/<version>/`` (layout: `facejax.data.metadata`). Photos are read in the reader's
order, which is that of the disk, or of the rendered people; they are stored in chunks, which lie in a hashed order, as
do the examples of a chunk, so that one who reads the shards in sequence sees classes mixed. The same photos and
settings give the same bytes, whether the preparation was killed in between or not, and with any number of workers.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, runtime_checkable

from facejax.data.metadata import STORED_FIELDS, VERSION, Field, class_names, infer_field, read_splits, write_metadata
from facejax.data.records import Record
from facejax.data.shards import Chunk, ChunkedShards
from facejax.data.sheets import write_contact_sheets
from facejax.data.tfrecord import TFRecordSource, write_atomically
from facejax.datasets.crops import CropSettings, Outcome, Photo, cut_face, load_photo
from facejax.datasets.registry import CROPS, Dataset, get_dataset
from facejax.datasets.summary import LISTS, Progress, describe_summary, summarise

PHOTOS_PER_TASK = 16  # consecutive ones go to one worker: a rendered person is built once for the photos of them
FORMAT = 2  # raised when the same photos and settings begin to give other bytes


@runtime_checkable
class Detector(Protocol):
    """What finds faces: `facejax.detect.MTCNN`."""

    def detect(self, images: Sequence[Any]) -> Sequence[Any]:
        """One `Detections` (bboxes, scores, landmarks) for each uint8 RGB photo."""
        ...


def is_prepared(data_dir: str | os.PathLike, name: str) -> bool:
    """Whether a whole prepared set lies in ``data_dir/name``."""
    return (pathlib.Path(data_dir) / name / VERSION / "dataset_info.json").exists()


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
    log: Callable[[str], None] | None = None,
    **crop_settings: Any,
) -> pathlib.Path:
    """Prepares a data set; goes on where an interrupted preparation stopped; does nothing where it is whole already.

    Args:
        name: Name in `list_datasets()`.
        raw: Folder with the set in its published layout; None for sets that need none.
        out: The data folder; the set goes to ``out/name/<version>``.
        crop: ``mtcnn``, ``centre``, ``annotation`` or ``none``; None: the set's default.
        margin: Widens the box by this part of its size.
        align: Turns photos so that the eyes are level.
        num_shards: Shards of each split; None: one for 8192 photos.
        detector: For crop ``mtcnn``; None: `facejax.detect.MTCNN` with its defaults.
        workers: Threads that decode and encode photos (OpenCV lets go of the GIL), or processes, where the set makes
            its photos itself (the calling script then needs an ``if __name__ == "__main__"``); None: one a CPU core.
        detect_batch: Photos that are detected together; another number may change the last bits of the stored boxes.
        reader_options: Options of the set's reader.
        log: Takes lines of progress; None: they go to standard error.
        **crop_settings: Further fields of `CropSettings`: face, no_face, max_side, quality, image_format.

    Returns:
        The set's folder, with ``summary.json``, lists of photos left out, and ``sheets/*.png``.

    Raises:
        ValueError: A set or a setting is unknown; the set was prepared, or begun, with other settings; no
            record, or no face, was found.
        RuntimeError: Another process is preparing it.
    """
    log = log or partial(print, file=sys.stderr, flush=True)
    reader = get_dataset(name)
    if reader.kind != "photo":
        raise ValueError(f"{name} is a set of clips: it has no photos to prepare; see the video protocols")
    if crop is not None and crop not in CROPS:
        raise ValueError(f"crop must be one of {', '.join(CROPS)}, not {crop!r}")
    settings = CropSettings(crop=crop or reader.default_crop, margin=margin, align=align, **crop_settings)  # pyright: ignore
    options = dict(reader_options or {})
    raw = None if raw is None else pathlib.Path(raw)
    if raw is not None and not raw.is_dir():
        raise ValueError(f"--raw {raw} is no folder; it must hold {name} as it is published at {reader.url}")
    records = read_records(reader, raw, options)
    fields = _label_fields(records)
    if settings.crop == "mtcnn" and detector is None:
        from facejax.detect import MTCNN

        detector = MTCNN()
    plan = _plan(reader, settings, options, records, num_shards, detector)

    final = pathlib.Path(out) / name / VERSION
    store = ChunkedShards(final, name, plan["photos"], num_shards)
    if is_prepared(out, name):
        made = json.loads((final / "summary.json").read_text())["plan"]
        if made != plan:
            differ = ", ".join(
                f"{key}: {made.get(key)!r} -> {plan[key]!r}" for key in plan if plan[key] != made.get(key)
            )
            raise ValueError(f"{final} was prepared otherwise ({differ}); delete it or choose another --out")
        log(f"{name}: {final} is prepared already")
        shutil.rmtree(store.partial, ignore_errors=True)  # left by a kill between the last two steps
        return final
    with store.locked(plan):
        _write_chunks(store, records, raw, fields, settings, detector, workers, detect_batch, name, log)
        _finish(store, reader, fields, settings, plan, log)
    return final


def read_records(reader: Dataset, raw: pathlib.Path | None, options: Mapping[str, object]) -> dict[str, list[Record]]:
    """The set's records by split, in the reader's order; those with a second use of an id are skipped.

    Raises:
        ValueError: The reader finds no photo at all in the folder.
    """
    reader.skipped.clear()
    splits: dict[str, list[Record]] = {}
    seen = set()
    for record in reader.records(raw, **options):
        if record.id in seen:
            reader.skip("id used twice", record.id)
            continue
        seen.add(record.id)
        splits.setdefault(record.split, []).append(record)
    if not seen:
        raise ValueError(f"found no photo of {reader.name} in {raw}; expected its layout as published at {reader.url}")
    return {split: splits[split] for split in sorted(splits)}


def _label_fields(records: Mapping[str, Sequence[Record]]) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for record in itertools.chain.from_iterable(records.values()):
        for key, value in record.labels.items():
            if key in STORED_FIELDS or key in ("image", "index", "mask"):
                raise ValueError(f"{record.id}: a label may not be called {key!r}")
            fields[key] = infer_field(key, value, fields.get(key))
    return dict(sorted(fields.items()))


def _plan(reader, settings, options, records, num_shards, detector) -> dict[str, Any]:
    """All that decides the bytes of the prepared set, to tell a continuation from another preparation."""
    digest = hashlib.sha256()
    for split, photos in records.items():
        for record in photos:
            labels = sorted((key, str(value)) for key, value in record.labels.items())
            digest.update(repr((split, record.id, record.bbox, labels)).encode())
    return {
        "format": FORMAT,
        "name": reader.name,
        "photos": {split: len(photos) for split, photos in records.items()},
        "records": digest.hexdigest(),
        "options": {key: str(value) for key, value in options.items()},
        "num_shards": num_shards,
        "detector": _describe(detector) if settings.crop == "mtcnn" else None,
        **vars(settings),
    }


def _describe(detector: Detector) -> str:
    # Not its repr: object's own holds an address, which differs from run to run.
    settings = {key: value for key, value in vars(detector).items() if not key.startswith("_")}
    # 20 and 20.0 are one setting
    words = (
        f"{key}={value:g}" if isinstance(value, int | float) else f"{key}={value!r}" for key, value in settings.items()
    )
    return f"{type(detector).__name__}({', '.join(sorted(words))})"


def _ahead(pool: Executor, function: Callable, items: Iterable, window: int) -> Iterator:
    """Yields function(item) in order, computed in the pool up to `window` items ahead."""
    items = iter(items)
    futures = collections.deque(pool.submit(function, item) for item in itertools.islice(items, window))
    while futures:
        result = futures.popleft().result()
        futures.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
        yield result


def _load(records: Sequence[Record], raw: pathlib.Path | None) -> list[Photo]:
    return [load_photo(record, raw) for record in records]


def _load_and_cut(
    records: Sequence[Record], raw: pathlib.Path | None, fields: dict, settings: CropSettings
) -> list[Outcome]:
    return [cut_face(load_photo(record, raw), fields, settings) for record in records]


def _write_chunks(store, records, raw, fields, settings, detector, workers, detect_batch, name, log) -> None:
    pending = store.pending()
    wanted = [record for chunk in pending for record in records[chunk.split][chunk.start : chunk.stop]]
    progress = Progress(name, len(wanted), sum(map(len, records.values())) - len(wanted), log)
    workers = workers or os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        pool: Executor = threads
        if workers > 1 and any(callable(record.image) for record in wanted[:1]):
            # Photos made in Python: threads would take turns. Spawned, because this process may run JAX's threads.
            pool = stack.enter_context(ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")))
        stack.callback(pool.shutdown, cancel_futures=True)
        tasks = (wanted[start : start + PHOTOS_PER_TASK] for start in range(0, len(wanted), PHOTOS_PER_TASK))
        cut = partial(cut_face, fields=fields, settings=settings)
        work = partial(_load_and_cut, fields=fields, settings=settings) if settings.crop != "mtcnn" else _load
        photos = itertools.chain.from_iterable(_ahead(pool, partial(work, raw=raw), tasks, workers + 2))
        for chunk in pending:
            outcomes: list[Outcome] = []
            for start in range(chunk.start, chunk.stop, detect_batch):
                batch = list(itertools.islice(photos, min(detect_batch, chunk.stop - start)))
                if settings.crop == "mtcnn":
                    batch = list(threads.map(lambda pair: cut(pair[0], detections=pair[1]), _detect(detector, batch)))
                outcomes += batch
                progress.add(batch)
            _write_chunk(store, chunk, outcomes, fields)
    progress.report(last=True)


def _detect(detector: Detector, photos: Sequence[Photo]) -> Iterator[tuple[Photo, Any]]:
    readable = [photo.image for photo in photos if photo.image is not None]
    found = iter(detector.detect(readable) if readable else ())
    return ((photo, None if photo.image is None else next(found)) for photo in photos)


def _write_chunk(store: ChunkedShards, chunk: Chunk, outcomes: list[Outcome], fields: Mapping[str, Field]) -> None:
    faces = [outcome for outcome in outcomes if outcome.kind == "face"]
    faces.sort(key=lambda face: hashlib.sha256(face.record_id.encode()).digest())
    columns = {key: field.column([face.labels[key] for face in faces]) for key, field in fields.items()}
    columns["num_faces"] = STORED_FIELDS["num_faces"].column([face.num_faces for face in faces])
    classes = {key: collections.Counter(map(str, columns[key].tolist())) for key in _counted(fields)}
    lists = {
        kind: [[o.record_id, o.reason] for o in outcomes if o.kind == kind]
        for kind in ("no_face", "missing", "corrupt")
    }
    lists["several_faces"] = [[o.record_id, f"{o.num_faces} faces"] for o in outcomes if o.num_faces > 1]
    note = {"photos": len(outcomes), "faces": len(faces), "classes": classes, "lists": lists}
    store.write_chunk(chunk, [face.example for face in faces], columns, note)


def _counted(fields: Mapping[str, Field]) -> list[str]:
    """Labels whose values are worth counting: classes and ages."""
    return [key for key, field in fields.items() if field == Field("int64") and (class_names(key) or key == "age")]


def _finish(store, reader, fields, settings, plan, log) -> None:
    splits = store.assemble()
    if not sum(sum(lengths) for lengths, _ in splits.values()):
        raise ValueError(
            f"no face was found in any photo of {reader.name}; see --crop, and {store.staging.parent}/chunks"
        )
    folder = store.staging
    write_metadata(
        folder,
        reader.name,
        fields | STORED_FIELDS,
        settings.image_format,
        splits,
        reader.description,
        reader.url,
        reader.licence,
    )
    for split, shards in read_splits(folder).items():
        write_contact_sheets(TFRecordSource([shard for shard, _ in shards]), folder / "sheets", split)
    summary = summarise(store, reader, plan)
    for kind in LISTS:
        lines = [f"{row[0]}\t{row[1]}\n" for _, note in store.notes() for row in note["lists"][kind]]
        write_atomically(folder / f"{kind}.txt", "".join(sorted(lines)).encode())
    skipped = [f"{place}\t{reason}\n" for reason, places in sorted(reader.skipped.items()) for place in places]
    write_atomically(folder / "skipped.txt", "".join(skipped).encode())
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    store.publish()
    for line in describe_summary(summary):
        log(line)
    log(f"{reader.name}: prepared in {store.final}; look at its sheets/*.png")
