"""Exports to StableHLO by `jax.export`, for any later JAX or other StableHLO runtimes, with any batch size except 0.

An earlier JAX may not know all operations: files written by 0.12 cannot be read by 0.10.2.

The format has no place for metadata, which is written to ``NAME.stablehlo.json`` next to ``NAME.stablehlo``.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from facejax.atomic import write_atomically
from facejax.export import check_packages
from facejax.export.mtcnn import CASCADE
from facejax.export.network import Network, compare, require_parity

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_stablehlo(network: Network, path: str | os.PathLike, faces: Sequence[np.ndarray]) -> dict[str, Any]:
    """Writes the two files; returns the metadata, with the differences from Flax under ``check``.

    Args:
        network: The network to export; face networks should use ``depthwise="shift"``, which is fast on CPU.
        path: The file to write, ending in ``.stablehlo``.
        faces: Crops, uint8 RGB of any size, on which the file must agree with Flax.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
        ValueError: The outputs of the file differ from those of Flax; nothing is written.
    """
    check_packages("stablehlo")
    # P-Net takes images of any size that is at least its window.
    least = [f"{name} >= {CASCADE['window']}" for name in ("height", "width") if name in network.axes]
    shape = jax.export.symbolic_shape(", ".join(map(str, network.axes)), constraints=least)
    traced = jax.export.export(jax.jit(network.function), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, network.dtype)
    )
    data = bytes(traced.serialize())
    check = compare(network, _runner(jax.export.deserialize(bytearray(data)), network.outputs), faces)
    require_parity(network, check)
    written_by = {"jax": jax.__version__, "platforms": PLATFORMS}
    metadata = {**network.metadata, **written_by, "licence": network.licence, "check": check}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path.with_name(f"{path.name}.json"), (json.dumps(metadata, indent=1) + "\n").encode())
    write_atomically(path, data)
    return metadata


def load_stablehlo(path: str | os.PathLike) -> tuple[Callable[[np.ndarray], Mapping[str, np.ndarray]], dict[str, Any]]:
    """Returns a function from one or more images (the metadata's ``input``) to arrays by output; and the metadata.

    Raises:
        FileNotFoundError: The file or its metadata does not exist.
        ValueError: The file is damaged, or was written by a JAX with operations that this one does not know.
    """
    path = pathlib.Path(path)
    metadata, data = json.loads(path.with_name(f"{path.name}.json").read_text()), path.read_bytes()
    try:
        exported = jax.export.deserialize(bytearray(data))
        exported.mlir_module()  # otherwise only parsed on the first call
    except Exception as error:  # struct.error, ValueError or one of JAX's own
        raise ValueError(
            f"JAX {jax.__version__} cannot read {path}, written by JAX {metadata.get('jax', '(unknown version)')}: "
            f"use that version or a later one, unless the file is damaged ({error})"
        ) from error
    return _runner(exported, tuple(metadata["outputs"])), metadata


def _runner(exported: jax.export.Exported, outputs: Sequence[str]) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    call = jax.jit(exported.call)  # without jit it is retraced on every call
    return lambda images: {name: np.asarray(value) for name, value in zip(outputs, call(images), strict=True)}
