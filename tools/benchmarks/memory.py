"""Peak memory of training compared with PyTorch: of the process on a CPU, of the allocator on a GPU."""

import argparse

from benchmarks import train_step
from benchmarks.harness import Side

GOAL = "batch 32, B2: <= 1.0x PyTorch"
UNIT = "photo"
MEASURE = "peak_mb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the training step, with the batch size of the goal."""
    train_step.add_arguments(parser)
    parser.set_defaults(model="tf_efficientnet_b2", size=260, batch=32, steps=1, rounds=2)


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax and timm; the peak includes each library itself and the compilation."""
    return train_step.sides(args)
