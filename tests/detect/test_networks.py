"""P-, R- and O-Net against a plain NumPy implementation in float64, with the real weights on random pixels."""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facejax.detect import networks, weights

NETWORKS = {"pnet": networks.PNet, "rnet": networks.RNet, "onet": networks.ONet}


def convolve(x, layer):
    """VALID convolution of one image (height, width, channels), PReLU."""
    kernel = layer["kernel"].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    y = np.einsum("hwcij,ijcd->hwd", windows, kernel) + layer["bias"]
    return np.where(y > 0, y, y * layer["slope"])


def pool(x, size, stride):
    """Max pooling; the last window may be cut off by the edge."""
    rows, columns = (-(-(side - size) // stride) + 1 for side in x.shape[:2])
    return np.array(
        [
            [x[r * stride : r * stride + size, c * stride : c * stride + size].max((0, 1)) for c in range(columns)]
            for r in range(rows)
        ]
    )


def dense(x, layer):
    y = x @ layer["kernel"].astype(np.float64) + layer["bias"]
    return np.where(y > 0, y, y * layer["slope"]) if "slope" in layer else y


def probability(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True))[..., 1]


def numpy_pnet(x, params):
    x = pool(convolve(x, params["conv1"]), 2, 2)
    x = convolve(convolve(x, params["conv2"]), params["conv3"])
    return probability(dense(x, params["scores"])), dense(x, params["offsets"])


def numpy_crop_net(x, params):
    x = pool(convolve(x, params["conv1"]), 3, 2)
    x = pool(convolve(x, params["conv2"]), 3, 2)
    x = convolve(x, params["conv3"])
    if "conv4" in params:
        x = convolve(pool(x, 2, 2), params["conv4"])
    x = dense(x.transpose(1, 0, 2).reshape(-1), params["dense"])
    heads = [dense(x, params[name]) for name in ("offsets", "landmarks") if name in params]
    return probability(dense(x, params["scores"])), *heads


def apply(name, *inputs):
    return jax.jit(NETWORKS[name]().apply)({"params": jax.device_put(weights.load(name))}, *map(jnp.asarray, inputs))


@pytest.mark.parametrize("size", [(40, 56), (42, 50), (12, 12), (14, 130)])
def test_pnet_equals_numpy(size):
    image = np.random.default_rng(0).uniform(-1, 1, (*size, 3)).astype(np.float32)
    for part, expected in zip(
        apply("pnet", image[None]), numpy_pnet(image.astype(np.float64), weights.load("pnet")), strict=True
    ):
        assert part[0].shape == expected.shape
        np.testing.assert_allclose(part[0], expected, atol=2e-5)


@pytest.mark.parametrize("size", [(13, 12), (27, 33), (12, 25)])
def test_pnet_sees_nothing_beyond_the_valid_pixels(size):
    """For an image of odd size in a canvas, the last row of cells is the maximum over the existing pixels."""
    height, width = size
    canvas = np.random.default_rng(1).uniform(-1, 1, (48, 50, 3)).astype(np.float32)
    y, x = np.mgrid[:48, :50]
    valid = (y < height - 2) & (x < width - 2)
    got = apply("pnet", canvas[None], valid[None])
    expected = numpy_pnet(canvas[:height, :width].astype(np.float64), weights.load("pnet"))
    for part, right in zip(got, expected, strict=True):
        np.testing.assert_allclose(part[0, : right.shape[0], : right.shape[1]], right, atol=2e-5)


@pytest.mark.parametrize(("name", "side"), [("rnet", 24), ("onet", 48)])
def test_crop_networks_equal_numpy(name, side):
    crops = np.random.default_rng(2).uniform(-1, 1, (3, side, side, 3)).astype(np.float32)
    params, got = weights.load(name), apply(name, crops)
    for i, crop in enumerate(crops):
        for part, expected in zip(got, numpy_crop_net(crop.astype(np.float64), params), strict=True):
            np.testing.assert_allclose(part[i], expected, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_fit_the_module(name):
    side = {"pnet": 12, "rnet": 24, "onet": 48}[name]
    expected = jax.eval_shape(NETWORKS[name]().init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
    params = weights.load(name)
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, expected)
    # Bytes read at a wrong position would be huge, tiny or NaN.
    assert all(np.isfinite(leaf).all() and 1e-5 < np.abs(leaf).mean() < 10 for leaf in jax.tree.leaves(params))


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "pnet.lz4"
    path.write_bytes(b"other bytes")

    class File:
        name = "pnet.lz4"

        def locate(self):
            return path

    monkeypatch.setattr(importlib.metadata, "files", lambda name: [File()])
    with pytest.raises(ValueError, match="SHA-256"):
        weights.load("pnet")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install mtcnn==1\.0\.0"):
        weights.load("pnet")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_equal_facenet_pytorch(name):
    torch = pytest.importorskip("torch")
    files = importlib.metadata.files("facenet-pytorch") if _installed("facenet-pytorch") else []
    paths = [file.locate() for file in files or [] if file.name == f"{name}.pt"]
    if not paths:
        pytest.skip("needs the package facenet-pytorch")
    state = torch.load(str(paths[0]), weights_only=True).values()
    theirs = {np.sort(tensor.numpy().ravel()).tobytes() for tensor in state}
    assert {np.sort(leaf.ravel()).tobytes() for leaf in jax.tree.leaves(weights.load(name))} == theirs


def _installed(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
