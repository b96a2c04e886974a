"""Exports networks and the detector to ONNX, LiteRT, StableHLO or Orbax, checked on faces before being written."""

import argparse
import json
import pathlib
import sys
from typing import Any

from facejax.cli import DONE
from facejax.cli.check_faces import check_faces
from facejax.cli.options import add_output_options
from facejax.export import FORMATS, check_packages

_CHECK_FACES, _CALIBRATION_FACES = 32, 128


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("export", help="export networks to other runtimes and phones", description=__doc__)
    parser.add_argument("model", nargs="+", metavar="FOLDER|NAME", help="trained folders or published weights")
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=["onnx"], metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        required=True,
        metavar="FOLDER",
        help="output folder; each format is written to FOLDER/FORMAT",
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        metavar="PHOTO|FOLDER",
        help="photos whose faces are used to check the files and to calibrate LiteRT int8 (default: rendered faces, "
        "which are less representative)",
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    for name in args.to:
        check_packages(name)
    from facejax.export.formats import export_models
    from facejax.inference import load_model

    models = [load_model(name) for name in args.model]
    wanted = _CHECK_FACES + (_CALIBRATION_FACES if "litert_int8" in args.to else 0)
    faces = check_faces(args.photos, wanted)
    if "litert_int8" in args.to and len(faces) < 2:
        raise ValueError(
            "litert_int8 is calibrated on some faces and checked on others: give more than one by --photos"
        )
    if not args.quiet:
        kind = "faces of your photos" if args.photos else "rendered faces (give real ones by --photos)"
        print(f"checking on {len(faces)} {kind}", file=sys.stderr)
    for name in args.to:
        told = export_models(models, args.out / name, name, faces)
        if args.json:
            print(json.dumps({"format": name, "folder": str(args.out / name), "files": told}))
        else:
            for file, metadata in told.items():
                print(f"{args.out / name / file}  {_words(metadata)}")
    return DONE


def _words(metadata: dict[str, Any]) -> str:
    check = metadata["check"]
    size = f"{metadata['bytes'] / 1e6:.2f} MB, " if "bytes" in metadata else ""
    largest = ", ".join(f"{name} {value:.2g}" for name, value in check["max_difference"].items())
    words = f"{size}largest difference from Flax on {check['faces']} faces: {largest}"
    if check.get("agreement"):
        words += "; same class: " + ", ".join(f"{name} {value:.1%}" for name, value in check["agreement"].items())
    return words
