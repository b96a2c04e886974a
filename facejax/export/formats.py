"""Every format by name: networks in, a folder with checked files, their metadata and their cards out."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facejax.export import FORMATS
from facejax.export.bundle import export_bundle, unique_stems
from facejax.export.litert import KINDS, Kind, export_litert
from facejax.export.network import Network
from facejax.export.onnx import export_onnx
from facejax.export.orbax import export_orbax
from facejax.export.stablehlo import export_stablehlo
from facejax.inference import LoadedModel
from facejax.naming import nearest


def export_models(
    models: Sequence[LoadedModel], directory: str | os.PathLike, format_: str, faces: Sequence[np.ndarray]
) -> Mapping[str, dict[str, Any]]:
    """Writes networks in one format, the detector beside them (but for ``orbax``, which facejax itself opens).

    Args:
        models: Networks; their files are named by `facejax.export.bundle.unique_stems`.
        directory: The folder; an older export there is replaced. Of ``orbax`` each network's own folder in it is, and
            those of other networks stay.
        format_: One of `FORMATS`.
        faces: Crops, uint8 RGB of any size, on which every file is compared with Flax before it is written. Of
            ``litert_int8`` the first fifth; with the others its ranges are calibrated.

    Returns:
        Metadata by file, each with its differences from Flax under ``check``.

    Raises:
        ImportError: A package is missing, with the command that installs it.
        ValueError: There is no such format, or a file would not compute what Flax does.
    """
    directory = pathlib.Path(directory)
    if format_ not in FORMATS:
        raise ValueError(f"no format {format_!r}{nearest(format_, FORMATS)}")
    if format_ == "orbax":
        stems = unique_stems(models)
        return {stem: export_orbax(model, directory / stem, faces) for stem, model in zip(stems, models, strict=True)}
    if format_ == "onnx":
        manifest = export_bundle(models, directory, faces, runtime="onnx", suffix=".onnx", export=export_onnx)
    elif format_ == "stablehlo":
        manifest = export_bundle(
            models,
            directory,
            faces,
            runtime="stablehlo",
            suffix=".stablehlo",
            export=export_stablehlo,
            depthwise="shift",
        )
    else:
        of_format: dict[str, Kind] = {f"litert_{kind}": kind for kind in KINDS}
        manifest = _export_litert(models, directory, of_format.get(format_, "float32"), faces)
    entries = [manifest["detector"][name] for name in ("pnet", "rnet", "onet")] + manifest["models"]
    return {entry["file"]: entry for entry in entries}


def _export_litert(
    models: Sequence[LoadedModel], directory: pathlib.Path, kind: Kind, faces: Sequence[np.ndarray]
) -> dict[str, Any]:
    # What is checked was not calibrated with.
    fifth = len(faces) // 5 or 1
    check, calibration = (faces[:fifth], faces[fifth:]) if kind == "int8" else (faces, ())

    def export(network: Network, path: pathlib.Path, faces: Sequence[np.ndarray]) -> dict[str, Any]:
        # The detector is a tenth of the size, and its small faces would lose most.
        numbers = kind if network.metadata["kind"] == "face" else "float32"
        return export_litert(network, path, faces, kind=numbers, calibration=calibration)

    return export_bundle(models, directory, check, runtime="litert", suffix=".tflite", export=export)
