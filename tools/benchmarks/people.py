"""Rendering of the built-in dataset `people`: complete photos with identity, hair, light, background and camera."""

import argparse
import multiprocessing
import resource
from collections.abc import Callable, Iterator

from benchmarks.harness import Side

GOAL = ">= 30 photos per second on 2 cores at 256 px"
UNIT = "photo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the photos and the processes."""
    parser.add_argument("--photos", type=int, default=96, help="photos per round (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of the photos, pixels (default: %(default)s)")
    parser.add_argument("--setting", choices=("wild", "studio"), default="wild", help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes, one side each")


def sides(args: argparse.Namespace) -> list[Side]:
    """One side per number of processes, the largest first."""
    shared = {"photos": args.photos, "size": args.size, "setting": args.setting}
    return [
        Side(f"{workers} process{'es' * (workers > 1)}", "people.render", {**shared, "workers": workers})
        for workers in sorted(args.workers, reverse=True)
    ]


def _parts(photos: int, size: int, setting: str) -> Iterator[list]:
    """Yields endless rounds of new photos, six per person, each split into tasks for one worker."""
    from facejax.datasets import get_dataset
    from facejax.datasets.prepare import PHOTOS_PER_TASK

    records = get_dataset("people").records(None, num_train=10**9, size=size, setting=setting)
    makers = (record.image for record in records)
    while True:
        round_of = [next(makers) for _ in range(photos)]
        yield [round_of[at : at + PHOTOS_PER_TASK] for at in range(0, photos, PHOTOS_PER_TASK)]


def _render(makers: list) -> float:
    """Renders the photos of one task; returns the CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    for make in makers:
        make()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def render(photos: int, size: int, setting: str, workers: int) -> Callable[[], dict]:
    """Rounds of rendering, in this process or in a pool."""
    parts = _parts(photos, size, setting)
    if workers == 1:
        return lambda: {"items": photos, "cpu_s": sum(map(_render, next(parts)))}
    pool = multiprocessing.get_context("spawn").Pool(workers)
    return lambda: {"items": photos, "cpu_s": sum(pool.imap_unordered(_render, next(parts)))}
