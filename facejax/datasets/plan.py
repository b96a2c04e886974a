"""What decides the bytes of a prepared set: photos, settings and code. A continuation must agree in all three."""

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

FORMAT = 3  # raised when the same photos and settings begin to give other bytes
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
    """Photos and settings of a preparation, as JSON values; ``summary.json`` keeps it.

    A set that is whole was prepared as asked for if the plan is the same, whatever the code was.
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
    # Not its repr: object's own holds an address, which differs from run to run.
    settings = {key: value for key, value in vars(detector).items() if not key.startswith("_")}
    # 20 and 20.0 are one setting
    words = (
        f"{key}={value:g}" if isinstance(value, int | float) else f"{key}={value!r}" for key, value in settings.items()
    )
    return f"{type(detector).__name__}({', '.join(sorted(words))})"


def code_of(reader: Dataset, detector: object | None) -> dict[str, str]:
    """Versions of what turns photos into stored crops: hashes of source files, versions of libraries.

    What was begun by other code is not continued: half of the set's crops would be cut by the one, half by the other.

    Args:
        reader: Its module, or package where it makes the photos.
        detector: Its module or package, and the libraries that it computes with; None where there is none.
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
