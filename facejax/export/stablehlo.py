"""StableHLO by `jax.export`: one file that any later JAX, or another StableHLO runtime, runs with any batch size but 0.

An earlier JAX may not know its operations: what 0.12 writes 0.10.2 cannot read.

Beside ``NAME.stablehlo`` lies ``NAME.stablehlo.json`` with the metadata, as the format has no place for it.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from facejax.atomic import write_atomically
from facejax.export.mtcnn import CASCADE
from facejax.export.network import Network, compare, require_parity

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export_stablehlo(network: Network, path: str | os.PathLike, faces: Sequence[np.ndarray]) -> dict[str, Any]:
    """Writes the two files; returns the metadata, with the differences from Flax under ``check``.

    Args:
        network: What to export; a face network made with ``depthwise="shift"``, which is fast on CPU.
        path: The file, ending in ``.stablehlo``.
        faces: Crops, uint8 RGB of any size, on which the file must agree with Flax.

    Raises:
        ValueError: The file would not compute what Flax does; nothing is written.
    """
    free = iter(("height", "width"))
    symbols = ["batch", *(next(free) if side is None else side for side in network.shape)]
    # P-Net takes images of any size from its window on.
    least = [f"{name} >= {CASCADE['window']}" for name in ("height", "width") if name in symbols]
    shape = jax.export.symbolic_shape(", ".join(map(str, symbols)), constraints=least)
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
    """A function from images of the metadata's ``input`` (one or more) to arrays by output; and the metadata.

    Raises:
        FileNotFoundError: The file or its metadata is not there.
        ValueError: The file is damaged, or of a JAX whose operations this one does not know.
    """
    path = pathlib.Path(path)
    metadata, data = json.loads(path.with_name(f"{path.name}.json").read_text()), path.read_bytes()
    try:
        exported = jax.export.deserialize(bytearray(data))
        exported.mlir_module()  # otherwise first read when it is called
    except Exception as error:  # struct's, ValueError, JAX's own
        raise ValueError(
            f"JAX {jax.__version__} cannot read {path}, written by {metadata.get('jax', 'an unknown one')}: "
            f"it takes that one or a later one, or the file is damaged ({error})"
        ) from error
    return _runner(exported, tuple(metadata["outputs"])), metadata


def _runner(exported: jax.export.Exported, outputs: Sequence[str]) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    call = jax.jit(exported.call)  # alone it traces anew each time
    return lambda images: {name: np.asarray(value) for name, value in zip(outputs, call(images), strict=True)}
