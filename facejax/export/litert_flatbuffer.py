"""Edits to LiteRT files that neither converter nor quantizer offers: metadata, and biases that would overflow."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

METADATA_NAME = "facejax"
# Largest magnitude of a quantised bias, an int32: leaves a margin to the overflow.
_BIAS_STEPS = 2**30


def with_metadata(data: bytes, metadata: dict[str, Any]) -> bytes:
    """The flatbuffer with an additional named buffer that contains the metadata as JSON."""
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
    for held in model.buffers:
        if held.offset:  # the quantizer appends weights after the flatbuffer
            held.data = np.frombuffer(data, np.uint8, held.size, held.offset)
            held.offset = held.size = 0
    buffer: Any = schema.BufferT()
    entry: Any = schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    entry.name, entry.buffer = METADATA_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    return _packed(model, len(data))


def without_dead_channels(data: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """A float32 flatbuffer in which the bias of every convolution channel fits the integers of an 8-bit file.

    ai-edge-quantizer derives the scale of a bias, an int32, from the channel's largest weight. Where all weights are
    zero, the scale is so small that the bias overflows, and the channel outputs something near zero instead of its
    bias. This affects 28 channels of the official MobileNet-v1, of which 8 pass a constant on. In a channel whose
    weights are too small for its bias, the largest weight is therefore increased, by an amount that adds less than
    0.0001 of the bias.

    Args:
        data: The flatbuffer.
        ranges: Smallest and largest value of each tensor by name, as calibration measured them.
    """
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
    # Channel axis of each kind of kernel.
    axes = {schema.BuiltinOperator.CONV_2D: 0, schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3}
    for graph in model.subgraphs:
        for operator in graph.operators:
            axis = axes.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
            if axis is None or len(operator.inputs) < 3:  # without a bias
                continue
            tensors = [graph.tensors[index] for index in operator.inputs[1:3]]
            buffers = [model.buffers[tensor.buffer] for tensor in tensors]
            if any(buffer.data is None for buffer in buffers):  # computed in the graph
                continue
            kernel, bias = (
                np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
                for buffer, tensor in zip(buffers, tensors, strict=True)
            )
            low, high = ranges[graph.tensors[operator.inputs[0]].name.decode()]
            # 8-bit steps: 255 between the smallest and the largest input, 127 from zero to the largest weight.
            input_step = max(high, 0.0) / 255 - min(low, 0.0) / 255
            least = 127 * np.abs(bias) / (_BIAS_STEPS * max(input_step, 1e-9))
            buffers[0].data = np.frombuffer(_raised(kernel, least, axis).tobytes(), np.uint8)
    return _packed(model, len(data))


def _raised(
    kernel: Float[np.ndarray, "a b c d"], least: Float[np.ndarray, " channels"], axis: int
) -> Float[np.ndarray, "a b c d"]:
    """The kernel with the largest weight of each channel increased to at least `least`."""
    raised = kernel.copy()
    rows = np.moveaxis(raised, axis, 0)
    sizes = np.abs(rows).reshape(len(rows), -1)
    for channel in np.flatnonzero(sizes.max(axis=1) < least):
        place = np.unravel_index(sizes[channel].argmax(), rows.shape[1:])
        rows[(channel, *place)] = least[channel]
    return raised


def _packed(model: Any, size: int) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(size + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
