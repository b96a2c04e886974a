"""``facejax export``: networks with the detector as ONNX, LiteRT, StableHLO or Orbax, each checked on faces first."""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from facejax.cli.options import add_output_options, photos_of

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("onnx", "litert", "litert_float16", "litert_int8", "stablehlo", "orbax")
_CHECK_FACES, _CALIBRATION_FACES = 32, 128


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("export", help="files for other runtimes and phones", description=__doc__)
    parser.add_argument("model", nargs="+", metavar="FOLDER|NAME", help="trained folders or published weights")
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=["onnx"], metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER", help="FOLDER/FORMAT is written")
    parser.add_argument(
        "--photos",
        nargs="+",
        metavar="PHOTO|FOLDER",
        help="photos whose faces the files are checked on, and LiteRT's int8 is calibrated with; without them: "
        "rendered faces, which say less",
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    from facejax.inference import load_model

    models = [load_model(name) for name in args.model]
    wanted = _CHECK_FACES + (_CALIBRATION_FACES if "litert_int8" in args.to else 0)
    faces = _faces_of(args.photos, wanted) if args.photos else _rendered_faces(wanted)
    if not faces:
        raise ValueError(f"no face was found in the photos of {', '.join(args.photos)}")
    if not args.quiet:
        kind = "faces of your photos" if args.photos else "rendered faces (give real ones by --photos)"
        print(f"checking on {len(faces)} {kind}", file=sys.stderr)
    for name in args.to:
        told = _export(name, models, args.out / name, faces)
        if args.json:
            print(json.dumps({"format": name, "folder": str(args.out / name), "files": told}))
        else:
            for file, metadata in told.items():
                print(f"{args.out / name / file}  {_words(metadata)}")
    return 0


def _export(name: str, models: Sequence[Any], folder: pathlib.Path, faces: Sequence["np.ndarray"]) -> dict[str, Any]:
    """Metadata by file."""
    from facejax.export.bundle import export_bundle

    if name == "onnx":
        from facejax.export.onnx import export_onnx

        return _entries(export_bundle(models, folder, faces, runtime="onnx", suffix=".onnx", export=export_onnx))
    if name.startswith("litert"):
        from facejax.export.litert import KINDS, export_litert

        kind: Any = next((kind for kind in KINDS if name.endswith(kind)), "float32")
        check, calibration = faces, ()
        if kind == "int8":  # what is checked was not calibrated with
            check, calibration = faces[: len(faces) // 5 or 1], faces[len(faces) // 5 :]

        def export(network: Any, path: pathlib.Path, faces: Sequence["np.ndarray"]) -> dict[str, Any]:
            # The detector is a tenth of the size, and its small faces would lose most.
            of_detector = network.metadata["kind"] != "face"
            numbers = "float32" if of_detector else kind
            return export_litert(network, path, faces, kind=numbers, calibration=calibration)

        return _entries(export_bundle(models, folder, check, runtime="litert", suffix=".tflite", export=export))
    if name == "stablehlo":
        from facejax.export.network import face_network
        from facejax.export.stablehlo import export_stablehlo

        networks = [face_network(model, "shift") for model in models]
        return {f"{n.name}.stablehlo": export_stablehlo(n, folder / f"{n.name}.stablehlo", faces) for n in networks}
    from facejax.export.network import file_stem
    from facejax.weights.checkpoint import load_inference_checkpoint, save_inference_checkpoint

    for model in models:
        save_inference_checkpoint(folder / file_stem(model.cfg.name), model.variables, model.cfg)
        load_inference_checkpoint(folder / file_stem(model.cfg.name))
    return {file_stem(model.cfg.name): {"cfg": model.cfg.to_dict()} for model in models}


def _entries(manifest: dict[str, Any]) -> dict[str, Any]:
    entries = [manifest["detector"][name] for name in ("pnet", "rnet", "onet")] + manifest["models"]
    return {entry["file"]: entry for entry in entries}


def _words(metadata: dict[str, Any]) -> str:
    if "check" not in metadata:
        return "read again"
    check = metadata["check"]
    size = f"{metadata['bytes'] / 1e6:.2f} MB, " if "bytes" in metadata else ""
    largest = ", ".join(f"{name} {value:.2g}" for name, value in check["max_difference"].items())
    words = f"{size}largest difference from Flax on {check['faces']} faces: {largest}"
    if "agreement" in check:
        words += "; same class: " + ", ".join(f"{name} {value:.1%}" for name, value in check["agreement"].items())
    return words


def _faces_of(sources: Sequence[str], count: int) -> list["np.ndarray"]:
    """Crops of the first faces of photos; what cannot be read is left out."""
    from facejax.detect import MTCNN, crop_face
    from facejax.inference import read_image

    detector, crops = MTCNN(min_face=40), []
    for path in photos_of(sources):
        try:
            image = read_image(path)
        except (OSError, ValueError):
            continue
        found = detector.detect([image])[0]
        for box, points in zip(found.bboxes, found.landmarks, strict=True):
            crops.append(crop_face(image, box, points))
        if len(crops) >= count:
            break
    return crops[:count]


def _rendered_faces(count: int) -> list["np.ndarray"]:
    """Photos of the built-in set of rendered people, whose heads fill most of the frame."""
    from facejax.datasets.people.reader import People

    records = itertools.islice(People().records(None, num_train=count, num_validation=0), count)
    made: list[Any] = [record.image for record in records]
    return [image() for image in made]
