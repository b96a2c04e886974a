"""Reads MTCNN's weights from the files in the PyPI package ``mtcnn``.

They are the Caffe weights of Zhang et al. 2016 in Keras layout, numerically identical to facenet-pytorch's, saved by
joblib: an lz4 frame around a pickle with the bytes of each array after its description. Nothing is unpickled here and
the package is not imported (it would import TensorFlow): the SHA-256 of each file is pinned, so the arrays, their order
and shapes are known, and only their bytes are read.
"""

import hashlib
import importlib.metadata
import math
import pathlib

import numpy as np

_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}

# Layers in the order of the files, with the shapes of their kernels. A layer with a PReLU is followed by its slopes.
_LAYERS = {
    "pnet": {
        "conv1": (3, 3, 3, 10),
        "conv2": (3, 3, 10, 16),
        "conv3": (3, 3, 16, 32),
        "offsets": (32, 4),
        "scores": (32, 2),
    },
    "rnet": {
        "conv1": (3, 3, 3, 28),
        "conv2": (3, 3, 28, 48),
        "conv3": (2, 2, 48, 64),
        "dense": (576, 128),
        "offsets": (128, 4),
        "scores": (128, 2),
    },
    "onet": {
        "conv1": (3, 3, 3, 32),
        "conv2": (3, 3, 32, 64),
        "conv3": (3, 3, 64, 64),
        "conv4": (2, 2, 64, 128),
        "dense": (1152, 256),
        "offsets": (256, 4),
        "landmarks": (256, 10),
        "scores": (256, 2),
    },
}
_HEADS = ("offsets", "landmarks", "scores")


def load(network: str) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of ``pnet``, ``rnet`` or ``onet`` for the Flax module of that name: float32 arrays.

    Raises:
        FileNotFoundError: The package ``mtcnn`` is not installed, or lacks the file.
        ValueError: The file is not the one of version 1.0.0.
    """
    data = _read(network)
    position = 0
    params: dict[str, dict[str, np.ndarray]] = {}
    for layer, shape in _LAYERS[network].items():
        params[layer] = {}
        names = {"kernel": shape, "bias": shape[-1:]}
        if layer not in _HEADS:
            names["slope"] = shape[-1:]
        for name, array_shape in names.items():
            position = _array_start(data, position)
            count = math.prod(array_shape)
            array = np.frombuffer(data, "<f4", count, position).reshape(array_shape)
            params[layer][name] = array.astype(np.float32)
            position += 4 * count
    return params


def _read(network: str) -> bytes:
    """The decompressed bytes of a network's file, after verifying its SHA-256."""
    import lz4.frame

    try:
        files = importlib.metadata.files("mtcnn") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [pathlib.Path(str(file.locate())) for file in files if file.name == f"{network}.lz4"]
    if not paths or not paths[0].is_file():
        raise FileNotFoundError(f"the weights {network}.lz4 of the package mtcnn are missing: pip install mtcnn==1.0.0")
    packed = paths[0].read_bytes()
    digest = hashlib.sha256(packed).hexdigest()
    if digest != _SHA256[network]:
        raise ValueError(
            f"expected {paths[0]} with SHA-256 {_SHA256[network]}, got {digest}: "
            "pip install --force-reinstall --no-deps mtcnn==1.0.0"
        )
    return lz4.frame.decompress(packed)


def _array_start(data: bytes, position: int) -> int:
    """Position of the bytes of the next array.

    joblib ends the description of an array with the opcodes ``ub`` and pads it with a count n and n bytes 0xff, so that
    the array starts at a multiple of 16.
    """
    while True:
        position = data.index(b"ub", position) + 2
        padding = data[position]
        start = position + 1 + padding
        if start % 16 == 0 and data[position + 1 : start] == b"\xff" * padding:
            return start
