"""MTCNN's three networks in a plain form for other runtimes: NHWC convolutions, pooling and dense layers.

`facejax.detect.networks` implements the same networks for XLA on CPU (several pixels at once). Here each network takes
RGB images with values from 0 to 255, which may be fractional, as they are area means of a photo. The weights are those
of the detector.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from facejax.detect import cascade, networks, pyramid, weights
from facejax.detect.mtcnn import SUPPRESSION
from facejax.export.network import INPUT, Network

Params = Mapping[str, Mapping[str, Any]]
LICENCE = "MIT (Zhang et al. 2016; as shipped in the PyPI package mtcnn)"
# Side of the crops; P-Net takes photos of any size.
SIDES: Mapping[str, int | None] = {"pnet": None, **cascade.SIDES}
_PNET_HEADS = ("scores", "offsets")
OUTPUTS = {
    "pnet": ("probability", "offsets"),
    "rnet": ("probability", "offsets"),
    "onet": ("probability", "offsets", "landmarks"),
}
# Parameters that code around the three networks needs (such as examples/onnx_bundle.py).
CASCADE = {
    "min_face": 20,
    "factor": 0.709,
    "thresholds": [0.6, 0.7, 0.7],
    "window": pyramid.WINDOW,
    "stride": pyramid.STRIDE,
    "sides": [cascade.SIDES["rnet"], cascade.SIDES["onet"]],
    "suppression": list(SUPPRESSION),
}


def mtcnn_networks() -> tuple[Network, ...]:
    """P-, R- and O-Net, in this order."""
    return tuple(_network(name, jax.tree.map(jnp.asarray, weights.load(name))) for name in SIDES)


def _network(name: str, params: Params) -> Network:
    side = SIDES[name]
    function = {"pnet": _pnet, "rnet": _rnet, "onet": _onet}[name]
    return Network(
        name=name,
        function=lambda images: function(params, images),
        reference=_reference(name, params),
        prepare=lambda faces: _prepare(faces, side),
        shape=(side, side, 3),
        dtype=np.float32,
        outputs=OUTPUTS[name],
        metadata={
            "kind": name,
            "input": {
                "name": INPUT,
                "shape": ["batch", side or "height", side or "width", 3],
                "dtype": "float32",
                "channels": "RGB",
                "range": [0, 255],
            },
            "outputs": list(OUTPUTS[name]),
            "cascade": CASCADE,
        },
        licence=LICENCE,
    )


def _pnet(params: Params, images: Any) -> tuple:
    x = _max_pool(_conv(params, "conv1", _normalize(images)), 2)
    x = _conv(params, "conv3", _conv(params, "conv2", x))
    scores, offsets = (_pointwise(x, params[layer]["kernel"]) + _row(params[layer]["bias"], 4) for layer in _PNET_HEADS)
    return _probability(scores), offsets


def _rnet(params: Params, images: Any) -> tuple:
    x = _max_pool(_conv(params, "conv1", _normalize(images)), 3)
    x = _max_pool(_conv(params, "conv2", x), 3)
    x = _prelu(params, "dense", _dense(params, "dense", _flatten(_conv(params, "conv3", x))))
    return _probability(_dense(params, "scores", x)), _dense(params, "offsets", x)


def _onet(params: Params, images: Any) -> tuple:
    x = _max_pool(_conv(params, "conv1", _normalize(images)), 3)
    x = _max_pool(_conv(params, "conv2", x), 3)
    x = _max_pool(_conv(params, "conv3", x), 2)
    x = _prelu(params, "dense", _dense(params, "dense", _flatten(_conv(params, "conv4", x))))
    return _probability(_dense(params, "scores", x)), _dense(params, "offsets", x), _dense(params, "landmarks", x)


def _normalize(images: Any) -> Any:
    return (images - np.float32(127.5)) * np.float32(1 / 128)


def _conv(params: Params, layer: str, x: Any) -> Any:
    return _prelu(params, layer, _convolve(x, params[layer]["kernel"]) + _row(params[layer]["bias"], 4))


def _pointwise(x: Any, matrix: Any) -> Any:
    """A matrix product over channels as a 1x1 convolution: dense layers on maps would fix their size in LiteRT."""
    return _convolve(x, matrix[None, None])


def _convolve(x: Any, kernel: Any) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _row(values: Any, ndim: int) -> Any:
    """A vector reshaped for broadcasting along the last of `ndim` axes."""
    return values.reshape((1,) * (ndim - 1) + (-1,))


def _prelu(params: Params, layer: str, x: Any) -> Any:
    slope = _row(params[layer]["slope"], x.ndim)
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


def _dense(params: Params, layer: str, x: Any) -> Any:
    return x @ params[layer]["kernel"] + _row(params[layer]["bias"], 2)


def _max_pool(x: Any, size: int) -> Any:
    """Max pooling of NHWC maps with stride 2. The last window may overhang the edge, as Caffe rounds sizes up.

    Where a side is not known in advance (P-Net, windows of 2), the overhang is 1, which adds nothing to an even side.
    """
    overhangs = [-(side - size) % 2 if isinstance(side, int) else 1 for side in x.shape[1:3]]
    pads = ((0, 0), *((0, overhang) for overhang in overhangs), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, 2, 2, 1), pads)


def _flatten(x: Any) -> Any:
    """Flattened maps in the order of Caffe models trained from Matlab: width, height, channels."""
    return jnp.transpose(x, (0, 2, 1, 3)).reshape(x.shape[0], -1)


def _probability(logits: Any) -> Any:
    # A sum, not an index or a squeeze: those have no ONNX or LiteRT form when the sides are unknown.
    signs = _row(np.array([-1, 1], np.float32), logits.ndim)
    return jax.nn.sigmoid(jnp.sum(logits * signs, axis=-1))


def _prepare(faces: Sequence[np.ndarray], side: int | None) -> np.ndarray:
    # P-Net: even sides, as required by the LiteRT file; ONNX takes any (tests/export/test_onnx.py).
    size = (side, side) if side else (46, 60)
    return np.stack([cv2.resize(face, size, interpolation=cv2.INTER_AREA) for face in faces]).astype(np.float32)


def _reference(name: str, params: Params) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The detector's own implementation of the network, on the same images."""
    apply = jax.jit({"pnet": networks.PNet, "rnet": networks.RNet, "onet": networks.ONet}[name]().apply)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        pixels = (images - np.float32(127.5)) / np.float32(128)
        inputs = _with_even_sides(pixels) if name == "pnet" else (pixels,)
        outputs = apply({"params": params}, *inputs)
        return {key: np.asarray(value) for key, value in zip(OUTPUTS[name], outputs, strict=True)}

    return run


def _with_even_sides(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Input of the detector's P-Net: pixels padded to even sides, and a mask of complete 3 x 3 windows."""
    height, width = pixels.shape[1:3]
    even = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    whole = np.zeros(even.shape[:3], bool)
    whole[:, : height - 2, : width - 2] = True
    return even, whole
