"""Writes the page as a static site, in which the networks run in the browser without a server."""

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
from facejax.weights.folders import atomic_folder

# Interpolation kernels implemented in page/pixels.js.
_KERNELS = ("bilinear",)


def write_site(
    models: Sequence[LoadedModel],
    directory: str | os.PathLike,
    faces: Sequence[np.ndarray],
    onnxruntime_web: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Writes the site; returns the manifest of its bundle.

    Args:
        models: Networks with different tasks.
        directory: Output folder; an older site in it is replaced.
        faces: Crops, uint8 RGB of any size, on which the ONNX files are checked.
        onnxruntime_web: As `package` of `copy_runtime`.

    Raises:
        ValueError: The page does not support the interpolation that a network needs.
        FileExistsError: The folder contains something else.
    """
    for model in models:
        kernel = model.cfg.preprocessing.interpolation
        if kernel not in _KERNELS:
            raise ValueError(
                f"{model.cfg.name} needs {kernel} resizing, but a static site only has {' and '.join(_KERNELS)}; "
                "use `facejax app` without --static"
            )
    own = [path.name for path in PAGE.iterdir()]
    with atomic_folder(pathlib.Path(directory), CONFIG, "engine", "onnxruntime", "bundle", *own) as folder:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        copy_runtime(folder / "onnxruntime", onnxruntime_web)
        manifest = export_bundle(models, folder / "bundle", faces, runtime="onnx", suffix=".onnx", export=export_onnx)
        config = page_config("browser", models, Limits())
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    return manifest
