"""Exports networks to any format by name: writes a folder with checked files, their metadata and model cards."""

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
from facejax.naming import did_you_mean


def export_models(
    models: Sequence[LoadedModel], directory: str | os.PathLike, format_: str, faces: Sequence[np.ndarray]
) -> Mapping[str, dict[str, Any]]:
    """Writes networks in one format, together with the detector (except ``orbax``, which facejax itself loads).

    Args:
        models: Networks; their files are named by `facejax.export.bundle.unique_stems`.
        directory: Output folder; an older export in it is replaced. For ``orbax``, only the subfolders of the given
            networks are replaced.
        format_: One of `FORMATS`.
        faces: Crops, uint8 RGB of any size, on which every file is compared with Flax before it is written. For
            ``litert_int8`` only the first fifth is; the others calibrate its ranges.

    Returns:
        File -> metadata, which has the differences from Flax under ``check``.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
        ValueError: There is no such format, or the outputs of a file differ from those of Flax.
    """
    directory = pathlib.Path(directory)
    if format_ not in FORMATS:
        raise ValueError(f"no format {format_!r}{did_you_mean(format_, FORMATS)}")
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
    # The faces that are checked are not used for calibration.
    fifth = len(faces) // 5 or 1
    check, calibration = (faces[:fifth], faces[fifth:]) if kind == "int8" else (faces, ())

    def export(network: Network, path: pathlib.Path, faces: Sequence[np.ndarray]) -> dict[str, Any]:
        # The detector is a tenth of the size, and its accuracy on small faces would suffer most.
        numbers = kind if network.metadata["kind"] == "face" else "float32"
        return export_litert(network, path, faces, kind=numbers, calibration=calibration)

    return export_bundle(models, directory, check, runtime="litert", suffix=".tflite", export=export)
