r"""Benchmarks facejax against a peer: alternating rounds, medians and their ratio.

    python tools/benchmark.py --list
    python tools/benchmark.py train_step --model tf_efficientnet_b0 --size 224 --batch 16
    python tools/benchmark.py loader --data DATA --set facial_expressions --tf_python VENV/bin/python

Each side runs in its own process, which is set up and warmed up first. The sides then take turns, so that any
disturbance of the machine affects both. Figures are saved to experiments/results/benchmarks/NAME-DEVICE.json with the
device, all versions and the command; use --tag TAG to distinguish runs of other models or settings. For the options of
a row: `python tools/benchmark.py NAME --help`.
"""

import argparse
import importlib
import pathlib
import shutil
import sys

ROWS = (
    "train_step",
    "sam_ratio",
    "head_only",
    "depthwise",
    "onnx",
    "exports",
    "one_face",
    "mtcnn",
    "loader",
    "video",
    "first_step",
    "people",
    "memory",
    "prepare",
)
RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "results" / "benchmarks"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line; the row's own options follow its name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the rows and their goals, and exit")
    rows = parser.add_subparsers(dest="row", metavar="NAME")
    for name in ROWS:
        module = importlib.import_module(f"benchmarks.{name}")
        row = rows.add_parser(name, help=module.GOAL, description=module.__doc__)
        row.add_argument("--rounds", type=int, default=5, help="rounds of each side (default: %(default)s)")
        row.add_argument("--threads", type=int, help="CPU cores for each side (default: all)")
        row.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="(default: %(default)s)")
        row.add_argument(
            "--only", metavar="WORD", help="run only sides whose name contains this; saved only with --tag"
        )
        row.add_argument("--out", type=pathlib.Path, default=RESULTS, help="output folder (default: %(default)s)")
        row.add_argument("--tag", default="", help="suffix for the name of the JSON file")
        row.add_argument("--no_save", action="store_true", help="do not save the results")
        module.add_arguments(row)
    parsed = parser.parse_args(arguments)
    if parsed.row is None and not parsed.list:
        parser.error("name a row, or --list")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns its exit status."""
    from benchmarks import harness

    arguments = sys.argv[1:] if arguments is None else arguments
    args = parse_arguments(arguments)
    if args.list:
        for name in ROWS:
            print(f"{name:12s} {importlib.import_module(f'benchmarks.{name}').GOAL}")
        return 0
    if args.device == "auto":
        args.device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    row = importlib.import_module(f"benchmarks.{args.row}")
    try:
        available = row.sides(args)
        sides = [side for side in available if not args.only or args.only in side.name]
        if not sides:
            raise ValueError(f"--only {args.only}: no such side; there are: {', '.join(one.name for one in available)}")
        result = harness.run(args.row, row, sides, args, ["tools/benchmark.py", *arguments])
    except (harness.SideError, FileNotFoundError, ValueError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    print(getattr(row, "describe", harness.describe)(result))
    if not args.no_save and not (args.only and not args.tag):  # a partial row must not overwrite a complete one
        print(f"written to {harness.save(result, args.out, args.tag)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
