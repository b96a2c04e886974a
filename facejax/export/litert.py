"""LiteRT (TensorFlow Lite) files for phones, made without TensorFlow by litert-converter and ai-edge-quantizer.

One image a call, which is what LiteRT's CPU kernels want: a file with a variable batch runs 30 times slower. Kinds:
``float32``; ``float16``, weights of half the size; ``int8``, weights and layers in 8 bits, with the ranges of
values measured on calibration faces. P-Net's image may be resized (``resize_tensor_input``) to any even sides.
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
from facejax.export.litert_flatbuffer import METADATA_NAME, with_metadata, without_dead_channels
from facejax.export.network import INPUT, Network, compare, require_parity

Kind = Literal["float32", "float16", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "float16", "int8")
SIGNATURE = "serving_default"
# The heads, probabilities and ages stay in floating point: they cost nothing and lose most.
_IN_8_BITS = ("CONV_2D", "DEPTHWISE_CONV_2D")
# Its reports go to standard output, which may be a programme's (facejax export --json).
_SILENT: dict[str, Any] = {"enable_progress_bar": False, "enable_progress_report": False}
# Side of P-Net's image until the app asks for another.
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

    A float32 file must equal Flax; of the smaller kinds the differences are reported, largest and mean, and by task the
    part of the faces whose most probable class is the same (``agreement``).

    Args:
        network: What to export.
        path: The file.
        faces: Crops, uint8 RGB of any size, on which LiteRT is compared with Flax.
        kind: Numbers that it computes with.
        calibration: Crops for ``int8``, others than `faces`: some hundred of what it will see.

    Raises:
        ImportError: A package is missing, with the command that installs it.
        ValueError: A float32 file would not compute what Flax does, or int8 lacks calibration faces; nothing is
            written.
    """
    if kind not in KINDS:
        raise ValueError(f"expected kind {' or '.join(KINDS)}, got {kind!r}")
    if kind == "int8" and not len(calibration):
        raise ValueError("int8 needs calibration faces: some hundred crops of what it will see")
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
    """The network as a float32 flatbuffer for one image, without metadata.

    Raises:
        ImportError: A package is missing, with the command that installs it.
    """
    try:
        # Compiled modules without types.
        ir: Any = importlib.import_module("litert_converter.mlir.ir")
        passmanager: Any = importlib.import_module("litert_converter.mlir.passmanager")
        converter: Any = importlib.import_module("litert_converter.mlir._mlir_libs.converter_api_ext")
    except ImportError as error:
        raise ImportError(f"exports to LiteRT need {error.name}: pip install 'facejax[litert]'") from error
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
    """Outputs by name for a batch of images, one call each."""
    return start(model, images.shape[1:])(images)


def start(
    model: bytes | str | os.PathLike, shape: Sequence[int | None]
) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """A function from images of one shape (height, width, channels) to outputs by name; the file is opened once.

    Raises:
        ImportError: A package is missing, with the command that installs it.
        ValueError: LiteRT refuses the file.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(f"LiteRT files are run by {error.name}: pip install 'facejax[litert]'") from error
    source: dict[str, Any] = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    interpreter = Interpreter(**source, num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    if tuple(interpreter.get_input_details()[0]["shape"][1:]) != tuple(shape):
        interpreter.resize_tensor_input(index, [1, *shape])
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:  # of a layer in 8 bits that is 0 on all calibration faces, say
        raise ValueError(f"LiteRT cannot run this network: {error}") from error
    runner = interpreter.get_signature_runner(SIGNATURE)

    def run_images(images: np.ndarray) -> Mapping[str, np.ndarray]:
        rows = [runner(**{INPUT: image[None]}) for image in images]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return run_images


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """What `export_litert` wrote into a file beside the network.

    Raises:
        ValueError: The file is no export of facejax.
    """
    from litert_converter import schema_py_generated as schema

    try:
        model: Any = schema.ModelT.InitFromPackedBuf(pathlib.Path(path).read_bytes(), 0)
    except (struct.error, IndexError, TypeError, ValueError) as error:  # offsets that lead anywhere
        raise ValueError(f"{path} is no LiteRT file: {error}") from error
    for entry in model.metadata or ():
        if entry.name == METADATA_NAME.encode():
            return json.loads(bytes(model.buffers[entry.buffer].data))
    raise ValueError(f"{path} carries no facejax metadata")


def _quantized(data: bytes, network: Network, kind: Kind, calibration: Sequence[np.ndarray]) -> bytes:
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise ImportError(f"smaller LiteRT files need {error.name}: pip install 'facejax[litert]'") from error
    # The quantizer reads and writes files, and draws bars whatever it is told.
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
    """By output that has classes: the part of the faces whose most probable class is Flax's."""
    images = network.prepare(faces)
    expected, got = network.reference(images), run(data, images)
    described = network.metadata["outputs"]
    tasks = [
        name
        for name in network.outputs
        if isinstance(described, dict) and described[name]["meaning"] == "probabilities"
    ]
    return {name: float((got[name].argmax(axis=1) == expected[name].argmax(axis=1)).mean()) for name in tasks}
