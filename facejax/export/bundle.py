"""A bundle: a folder with everything that an app needs, networks, detector and ``manifest.json``."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facejax.cards.detector import detector_card
from facejax.cards.use import USE
from facejax.export.mtcnn import CASCADE, mtcnn_networks
from facejax.export.network import Network, face_network
from facejax.inference import LoadedModel
from facejax.models.depthwise import Implementation
from facejax.weights.folders import whole_folder

MANIFEST = "manifest.json"
FORMAT = 1

# Writes one file; returns its metadata (`facejax.export.onnx.export_onnx`, `facejax.export.litert.export_litert`).
Exporter = Callable[[Network, pathlib.Path, Sequence[np.ndarray]], dict[str, Any]]


def export_bundle(
    models: Sequence[LoadedModel],
    directory: str | os.PathLike,
    faces: Sequence[np.ndarray],
    *,
    runtime: str,
    suffix: str,
    export: Exporter,
    depthwise: Implementation = "conv",
) -> dict[str, Any]:
    """Writes a bundle; returns its manifest.

    ``manifest.json`` has ``format``, ``runtime``, ``use``, ``detector`` (``pnet``, ``rnet``, ``onet``, and ``cascade``:
    the numbers of the program around them) and ``models``, a list. Each network is ``{"file", "sha256", "bytes", ...}``
    and the metadata that its file also carries. Of each network the model card lies beside it (``card``).

    Args:
        models: Networks with different names.
        directory: The folder; an older bundle there is replaced.
        faces: Crops, uint8 RGB of any size, on which every file is checked.
        runtime: ``onnx``, ``litert`` or ``stablehlo``, for the manifest.
        suffix: Of the files.
        export: Writes one file.
        depthwise: As of `facejax.export.network.face_network`.
    """
    networks = [face_network(model, depthwise) for model in models]
    names = [network.name for network in networks]
    if len(set(names)) < len(names):
        raise ValueError(f"expected networks with different names, got {names}")
    with whole_folder(pathlib.Path(directory), MANIFEST) as folder:
        detector = {}
        for network in mtcnn_networks():
            detector[network.name] = _entry(network, folder, suffix, export, faces)
        (folder / "mtcnn.md").write_text(detector_card(), encoding="utf-8")
        for network, model in zip(networks, models, strict=True):
            network.metadata["card"] = f"{network.name}.md"
            (folder / network.metadata["card"]).write_text(model.card, encoding="utf-8")
        manifest = {
            "format": FORMAT,
            "runtime": runtime,
            "use": USE,
            "detector": {**detector, "cascade": CASCADE},
            "models": [_entry(network, folder, suffix, export, faces) for network in networks],
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def _entry(network: Network, folder: pathlib.Path, suffix: str, export: Exporter, faces: Sequence[np.ndarray]) -> dict:
    path = folder / f"{network.name}{suffix}"
    metadata = export(network, path, faces)
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **metadata}
