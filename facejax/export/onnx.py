"""Exports to ONNX: one file per network, dynamic batch, checked in onnxruntime on faces before it is written."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from facejax.atomic import write_atomically
from facejax.export import check_packages
from facejax.export.network import INPUT, Network, compare, require_parity

# Opset 21 and IR 10 run in onnxruntime (and onnxruntime-web) 1.18 and newer.
OPSET, IR_VERSION = 21, 10
METADATA_KEY = "facejax"


def export_onnx(network: Network, path: str | os.PathLike, faces: Sequence[np.ndarray]) -> dict[str, Any]:
    """Writes an ONNX file; returns its metadata, with the differences from Flax under ``check``.

    Args:
        network: The network to export.
        path: The file to write.
        faces: Crops, uint8 RGB of any size, on which onnxruntime must agree with Flax.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
        ValueError: The outputs of the file differ from those of Flax; nothing is written.
        NotImplementedError: There is no conversion rule for a layer.
    """
    model = convert(network)
    session = start_session(model.SerializeToString())
    check = compare(network, lambda images: run_session(session, images), faces)
    require_parity(network, check)
    metadata = {**network.metadata, "licence": network.licence, "check": check}
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(metadata)
    write_atomically(pathlib.Path(path), model.SerializeToString())
    return metadata


def convert(network: Network) -> Any:
    """The network as an `onnx.ModelProto`, unchecked and without metadata.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
    """
    check_packages("onnx")
    import onnx
    from onnx import helper

    from facejax.export.onnx_graph import Graph, constant
    from facejax.export.onnx_lowering import lower

    shape = tuple(jax.export.symbolic_shape(", ".join(map(str, network.axes))))
    traced = jax.make_jaxpr(network.function)(jax.ShapeDtypeStruct(shape, network.dtype))
    graph = Graph()
    # Channels first from the start: onnxruntime normalises NCHW images ten times as fast as NHWC.
    image = graph.channels_first(graph.tensor(INPUT, shape, np.dtype(network.dtype)))
    values = lower(graph, traced.jaxpr, [constant(np.asarray(c)) for c in traced.consts], [image])
    outputs = []
    for name, value in zip(network.outputs, values, strict=True):
        graph.output(name, value)
        sides = [side if isinstance(side, int) else str(side) for side in value.shape]
        outputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), sides))
    element = helper.np_dtype_to_tensor_dtype(np.dtype(network.dtype))
    body = graph.finish(network.name, [helper.make_tensor_value_info(INPUT, element, network.axes)], outputs)
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="facejax",
        doc_string=f"{network.name}; licence of the weights: {network.licence or 'none stated'}",
    )
    onnx.checker.check_model(model)
    return model


def start_session(model: bytes | str | os.PathLike, threads: int = 0) -> Any:
    """An onnxruntime CPU session for a file or its bytes; `threads` 0 means one per core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """All outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that `export_onnx` stored in a file.

    Raises:
        ValueError: The file was not exported by facejax.
    """
    data = pathlib.Path(path).read_bytes()
    try:
        properties = start_session(data).get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime has many exception types of its own
        raise ValueError(f"{path} is not an ONNX file that onnxruntime can open: {error}") from error
    if METADATA_KEY not in properties:
        raise ValueError(f"{path} has no facejax metadata; its keys: {sorted(properties)}")
    return json.loads(properties[METADATA_KEY])
