"""Dataset preparation as an Apache Beam pipeline, for datasets that would take days on one machine.

`prepare_with_beam` writes the same bytes as `facejax.datasets.prepare.prepare_dataset`: the same chunks, notes and
shards in the same folder. A run resumes where an earlier one stopped, and either function can continue the other's::

    reading (one worker) ── chunks of records ── reshuffle ── find, cut, write (all workers) ── join (all workers)

Only records and counts travel through Beam. The photos and the prepared dataset are on a file system that all workers
see at the same path (NFS, Lustre, a mounted bucket); docs/datasets.md describes Dataflow, Flink and Spark.
"""

import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from facejax.data.records import Record
from facejax.data.shards import Chunk, differences
from facejax.datasets.chunks import Detector, find_and_cut, write_chunk
from facejax.datasets.crops import cut_face, load_photo
from facejax.datasets.plan import code_versions
from facejax.datasets.prepare import Log, Preparation, finish, finished_before, plan_preparation
from facejax.datasets.registry import get_dataset

MakeDetector = Callable[[], Detector]

_detectors: dict[str, Detector] = {}  # one per process, so that all bundles share its compiled networks
_detectors_lock = threading.Lock()


def prepare_with_beam(
    name: str,
    raw: str | os.PathLike | None,
    out: str | os.PathLike,
    crop: str | None = None,
    margin: float = 0.0,
    align: bool = True,
    num_shards: int | None = None,
    *,
    runner: str,
    runner_options: Sequence[str] = (),
    make_detector: MakeDetector | None = None,
    threads: int = 2,
    detect_batch: int = 32,
    reader_options: Mapping[str, object] | None = None,
    log: Log | None = None,
    **crop_settings: Any,
) -> pathlib.Path:
    """Prepares a dataset with a Beam runner; see `prepare_dataset` for the other arguments and errors.

    Args:
        name: Name in `list_datasets()`.
        raw: Folder with the dataset, at the same path on this machine and on all workers.
        out: The data folder, likewise.
        crop: See `prepare_dataset`.
        margin: See `prepare_dataset`.
        align: See `prepare_dataset`.
        num_shards: See `prepare_dataset`.
        runner: ``DirectRunner``, ``DataflowRunner``, ``FlinkRunner``, ``SparkRunner`` or another Beam runner.
        runner_options: Its options in command-line form: ``--direct_num_workers=2``.
        make_detector: Picklable function that makes the detector on a worker; None uses `facejax.detect.MTCNN`.
        threads: Threads per worker task, to decode and encode photos.
        detect_batch: See `prepare_dataset`.
        reader_options: See `prepare_dataset`.
        log: See `prepare_dataset`.
        **crop_settings: See `prepare_dataset`.

    Raises:
        ModuleNotFoundError: Apache Beam is not installed; the message says how to install it.
        RuntimeError: The pipeline failed, or workers run different code from this process.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.pvalue import AsSingleton
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"--runner needs Apache Beam ({error}): pip install 'facejax[beam]'") from error
    if (crop or get_dataset(name).default_crop) != "mtcnn":
        make_detector = None
    elif make_detector is None:
        from facejax.detect import MTCNN

        make_detector = MTCNN
    detector = None if make_detector is None else make_detector()
    preparation = plan_preparation(
        name, raw, out, crop, margin, align, num_shards, detector, reader_options, log, **crop_settings
    )
    if finished_before(preparation):
        return preparation.store.final
    work = {"preparation": preparation.without_log(), "make_detector": make_detector}
    with preparation.locked():
        pipeline = beam.Pipeline(runner=runner, options=PipelineOptions(list(runner_options)))
        written = (
            pipeline
            | beam.Impulse()
            | "read" >> beam.FlatMap(_pending, **work)
            | "spread" >> beam.Reshuffle()
            | "find and cut" >> beam.Map(_prepare_chunk, threads=threads, detect_batch=detect_batch, **work)
            | "count" >> beam.CombineGlobally(sum)
        )
        _ = (
            pipeline
            | "shards" >> beam.Create(preparation.store.shards)
            | "spread shards" >> beam.Reshuffle()
            # The count is available only once all chunks are written, so joining waits for it.
            | "join" >> beam.Map(_join_shard, AsSingleton(written), preparation=work["preparation"])
        )
        result = pipeline.run()
        state = result.wait_until_finish() or result.state
        if state != "DONE":
            raise RuntimeError(f"the pipeline ended with state {state}; run the same command again to resume")
        finish(preparation)
    return preparation.store.final


def _pending(_: bytes, preparation: Preparation, make_detector: MakeDetector | None) -> Iterator:
    """Yields the unfinished chunks with their records. Runs once, on one worker."""
    _detector(preparation, make_detector)  # refuses different code before anything is written
    yield from preparation.pending()


def _prepare_chunk(
    element: tuple[Chunk, list[Record]],
    preparation: Preparation,
    make_detector: MakeDetector | None,
    threads: int,
    detect_batch: int,
) -> int:
    """Writes one chunk; returns its number of photos. Safe to run twice, even concurrently."""
    from apache_beam.metrics.metric import Metrics

    chunk, records = element
    fields, settings = preparation.survey.fields, preparation.settings
    detector = _detector(preparation, make_detector)
    with ThreadPoolExecutor(threads) as pool:
        if detector is None:
            cut = pool.map(lambda record: cut_face(load_photo(record, preparation.raw), fields, settings), records)
            outcomes = list(cut)
        else:
            photos = pool.map(lambda record: load_photo(record, preparation.raw), records)
            batches = find_and_cut(photos, fields, settings, detector, detect_batch, pool)
            outcomes = [outcome for batch in batches for outcome in batch]
    write_chunk(preparation.store, chunk, outcomes, fields)
    for outcome in outcomes:
        Metrics.counter("facejax", outcome.kind).inc()
    return len(records)


def _detector(preparation: Preparation, make_detector: MakeDetector | None) -> Detector | None:
    """This worker's detector, created once per process.

    Raises:
        RuntimeError: The worker's code differs from the code that planned the preparation.
    """
    with _detectors_lock:
        key = preparation.plan["detector"]
        detector = None if make_detector is None else (_detectors[key] if key in _detectors else make_detector())
        code = code_versions(preparation.reader, detector)
        if code != preparation.code:
            raise RuntimeError(
                f"workers run different code from the machine that started them "
                f"({differences(preparation.code, code)}); install the same facejax and libraries on them"
            )
        if detector is not None:
            _detectors[key] = detector
        return detector


def _join_shard(shard: tuple[str, int], written: int, preparation: Preparation) -> None:
    """Joins the chunks of one shard once all are written. Safe to run twice."""
    del written
    preparation.store.assemble_shard(*shard)
