r"""Prepares a published dataset: detects and crops faces, and writes TFRecord shards that TFDS can read too.

    python tools/prepare_dataset.py facial_expressions --raw DIR --out DATA
    python tools/prepare_dataset.py --list

Writes DATA/NAME/1.0.0/ with the shards, summary.json, lists of the photos that were left out (no_face.txt,
missing.txt, corrupt.txt, skipped.txt), several_faces.txt, and contact sheets (sheets/*.png), which you should look at
before training. After an interruption, run the same command again: it resumes where it stopped, and the result is
identical byte for byte.

With --runner, preparation runs as an Apache Beam pipeline, for datasets of millions of photos (docs/datasets.md):

    python tools/prepare_dataset.py vggface2 --raw DIR --out DATA \
        --runner DirectRunner --runner_options direct_running_mode=multi_processing direct_num_workers=8
"""

import argparse
import functools
import signal
import sys

from facejax.cli.broken_pipe import ignore_broken_pipe
from facejax.datasets import get_dataset, list_datasets
from facejax.datasets.options import parse_options
from facejax.datasets.prepare import prepare_dataset
from facejax.datasets.registry import CROPS


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; `arguments` are for tests, None uses those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the dataset; see --list")
    parser.add_argument("--list", action="store_true", help="list the datasets, their licences and URLs, and exit")
    parser.add_argument("--raw", metavar="DIR", help="folder with the dataset in its published layout")
    parser.add_argument(
        "--out", metavar="DIR", default="data", help="output folder for datasets (default: %(default)s)"
    )
    parser.add_argument(
        "--crop",
        choices=CROPS,
        help="mtcnn: detected face; centre: centre of the photo; annotation: the dataset's own box; none: whole photo "
        "(default: depends on the dataset)",
    )
    parser.add_argument(
        "--margin", type=float, default=0.0, help="enlarge the box by this fraction of its size (default: 0)"
    )
    parser.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="rotate crops so that the eyes are level, if landmarks are known (default: yes)",
    )
    parser.add_argument(
        "--face",
        choices=("largest", "probable", "central"),
        default="largest",
        help="which of several faces to use (default: %(default)s); if the dataset has a box, the face that overlaps "
        "it most",
    )
    parser.add_argument(
        "--no-face",
        choices=("skip", "centre"),
        default="skip",
        help="photos without a face: leave them out and list them, or keep their centre crop (default: %(default)s)",
    )
    parser.add_argument("--min-face", type=int, default=20, help="smallest face to detect, in pixels (default: 20)")
    parser.add_argument(
        "--thresholds",
        type=float,
        nargs=3,
        default=(0.6, 0.7, 0.7),
        metavar=("P", "R", "O"),
        help="score thresholds of MTCNN's three networks (default: 0.6 0.7 0.7; the paper's code: 0.6 0.7 0.9)",
    )
    parser.add_argument("--num-shards", type=int, metavar="N", help="shards per split (default: one per 8192 photos)")
    parser.add_argument(
        "--max-side", type=int, default=320, help="downscale larger crops to this side in pixels (default: 320)"
    )
    parser.add_argument("--quality", type=int, default=95, help="JPEG quality (default: %(default)s)")
    parser.add_argument(
        "--image-format",
        choices=("jpeg", "bmp"),
        default="jpeg",
        help="bmp: raw pixels, about ten times as large but almost free to decode (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads or processes (default: one per CPU core); with --runner, threads per worker task (default: 2)",
    )
    parser.add_argument("--runner", metavar="RUNNER", help="use this Apache Beam runner, such as DirectRunner")
    parser.add_argument(
        "--runner_options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of the runner, named as in its documentation without the dashes; a bare KEY is a flag",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the dataset reader, see its docstring in facejax/datasets/NAME.py; may be repeated",
    )
    parsed = parser.parse_args(arguments)
    if parsed.name is None and not parsed.list:
        parser.error("give the name of a dataset, or --list")
    if any("=" not in option for option in parsed.option):
        parser.error(f"--option takes KEY=VALUE, got {parsed.option}")
    if parsed.workers is not None and parsed.workers < 1:
        parser.error(f"--workers must be at least 1, got {parsed.workers}")
    if parsed.runner_options and parsed.runner is None:
        parser.error("--runner_options needs --runner")
    return parsed


def prepare(args: argparse.Namespace) -> None:
    """Prepares the dataset, on this machine or with Beam."""
    make_detector = None
    if (args.crop or get_dataset(args.name).default_crop) == "mtcnn":
        from facejax.detect import MTCNN

        make_detector = functools.partial(MTCNN, min_face=args.min_face, thresholds=tuple(args.thresholds))
    where = (args.name, args.raw, args.out, args.crop, args.margin, args.align, args.num_shards)
    settings = {
        "reader_options": parse_options(get_dataset(args.name), dict(option.split("=", 1) for option in args.option)),
        "face": args.face,
        "no_face": args.no_face,
        "max_side": args.max_side,
        "quality": args.quality,
        "image_format": args.image_format,
    }
    if args.runner is None:
        detector = make_detector and make_detector()
        prepare_dataset(*where, detector=detector, workers=args.workers, **settings)
        return
    from facejax.datasets.beam import prepare_with_beam

    prepare_with_beam(
        *where,
        runner=args.runner,
        runner_options=[f"--{option.lstrip('-')}" for option in args.runner_options],
        make_detector=make_detector,
        threads=args.workers or 2,
        **settings,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns its exit status."""
    args = parse_arguments(arguments)
    if args.list:
        with ignore_broken_pipe():
            for name in list_datasets():
                dataset = get_dataset(name)
                print(f"{name}\n    {dataset.description}\n    {dataset.licence}; {dataset.url}")
        return 0
    try:
        prepare(args)
    except (ValueError, RuntimeError, OSError, ModuleNotFoundError) as error:
        print(f"prepare_dataset: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: what is finished is kept
    sys.exit(main())
