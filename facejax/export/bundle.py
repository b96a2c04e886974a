"""Bundles: folders with everything an app needs: the networks, the detector and ``manifest.json``."""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facejax.cards.detector import detector_card
from facejax.cards.use import USE
from facejax.export.mtcnn import CASCADE, mtcnn_networks
from facejax.export.network import Network, face_network, file_stem
from facejax.inference import LoadedModel
from facejax.models.depthwise import Implementation
from facejax.weights.folders import atomic_folder

MANIFEST = "manifest.json"
_DETECTOR_CARD = "mtcnn.md"
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

    ``manifest.json`` has ``format``, ``runtime``, ``use``, ``detector`` (``pnet``, ``rnet``, ``onet``, and ``cascade``,
    the parameters of the code around them) and ``models``, a list. Each network is ``{"file", "sha256", "bytes", ...}``
    plus the metadata that its file also contains. The model card of each network is next to it (``card``).

    Args:
        models: Networks; their files are named by `unique_stems`.
        directory: Output folder; an older bundle in it is replaced.
        faces: Crops, uint8 RGB of any size, on which every file is checked.
        runtime: ``onnx``, ``litert`` or ``stablehlo``, for the manifest.
        suffix: Suffix of the files.
        export: Function that writes one file.
        depthwise: As in `facejax.export.network.face_network`.

    Raises:
        FileExistsError: The folder contains something else.
    """
    stems = unique_stems(models)
    networks = [
        dataclasses.replace(face_network(model, depthwise), name=stem)
        for model, stem in zip(models, stems, strict=True)
    ]
    with atomic_folder(pathlib.Path(directory), MANIFEST, "detector", *_files_of(directory)) as folder:
        detector = {}
        for network in mtcnn_networks():
            detector[network.name] = _entry(network, folder, suffix, export, faces)
        (folder / _DETECTOR_CARD).write_text(detector_card(), encoding="utf-8")
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


def _files_of(directory: str | os.PathLike) -> list[str]:
    """Names of the files of a bundle in the folder, except its manifest; empty if there is no bundle."""
    try:
        manifest = json.loads((pathlib.Path(directory) / MANIFEST).read_bytes())
        networks = [*manifest["models"], *(entry for entry in manifest["detector"].values() if "file" in entry)]
        files = [entry["file"] for entry in networks]
        cards = [_DETECTOR_CARD, *(entry["card"] for entry in manifest["models"])]
        return [*files, *(f"{file}.json" for file in files), *cards]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # `atomic_folder` then decides what to do with it
        return []


def unique_stems(models: Sequence[LoadedModel]) -> list[str]:
    """A unique file name without suffix for each network.

    It is the name of the weights, which for networks trained here is just the architecture. Where several networks
    share a name, the tasks are appended (``mobilenet_v1_age_gender``), and a number from 2 if that is taken too.
    """
    names = [file_stem(model.cfg.name) for model in models]
    stems = []
    for model, name in zip(models, names, strict=True):
        stem = "_".join((name, *model.cfg.tasks)) if names.count(name) > 1 else name
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        while stem in stems:
            stem = next(numbered)
        stems.append(stem)
    return stems


def _entry(network: Network, folder: pathlib.Path, suffix: str, export: Exporter, faces: Sequence[np.ndarray]) -> dict:
    path = folder / f"{network.name}{suffix}"
    metadata = export(network, path, faces)
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), **metadata}
