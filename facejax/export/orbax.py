"""Exports to Orbax: folders for `facejax.load_model`, written only after a trial copy was read back and compared."""

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from facejax.export.network import compare, face_network, require_parity
from facejax.inference import LoadedModel, load_model
from facejax.weights.checkpoint import save_inference_checkpoint


def export_orbax(model: LoadedModel, directory: str | os.PathLike, faces: Sequence[np.ndarray]) -> dict[str, Any]:
    """Writes ``checkpoint``, ``model.json`` and ``MODEL_CARD.md``; returns the metadata with ``check`` and ``bytes``.

    Args:
        model: The model to export.
        directory: Output folder; an older checkpoint in it is replaced.
        faces: Crops, uint8 RGB of any size, on which the model read back must agree with `model`.

    Raises:
        ValueError: They do not agree; nothing is written.
        FileExistsError: The folder contains something else.
    """
    directory = pathlib.Path(directory).absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    network = face_network(model)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as folder:
        trial = pathlib.Path(folder) / "trial"
        save_inference_checkpoint(trial, model.variables, model.cfg, model.card)
        check = compare(network, face_network(load_model(trial)).reference, faces)
        require_parity(network, check)
    save_inference_checkpoint(directory, model.variables, model.cfg, model.card)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return {**network.metadata, "licence": network.licence, "check": check, "bytes": size}
