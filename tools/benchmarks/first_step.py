"""Time from program start to the end of the first training step, with an empty and a filled compilation cache."""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable

from benchmarks.harness import TRAINING_ENVIRONMENT, Side

GOAL = "B2, cold and warm cache: measured, and halved"
UNIT = "start"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the network and the batch."""
    parser.add_argument("--model", default="tf_efficientnet_b2", help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=260, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")
    parser.set_defaults(rounds=2)


def sides(args: argparse.Namespace) -> list[Side]:
    """The same start with a cache filled by an earlier one, and with an empty cache."""
    shared = {"model": args.model, "size": args.size, "batch": args.batch, "dtype": args.dtype}
    return [
        Side("warm cache", "first_step.start", {**shared, "cold": False}),
        Side("cold cache", "first_step.start", {**shared, "cold": True}),
    ]


def start(model: str, size: int, batch: int, dtype: str, cold: bool) -> Callable[[], dict]:
    """Rounds of one start each, in a new process; the first round of a warm side fills its cache."""
    kept = tempfile.TemporaryDirectory()

    def work() -> dict:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with tempfile.TemporaryDirectory() as empty:
            cache = empty if cold else kept.name
            settings = [model, str(size), str(batch), dtype]
            environment = {**os.environ, **TRAINING_ENVIRONMENT, "JAX_COMPILATION_CACHE_DIR": cache}
            subprocess.run([sys.executable, "-m", "benchmarks.first_step", *settings], check=True, env=environment)
            size_mb = sum(path.stat().st_size for path in pathlib.Path(cache).rglob("*") if path.is_file()) / 2**20
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"items": 1, "cpu_s": seconds, "peak_mb": after.ru_maxrss / 1024, "cache_mb": size_mb}

    return work


def main() -> None:
    """One start: imports, network, compilation, one step."""
    from benchmarks.train_step import facejax_step

    model, size, batch, dtype = sys.argv[1:5]
    facejax_step(model, int(size), int(batch), 1, dtype, 0.05)()


if __name__ == "__main__":
    main()
