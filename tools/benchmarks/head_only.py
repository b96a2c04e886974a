"""Training of heads on a frozen backbone: features computed once for all epochs, or recomputed at every step."""

import argparse
from collections.abc import Callable

from benchmarks.harness import TRAINING_ENVIRONMENT, Side
from benchmarks.torch_nets import DEVICES

GOAL = "3 epochs: >= 5x as fast as the straightforward way"
UNIT = "photo and epoch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the network and the amount of data."""
    parser.add_argument("--model", default="tf_efficientnet_b0", help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--photos", type=int, default=128, help="photos per epoch (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--rho", type=float, default=0.05, help="radius of SAM (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax, facejax without the feature cache, and timm with both of SAM's passes through the backbone."""
    shared = {key: getattr(args, key) for key in ("model", "size", "batch", "photos", "epochs", "rho", "dtype")}
    device = DEVICES[args.device]
    return [
        Side("facejax", "head_only.cached", shared, environment=TRAINING_ENVIRONMENT),
        Side("facejax without the cache", "head_only.plain", shared, environment=TRAINING_ENVIRONMENT),
        Side("timm", "head_only.timm", {**shared, "device": device}),
    ]


def _data(photos: int, size: int):
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (photos, size, size, 3), np.uint8)
    return images, rng.integers(0, 8, photos).astype(np.int32), np.ones(photos, np.float32)


def cached(model: str, size: int, batch: int, photos: int, epochs: int, rho: float, dtype: str) -> Callable[[], dict]:
    """Computes the features of all photos, then trains the head on them; a round is the whole stage."""
    import jax
    import numpy as np

    from benchmarks.train_step import make_stage
    from facejax.config import StageConfig
    from facejax.data.loader import array_loader

    placement, state = make_stage(model, size, dtype, rho, StageConfig(trainable="heads", batch_norm="running"))
    images, labels, mask = _data(photos, size)
    steps = photos // batch * epochs
    compiled: list = []

    def work() -> dict:
        features = [
            placement.features(
                state.params,
                state.batch_stats,
                placement.put_eval_batch({"image": images[at : at + batch], "mask": mask[at : at + batch]}),
            )
            for at in range(0, photos // batch * batch, batch)
        ]
        arrays = {"features": np.concatenate([np.asarray(part) for part in features])}
        count = len(arrays["features"])
        batches = iter(array_loader({**arrays, "emotion": labels[:count], "mask": mask[:count]}, batch, 0))
        held, metrics = placement.to_step(jax.tree.map(lambda leaf: leaf.copy(), state)), {}
        for _ in range(steps):
            part = placement.put_batch(next(batches))
            if not compiled:
                compiled.append(placement.compile(held, part))
            held, metrics = compiled[0].call(held, part)
        return {"items": steps * batch, "loss": float(metrics["loss"])}

    return work


def plain(model: str, size: int, batch: int, photos: int, epochs: int, rho: float, dtype: str) -> Callable[[], dict]:
    """Trains the head, passing each batch through the frozen backbone; a round is the whole stage."""
    import jax

    from benchmarks.train_step import make_stage
    from facejax.config import StageConfig

    placement, state = make_stage(model, size, dtype, rho, StageConfig(trainable="heads", batch_norm="running"))
    images, labels, mask = _data(photos, size)

    def part(at: int) -> dict:
        here = slice(at, at + batch)
        return placement.put_batch({"image": images[here], "emotion": labels[here], "mask": mask[here]})

    compiled = placement.compile(placement.to_step(state), part(0))
    starts = [at for _ in range(epochs) for at in range(0, photos // batch * batch, batch)]

    def work() -> dict:
        held, metrics = placement.to_step(jax.tree.map(lambda leaf: leaf.copy(), state)), {}
        for at in starts:
            held, metrics = compiled.call(held, part(at))
        return {"items": len(starts) * batch, "loss": float(metrics["loss"])}

    return work


def timm(
    model: str, size: int, batch: int, photos: int, epochs: int, rho: float, dtype: str, device: str
) -> Callable[[], dict]:
    """The straightforward way: a frozen backbone in PyTorch that runs in both passes of SAM, in every epoch."""
    from benchmarks.train_step import timm_step

    del photos  # only their number matters, and that is given by the steps
    settings = {"dtype": dtype, "rho": rho, "device": device, "channels_last": True, "compile": device == "cuda"}
    return timm_step(model, size, batch, epochs, trainable="heads", **settings)
