"""The page as a folder for any static host: the networks run in the browser, there is no server."""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from facejax.app.limits import Limits
from facejax.app.onnxruntime_web import copy_runtime
from facejax.app.page_files import CONFIG, PAGE, page_config
from facejax.export.bundle import export_bundle
from facejax.export.onnx import export_onnx
from facejax.inference import LoadedModel
from facejax.weights.folders import whole_folder

# Kernels that page/pixels.js has.
_KERNELS = ("bilinear",)


def write_site(
    models: Sequence[LoadedModel],
    directory: str | os.PathLike,
    faces: Sequence[np.ndarray],
    onnxruntime_web: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Writes the folder; returns the manifest of its bundle.

    Args:
        models: Networks with different tasks.
        directory: The folder; an older site there is replaced.
        faces: Crops, uint8 RGB of any size, on which the ONNX files are checked.
        onnxruntime_web: As `copy_runtime` takes it.

    Raises:
        ValueError: The page cannot resize as a network wants it.
        FileExistsError: The folder holds something else.
    """
    for model in models:
        kernel = model.cfg.preprocessing.interpolation
        if kernel not in _KERNELS:
            raise ValueError(
                f"{model.cfg.name} wants {kernel} resizing, the page in a browser has {' and '.join(_KERNELS)}; "
                "`facejax app` without --static serves it"
            )
    own = [path.name for path in PAGE.iterdir()]
    with whole_folder(pathlib.Path(directory), CONFIG, "engine", "onnxruntime", "bundle", *own) as folder:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        copy_runtime(folder / "onnxruntime", onnxruntime_web)
        manifest = export_bundle(models, folder / "bundle", faces, runtime="onnx", suffix=".onnx", export=export_onnx)
        config = page_config("browser", models, Limits())
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    return manifest
