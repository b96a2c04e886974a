"""Reports devices, versions, installed extras, prepared datasets and trained models, and how to fix problems."""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import pathlib
import platform
import sys
from typing import Any

from facejax.cli import DONE, FAILED
from facejax.cli.options import add_output_options
from facejax.export import described
from facejax.weights.cache import cache_dir

_PACKAGES = (
    "facejax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "scikit-learn",
    "scipy",
    "opencv-python-headless",
    "simplejpeg",
    "matplotlib",
    "google-crc32c",
    "protobuf",
    "jaxtyping",
    "tensorboardX",
    "mtcnn",
    "lz4",
    "pyarrow",
    "skops",
)
_EXTRAS = {
    "app": ("starlette", "uvicorn"),
    "beam": ("apache_beam",),
    "convert": ("safetensors", "h5py", "onnx"),
    "export": ("onnx", "onnxruntime", "flatbuffers"),
    "litert": ("ai_edge_litert", "ai_edge_quantizer", "litert_converter", "flatbuffers"),
    "tables": ("pandas",),
}


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "doctor", help="check the installation, devices, datasets and models", description=__doc__
    )
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("data"), help="folder of prepared datasets")
    parser.add_argument("--workdirs", type=pathlib.Path, default=pathlib.Path("workdirs"), help="folder of runs")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit status: 1 if something required is missing."""
    report = examine(args.data, args.workdirs)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        for name, value in report.items():
            if isinstance(value, dict):
                print(f"{name}:", *(f"  {key:<23}{entry}" for key, entry in value.items()), sep="\n")
            else:
                print(f"{name}: {(', '.join(value) if isinstance(value, list) else value) or 'none'}")
    return FAILED if report["problems"] else DONE


def examine(data: pathlib.Path, workdirs: pathlib.Path) -> dict[str, Any]:
    """Returns a JSON-serialisable report; ``problems`` lists what is required but missing, with the fix."""
    problems, versions = [], {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name == "facejax":  # it runs from a checkout without being installed
                versions[name] = "not installed"
            else:
                problems.append(f"{name} is missing: pip install facejax")
    extras = {
        name: "installed"
        if not (missing := [m for m in modules if importlib.util.find_spec(m) is None])
        else f"missing {', '.join(map(described, missing))}: pip install 'facejax[{name}]'"
        for name, modules in _EXTRAS.items()
    }
    try:
        # Without NumPy, OpenCV prints a message to standard output, which may carry JSON.
        with contextlib.redirect_stdout(sys.stderr):
            from facejax.detect import weights

        for network in ("pnet", "rnet", "onet"):
            weights.load(network)
        detector = "weights complete"
    except (FileNotFoundError, ImportError, ValueError) as error:
        detector = "unusable"
        problems.append(str(error))
    devices = []
    try:
        import jax

        devices = [str(device) for device in jax.devices()]
    except Exception as error:  # plugins may raise anything
        problems.append(f"JAX finds no device ({error!r}): check JAX_PLATFORMS and the driver")
    return {
        "python": platform.python_version(),
        "packages": versions,
        "devices": devices,
        "extras": extras,
        "detector": detector,
        "prepared sets": sorted(path.parent.parent.name for path in data.glob("*/*/dataset_info.json")),
        "trained models": sorted(str(path.parent) for path in workdirs.glob("*/*/model.json")),
        "fetched weights": sorted(path.parent.name for path in cache_dir().glob("*/converted")),
        "problems": problems,
    }
