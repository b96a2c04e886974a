"""Stages of dataset preparation: reading and decoding photos, detecting faces, cropping and encoding, writing.

These are the rates in docs/datasets.md, from which the time for millions of photos is estimated.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable

from benchmarks.harness import Side

GOAL = "measured; the time for all of VGGFace2 is estimated from it"
UNIT = "photo"
PARTS = ("detect", "load", "cut", "write")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the dataset and its size."""
    parser.add_argument(
        "--raw", type=pathlib.Path, help="folder of the dataset as published (default: rendered people)"
    )
    parser.add_argument("--set", default="people", help="name of the dataset (default: %(default)s)")
    parser.add_argument("--count", type=int, default=96, help="photos per round (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="photos per detection batch (default: %(default)s)")


def sides(args: argparse.Namespace) -> list[Side]:
    """One side per stage."""
    raw = None if args.raw is None else str(args.raw.resolve())
    shared = {"raw": raw, "name": args.set, "count": args.count, "batch": args.batch}
    return [Side(part, "prepare.part", {**shared, "part": part}) for part in PARTS]


def part(raw: str | None, name: str, count: int, batch: int, part: str) -> Callable[[], dict]:
    """Rounds of one stage on the same photos."""
    import itertools

    from facejax.data.shards import ChunkedShards
    from facejax.datasets import get_dataset
    from facejax.datasets.chunks import load_photos, write_chunk
    from facejax.datasets.crops import CropSettings, cut_face
    from facejax.datasets.survey import survey
    from facejax.detect import MTCNN

    folder = None if raw is None else pathlib.Path(raw)
    reader = get_dataset(name)
    records = list(itertools.islice(reader.records(folder), count))
    if part == "load":
        return lambda: {"items": len(load_photos(records, folder))}
    photos = [photo for photo in load_photos(records, folder) if photo.image is not None]
    detector = MTCNN()

    def detect() -> list:
        groups = (photos[at : at + batch] for at in range(0, len(photos), batch))
        return [found for group in groups for found in detector.detect([photo.image for photo in group])]  # pyright: ignore

    if part == "detect":
        return lambda: {"items": len(photos), "faces": sum(map(len, detect()))}
    fields = survey(reader, folder, {} if raw else {"num_train": count, "num_validation": 0}).fields
    found, settings = detect(), CropSettings()

    def cut() -> list:
        return [cut_face(photo, fields, settings, of_photo) for photo, of_photo in zip(photos, found, strict=True)]

    if part == "cut":
        return lambda: {"items": len(cut())}
    outcomes = cut()
    kept = tempfile.TemporaryDirectory()  # kept alive by `write`
    store = ChunkedShards(pathlib.Path(kept.name) / "1.0.0", name, {"train": len(outcomes)})
    store.partial.joinpath("chunks").mkdir(parents=True)

    def write() -> dict:
        for chunk in store.chunks:
            write_chunk(store, chunk, outcomes[chunk.start : chunk.stop], fields)
        size = sum(path.stat().st_size for path in pathlib.Path(kept.name).rglob("*.tfrecord"))
        return {"items": len(outcomes), "bytes_an_item": size / len(outcomes)}

    return write
