"""What determines the bytes of a prepared dataset: photos, settings and code. Resuming requires all three to match."""

import functools
import hashlib
import importlib.metadata
import inspect
import pathlib
from collections.abc import Mapping
from typing import Any

from facejax.datasets.crops import CropSettings
from facejax.datasets.registry import Dataset
from facejax.datasets.survey import Survey

FORMAT = 3  # incremented when the same photos and settings start to give different bytes
_OWN_CODE = (
    "data/decode.py",
    "data/example.py",
    "data/metadata.py",
    "datasets/crops.py",
    "detect/align.py",
    "detect/boxes.py",
)
_LIBRARIES = ("numpy", "opencv-python-headless", "simplejpeg")
_DETECTOR_LIBRARIES = ("jax", "jaxlib")


def make_plan(
    reader: Dataset,
    settings: CropSettings,
    options: Mapping[str, object],
    found: Survey,
    num_shards: int | None,
    detector: object | None,
) -> dict[str, Any]:
    """Photos and settings of a preparation, as JSON values; stored in ``summary.json``.

    A complete dataset was prepared as requested if the plans are equal, whatever the code was.
    """
    return {
        "format": FORMAT,
        "name": reader.name,
        "photos": dict(found.photos),
        "records": found.digest,
        "options": {key: str(value) for key, value in options.items()},
        **({"edition": reader.edition} if found.made else {}),
        "num_shards": num_shards,
        "detector": describe_detector(detector) if settings.crop == "mtcnn" else None,
        **vars(settings),
    }


def describe_detector(detector: object) -> str:
    """Class and settings of a detector, the same in every process."""
    # Not repr(): the default one contains an address, which differs from run to run.
    settings = {key: value for key, value in vars(detector).items() if not key.startswith("_")}
    # 20 and 20.0 are the same setting
    words = (
        f"{key}={value:g}" if isinstance(value, int | float) else f"{key}={value!r}" for key, value in settings.items()
    )
    return f"{type(detector).__name__}({', '.join(sorted(words))})"


def code_versions(reader: Dataset, detector: object | None) -> dict[str, str]:
    """Versions of the code that turns photos into stored crops: hashes of source files, versions of libraries.

    A preparation begun by different code is not resumed: its crops would be a mixture of two versions.

    Args:
        reader: Its module is hashed, or its package if it has one of its own.
        detector: Its module or package is hashed, and the libraries that it computes with are added; None if unused.
    """
    package = pathlib.Path(__file__).parents[1]
    code = {"crops": _hash_files([package / name for name in _OWN_CODE]), "reader": _hash_of(type(reader))}
    libraries = _LIBRARIES
    if detector is not None:
        code["detector"] = _hash_of(type(detector))
        libraries += _DETECTOR_LIBRARIES
    code |= {name: _version(name) for name in libraries}
    return {f"code of {part}": version for part, version in code.items()}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _hash_of(kind: type) -> str:
    source = pathlib.Path(inspect.getfile(kind))
    alone = kind.__module__.rpartition(".")[0] in ("", __package__)
    return _hash_files([source] if alone else sorted(source.parent.glob("*.py")))


def _hash_files(paths: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
