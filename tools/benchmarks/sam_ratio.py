"""facejax's SAM step compared with its plain Adam step: two passes take at best twice the time of one."""

import argparse

from benchmarks import train_step
from benchmarks.harness import Side

GOAL = "a step of SAM takes <= 2.05 times that of Adam"
UNIT = "photo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the training step."""
    train_step.add_arguments(parser)


def sides(args: argparse.Namespace) -> list[Side]:
    """The same step with and without a SAM radius."""
    shared = {"model": args.model, "size": args.size, "steps": args.steps, "dtype": args.dtype, "batch": args.batch}
    return [
        train_step.facejax_side({**shared, "rho": args.rho}, "SAM"),
        train_step.facejax_side({**shared, "rho": 0.0}, "Adam"),
    ]
