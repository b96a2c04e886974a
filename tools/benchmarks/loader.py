"""Training batches from the same TFRecord shards: facejax's loader compared with tf.data and PyTorch's DataLoader.

Crops are shuffled, decoded, resized if the stored size differs, and batched. tf.data has no random access and shuffles
within 1,000 records. PyTorch has no TFRecord reader, so it reads by facejax's index and decodes with OpenCV.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Sequence

from benchmarks.harness import TRAINING_ENVIRONMENT, Side

GOAL = "JPEG 224 crops (about 19 kB): >= 1.0x tf.data and DataLoader, >= 1000 per second and core"
UNIT = "crop"
MEASURE = "cpu_s"
STORED_SIDE = 224


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the shards and the peers."""
    parser.add_argument(
        "--data", type=pathlib.Path, help="folder of prepared datasets (default: synthetic crops of 224 px)"
    )
    parser.add_argument("--set", default="benchmark", help="name of the dataset in it")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--crops", type=int, default=3000, help="number of synthetic crops (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=STORED_SIDE, help="image side in the batches, pixels (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--batches", type=int, default=40, help="batches per round (default: %(default)s)")
    parser.add_argument(
        "--loader_threads", type=int, default=2, help="threads of facejax's loader (default: %(default)s)"
    )
    parser.add_argument(
        "--torch_workers", type=int, nargs="*", default=[0, 2], help="workers of DataLoader, one side each"
    )
    parser.add_argument("--tf_python", help="Python interpreter with TensorFlow; without it, tf.data is skipped")
    parser.add_argument("--raw", action="store_true", help="also run facejax on synthetic shards of raw pixels")


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax, tf.data if available, and DataLoader; writes synthetic shards if needed."""
    kept = pathlib.Path(tempfile.gettempdir()) / "facejax-benchmark-loader"
    data = args.data.resolve() if args.data else synthetic_dataset(kept, args.crops, "jpeg")
    shared = {"data": str(data), "name": args.set, "split": args.split, "size": args.size}
    shared |= {"batch": args.batch, "batches": args.batches}
    threads = {"threads": args.loader_threads}
    found = [Side("facejax", "loader.facejax", {**shared, **threads}, environment=TRAINING_ENVIRONMENT)]
    if args.tf_python:
        shards = [
            str(path) for path in sorted((data / args.set).glob(f"*/{args.set}-{args.split}.tfrecord-*-of-?????"))
        ]
        peer = {"shards": shards, "size": args.size, "batch": args.batch, "batches": args.batches}
        found.append(Side("tf.data", "loader.tf_data", peer, python=args.tf_python))
    for workers in args.torch_workers:
        found.append(Side(f"DataLoader, {workers} workers", "loader.torch_loader", {**shared, "workers": workers}))
    if args.raw:
        raw = str(synthetic_dataset(kept, args.crops, "bmp"))
        found.append(
            Side(
                "facejax, raw pixels",
                "loader.facejax",
                {**shared, **threads, "data": raw},
                environment=TRAINING_ENVIRONMENT,
            )
        )
    return found


def synthetic_dataset(folder: pathlib.Path, count: int, image_format: str) -> pathlib.Path:
    """Data folder with a dataset ``benchmark`` of smooth noise in six shards, JPEG of about 19 kB or raw; cached."""
    import cv2
    import numpy as np

    from facejax.data.example import encode_example
    from facejax.data.metadata import STORED_FIELDS, VERSION, Field, shard_name, write_metadata
    from facejax.data.tfrecord import write_shard

    data = folder / f"{image_format}-{count}"
    directory = data / "benchmark" / VERSION
    if (directory / "dataset_info.json").exists():
        return data
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    extension = {"jpeg": ".jpg", "bmp": ".bmp"}[image_format]
    lengths, size = [], 0
    for shard, numbers in enumerate(np.array_split(np.arange(count), 6)):
        records = []
        for number in numbers.tolist():
            coarse = rng.normal(128, 45, (28, 28, 3)).astype(np.float32)
            crop = cv2.resize(coarse, (STORED_SIDE, STORED_SIDE), interpolation=cv2.INTER_CUBIC)
            crop += rng.normal(0, 7, crop.shape).astype(np.float32)
            crop = crop.clip(0, 255).astype(np.uint8)
            _, image = cv2.imencode(extension, crop, [cv2.IMWRITE_JPEG_QUALITY, 90] if image_format == "jpeg" else [])
            example = {"image": image.tobytes(), "emotion": number % 8, "id": f"{number:06d}", "num_faces": 1}
            records.append(encode_example({**example, "bbox": np.zeros(4, np.float32), "score": np.float32(1)}))
        path = directory / shard_name("benchmark", "train", shard, 6)
        write_shard(path, records, {"emotion": numbers % 8})
        lengths.append(len(records))
        size += path.stat().st_size
    fields = {"emotion": Field("int64"), **STORED_FIELDS}
    write_metadata(directory, "benchmark", fields, image_format, {"train": (lengths, size)}, "Noise.", "", "CC0-1.0")
    return data


def facejax(data: str, name: str, split: str, size: int, batch: int, batches: int, threads: int) -> Callable[[], int]:
    """Rounds of batches from facejax's training loader."""
    from facejax.data.loader import train_loader
    from facejax.data.source import FaceSource
    from facejax.preprocessing import Preprocessing

    source = FaceSource(data, name, split)
    stream = iter(train_loader(source, Preprocessing(image_size=size), batch, 0, threads=threads))

    def work() -> int:
        for _ in range(batches):
            assert next(stream)["image"].shape == (batch, size, size, 3)
        return batch * batches

    return work


def tf_data(shards: Sequence[str], size: int, batch: int, batches: int) -> Callable[[], int]:
    """The same with tf.data, autotuned."""
    import tensorflow as tf

    def parse(record):
        described = {"image": tf.io.FixedLenFeature([], tf.string), "emotion": tf.io.FixedLenFeature([], tf.int64)}
        features = tf.io.parse_single_example(record, described)
        image = tf.io.decode_jpeg(features["image"], channels=3)
        if size != STORED_SIDE or tf.shape(image)[0] != size or tf.shape(image)[1] != size:
            image = tf.cast(tf.image.resize(image, [size, size]), tf.uint8)
        return {"image": tf.ensure_shape(image, [size, size, 3]), "emotion": features["emotion"]}

    stream = tf.data.TFRecordDataset(list(shards), num_parallel_reads=tf.data.AUTOTUNE).shuffle(1000, seed=0).repeat()
    stream = stream.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(batch, drop_remainder=True)
    numbers = iter(stream.prefetch(tf.data.AUTOTUNE).as_numpy_iterator())

    def work() -> int:
        for _ in range(batches):
            assert next(numbers)["image"].shape == (batch, size, size, 3)
        return batch * batches

    return work


class _Records:
    """The crops as a PyTorch dataset; at module level, so that worker processes can unpickle it."""

    def __init__(self, shards: Sequence[str], size: int):
        from facejax.data.tfrecord import TFRecordSource

        self.records, self.size = TFRecordSource(shards), size

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int):
        import cv2
        import numpy as np
        import torch

        from facejax.data.example import decode_example

        example = decode_example(self.records[index])
        image = cv2.imdecode(np.frombuffer(example["image"][0], np.uint8), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        if image.shape[:2] != (self.size, self.size):
            image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(image), example["emotion"][0]


def torch_loader(
    data: str, name: str, split: str, size: int, batch: int, batches: int, workers: int
) -> Callable[[], int]:
    """The same with PyTorch's DataLoader."""
    import torch

    from facejax.data.metadata import find_set, read_splits

    shards = [str(path) for path, _ in read_splits(find_set(data, name))[split]]
    loader = torch.utils.data.DataLoader(
        _Records(shards, size),  # pyright: ignore
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )

    def endless():
        while True:
            yield from loader

    stream = endless()

    def work() -> int:
        for _ in range(batches):
            assert next(stream)[0].shape == (batch, size, size, 3)
        return batch * batches

    return work
