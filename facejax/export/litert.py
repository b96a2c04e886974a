"""Exports to LiteRT (TensorFlow Lite) for phones, without TensorFlow: litert-converter and ai-edge-quantizer.

The batch size is 1, which suits LiteRT's CPU kernels: a file with a variable batch runs 30 times slower. Kinds:
``float32``; ``float16``, weights of half the size; ``int8``, convolutions with 8-bit weights and activations, whose
ranges are measured on calibration faces. P-Net's input may be resized (``resize_tensor_input``) to any even sides.
"""

import contextlib
import importlib
import io
import json
import os
import pathlib
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from facejax.atomic import write_atomically
from facejax.export import check_packages
from facejax.export.litert_flatbuffer import METADATA_NAME, with_metadata, without_dead_channels
from facejax.export.network import INPUT, Network, compare, require_parity

Kind = Literal["float32", "float16", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "float16", "int8")
SIGNATURE = "serving_default"
# The heads, probabilities and ages stay in floating point: they cost next to nothing and would lose most.
_IN_8_BITS = ("CONV_2D", "DEPTHWISE_CONV_2D")
# The quantizer reports to standard output, which may carry JSON (facejax export --json).
_SILENT: dict[str, Any] = {"enable_progress_bar": False, "enable_progress_report": False}
# Default side of P-Net's input; apps may resize it.
_PNET_SIDE = 256


def export_litert(
    network: Network,
    path: str | os.PathLike,
    faces: Sequence[np.ndarray],
    *,
    kind: Kind = "float32",
    calibration: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """Writes a ``.tflite`` file; returns its metadata, with the differences from Flax under ``check``.

    A float32 file must match Flax. For the smaller kinds, the largest and mean differences are reported, and for each
    task the fraction of faces whose most probable class is the same (``agreement``).

    Args:
        network: The network to export.
        path: The file to write.
        faces: Crops, uint8 RGB of any size, on which LiteRT is compared with Flax.
        kind: Numeric type, one of `KINDS`.
        calibration: Crops for ``int8``, other than `faces`: about a hundred, typical of the intended use.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
        ValueError: The outputs of a float32 file differ from those of Flax, or int8 lacks calibration faces; nothing
            is written.
    """
    if kind not in KINDS:
        raise ValueError(f"expected kind {' or '.join(KINDS)}, got {kind!r}")
    if kind == "int8" and not len(calibration):
        raise ValueError("int8 needs calibration faces: about a hundred crops, typical of the intended use")
    data = convert(network)
    if kind != "float32":
        data = _quantized(data, network, kind, calibration)
    check = compare(network, lambda images: run(data, images), faces)
    if kind == "float32":
        require_parity(network, check)
    else:
        check["agreement"] = _agreement(network, data, faces)
    metadata = {**network.metadata, "numbers": kind, "licence": network.licence, "check": check}
    metadata["input"] = {**network.metadata["input"], "shape": [1, *network.metadata["input"]["shape"][1:]]}
    write_atomically(pathlib.Path(path), with_metadata(data, metadata))
    return metadata


def convert(network: Network) -> bytes:
    """The network as a float32 flatbuffer with batch size 1, without metadata.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
    """
    check_packages("litert")
    # Compiled modules without type annotations.
    ir: Any = importlib.import_module("litert_converter.mlir.ir")
    passmanager: Any = importlib.import_module("litert_converter.mlir.passmanager")
    converter: Any = importlib.import_module("litert_converter.mlir._mlir_libs.converter_api_ext")
    shape = (1, *(_PNET_SIDE if side is None else side for side in network.shape))
    lowered = (
        jax.jit(network.function).trace(jax.ShapeDtypeStruct(shape, network.dtype)).lower(lowering_platforms=("cpu",))
    )
    lowered_module: Any = lowered.compiler_ir("stablehlo")
    text = lowered_module.operation.get_asm(large_elements_limit=None, enable_debug_info=False)
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(text)
        converter.set_signature(
            module.operation, signature_name=SIGNATURE, input_names=[INPUT], output_names=list(network.outputs)
        )
        converter.run_convert_to_tfl_passes(module, passmanager.PassManager(), converter.ConvertToTFLConfig())
        return converter.export_flatbuffer_to_bytes(module.operation)


def run(model: bytes | str | os.PathLike, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Outputs by name for a batch of images, one call per image."""
    return start(model, images.shape[1:])(images)


def start(
    model: bytes | str | os.PathLike, shape: Sequence[int | None]
) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """Opens a file; returns a function from images of one shape (height, width, channels) to outputs by name.

    Raises:
        ImportError: A package is missing; the message has the command that installs it.
        ValueError: LiteRT rejects the file.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(f"running LiteRT files needs {error.name}: pip install 'facejax[litert]'") from error
    source: dict[str, Any] = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    interpreter = Interpreter(**source, num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    if tuple(interpreter.get_input_details()[0]["shape"][1:]) != tuple(shape):
        interpreter.resize_tensor_input(index, [1, *shape])
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:  # e.g. an 8-bit layer that is 0 on all calibration faces
        raise ValueError(f"LiteRT cannot run this network: {error}") from error
    runner = interpreter.get_signature_runner(SIGNATURE)

    def run_images(images: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = [runner(**{INPUT: image[None]}) for image in images]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return run_images


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that `export_litert` stored in a file.

    Raises:
        ValueError: The file was not exported by facejax.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model: Any = schema.ModelT.InitFromPackedBuf(pathlib.Path(path).read_bytes(), 0)
    except (struct.error, IndexError, TypeError, ValueError) as error:  # invalid offsets
        raise ValueError(f"{path} is not a LiteRT file: {error}") from error
    for entry in model.metadata or ():
        if entry.name == METADATA_NAME.encode():
            return json.loads(bytes(model.buffers[entry.buffer].data))
    raise ValueError(f"{path} has no facejax metadata")


def _quantized(data: bytes, network: Network, kind: Kind, calibration: Sequence[np.ndarray]) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    # The quantizer reads and writes files, and shows progress bars even when told not to.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        source = pathlib.Path(folder) / "float32.tflite"
        source.write_bytes(data)
        if kind == "float16":
            quantizing = quantizer.Quantizer(str(source))
            quantizing.add_weight_only_config(
                ".*",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                num_bits=16,
                granularity=qtyping.QuantGranularity.TENSORWISE,
                algorithm_key="float_casting",
            )
            return bytes(quantizing.quantize(**_SILENT).quantized_model or b"")

        def in_8_bits() -> quantizer.Quantizer:
            quantizing = quantizer.Quantizer(str(source))
            for operation in _IN_8_BITS:
                quantizing.add_static_config(
                    ".*", qtyping.TFLOperationName(operation), activation_num_bits=8, weight_num_bits=8
                )
            return quantizing

        samples = [{INPUT: image[None]} for image in network.prepare(calibration)]
        measured = in_8_bits().calibrate({SIGNATURE: samples})
        ranges = {name: (float(np.min(at["min"])), float(np.max(at["max"]))) for name, at in measured.items() if at}
        source.write_bytes(without_dead_channels(data, ranges))
        return bytes(in_8_bits().quantize(measured, **_SILENT).quantized_model or b"")


def _agreement(network: Network, data: bytes, faces: Sequence[np.ndarray]) -> dict[str, float]:
    """For each output with classes, the fraction of faces whose most probable class is the same as Flax's."""
    images = network.prepare(faces)
    expected, got = network.reference(images), run(data, images)
    described = network.metadata["outputs"]
    tasks = [
        name
        for name in network.outputs
        if isinstance(described, dict) and described[name]["meaning"] == "probabilities"
    ]
    return {name: float((got[name].argmax(axis=1) == expected[name].argmax(axis=1)).mean()) for name in tasks}
