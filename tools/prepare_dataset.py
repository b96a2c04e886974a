r"""Prepares a published data set: faces are found, cut out and written as TFRecord shards that TFDS can read too.

    python tools/prepare_dataset.py facial_expressions --raw DIR --out DATA
    python tools/prepare_dataset.py --list

Makes DATA/NAME/1.0.0/ with the shards, summary.json, lists of the photos that were left out (no_face.txt, missing.txt,
corrupt.txt, skipped.txt), several_faces.txt, and contact sheets (sheets/*.png): look at these before training. Run the
same command again after an interruption: it goes on where it stopped and gives the same bytes.

With --runner the work is an Apache Beam pipeline, for sets of millions of photos (docs/datasets.md):

    python tools/prepare_dataset.py vggface2 --raw DIR --out DATA \
        --runner DirectRunner --runner_options direct_running_mode=multi_processing direct_num_workers=8
"""

import argparse
import functools
import sys

from facejax.cli.unread import quiet_when_unread
from facejax.datasets import get_dataset, list_datasets
from facejax.datasets.options import parse_options
from facejax.datasets.prepare import prepare_dataset
from facejax.datasets.registry import CROPS


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; `arguments` are for tests, None takes the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", metavar="NAME", help="data set; --list shows them")
    parser.add_argument("--list", action="store_true", help="list the data sets, their licences and addresses, and end")
    parser.add_argument("--raw", metavar="DIR", help="folder that holds the set in its published layout")
    parser.add_argument("--out", metavar="DIR", default="data", help="data folder (default: %(default)s)")
    parser.add_argument(
        "--crop",
        choices=CROPS,
        help="mtcnn: detected face; centre: the photo's middle; annotation: the set's own box; none: the whole photo "
        "(default: as the set's reader says)",
    )
    parser.add_argument("--margin", type=float, default=0.0, help="widen the box by this part of its size (default: 0)")
    parser.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn a crop by a box so that the eyes are level, where landmarks are known (default: yes)",
    )
    parser.add_argument(
        "--face",
        choices=("largest", "probable", "central"),
        default="largest",
        help="which of several faces (default: %(default)s); where the set has a box, the one that overlaps it most",
    )
    parser.add_argument(
        "--no-face",
        choices=("skip", "centre"),
        default="skip",
        help="a photo without a face is left out and listed, or its centre crop is kept (default: %(default)s)",
    )
    parser.add_argument("--min-face", type=int, default=20, help="smallest face to detect, in pixels (default: 20)")
    parser.add_argument(
        "--thresholds",
        type=float,
        nargs=3,
        default=(0.6, 0.7, 0.7),
        metavar=("P", "R", "O"),
        help="least probabilities of MTCNN's three networks (default: 0.6 0.7 0.7; the paper's code: 0.6 0.7 0.9)",
    )
    parser.add_argument("--num-shards", type=int, metavar="N", help="shards a split (default: one for 8192 photos)")
    parser.add_argument("--max-side", type=int, default=320, help="reduce larger crops to it, pixels (default: 320)")
    parser.add_argument("--quality", type=int, default=95, help="JPEG quality (default: %(default)s)")
    parser.add_argument(
        "--image-format",
        choices=("jpeg", "bmp"),
        default="jpeg",
        help="bmp: raw pixels, about ten times as large, hardly any decoding (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads or processes (default: one a CPU core); with --runner, threads of a worker's task (default: 2)",
    )
    parser.add_argument(
        "--runner", metavar="RUNNER", help="prepare by this runner of Apache Beam, such as DirectRunner"
    )
    parser.add_argument(
        "--runner_options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of the runner, as its documentation names them, without the dashes; a bare KEY is a switch",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the set's reader, see its docstring in facejax/datasets/NAME.py; may be repeated",
    )
    parsed = parser.parse_args(arguments)
    if parsed.name is None and not parsed.list:
        parser.error("name a data set, or --list")
    if any("=" not in option for option in parsed.option):
        parser.error(f"--option takes KEY=VALUE, got {parsed.option}")
    if parsed.workers is not None and parsed.workers < 1:
        parser.error(f"--workers takes a number from 1 on, got {parsed.workers}")
    if parsed.runner_options and parsed.runner is None:
        parser.error("--runner_options needs --runner")
    return parsed


def prepare(args: argparse.Namespace) -> None:
    """Prepares the set, on this machine or by Beam."""
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
        with quiet_when_unread():
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
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
