"""ONNX files against Flax, in onnxruntime; unsupported operations are named in the error."""

import dataclasses
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from facejax.export import network as exported
from facejax.export import onnx as export
from facejax.export.mtcnn import mtcnn_networks
from facejax.export.network import Network, compare, face_network, file_stem, require_parity
from facejax.models import list_models
from facejax.models.layers import global_pool, mean_of_pixels
from tests.export.backbones import random_network
from tests.inference.toy import noise, toy_model


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [noise(40 + 3 * i, 35 + 5 * i, seed=i) for i in range(5)]


def as_network(function, height, width, channels=3, outputs=("y",), dtype=np.float32) -> Network:
    return Network(
        "toy",
        lambda images: tuple(function(images)[: len(outputs)]),
        lambda images: dict(zip(outputs, map(np.asarray, function(images)), strict=True)),
        lambda faces: np.stack(faces),
        (height, width, channels),
        dtype,
        outputs,
        {},
        "",
    )


def test_a_file_predicts_what_the_model_does_and_carries_its_words(tmp_path, faces):
    model = toy_model(
        "age", "gender", "emotion8", "valence_arousal", channel_order="bgr", mean=(9.0, 8.0, 7.0), scale=1.0
    )
    path = tmp_path / "toy.onnx"
    metadata = export.export_onnx(face_network(model), path, faces)
    session = export.start_session(path)
    for count in (1, 2, 5):
        images = np.stack([model.cfg.preprocessing.resize(face) for face in faces[:count]])
        got = export.run_session(session, images)
        expected = model.predict(faces[:count])
        np.testing.assert_allclose(got["features"], model.features(faces[:count]), atol=1e-5)
        for task in ("age", "gender", "emotion8", "valence_arousal"):
            np.testing.assert_allclose(got[task], expected[task], rtol=1e-4, atol=1e-5)
    read = export.read_metadata(path)
    assert read == json.loads(json.dumps(metadata))
    assert read["outputs"]["emotion8"]["labels"] == list(model.class_names("emotion8"))
    assert read["outputs"]["gender"]["labels"] == ["female", "male"]
    for name, output in read["outputs"].items():
        assert output["shape"] == ["batch", *got[name].shape[1:]]
    assert read["input"]["channels"] == "RGB"
    assert read["cfg"] == json.loads(json.dumps(model.cfg.to_dict()))
    assert "prohibited" in read["use"]
    assert set(read["check"]["max_difference"]) == {"features", "age", "gender", "emotion8", "valence_arousal"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["toy.onnx"]


def test_normalisations_and_layouts_are_gone_from_the_graph():
    body = export.convert(face_network(toy_model("emotion8"))).graph
    operations = [node.op_type for node in body.node]
    assert operations.count("Conv") == 27
    assert operations.count("Transpose") == 1
    assert not {"BatchNormalization", "Reciprocal", "Expand", "Sqrt"} & set(operations)
    convolved = {node.output[0] for node in body.node if node.op_type == "Conv"}
    readers = {node.op_type for node in body.node if convolved & set(node.input)}
    assert not {"Add", "Sub", "Mul", "Div"} & readers


def test_bounds_and_means_are_nodes_that_onnxruntime_fuses():
    """With Max and Min for ReLU6 and ReduceSum for means, MobileNet took 1.8 x as long (docs/performance_log.md)."""
    operations = [node.op_type for node in export.convert(face_network(toy_model("valence_arousal"))).graph.node]
    assert operations.count("Clip") == 27
    assert operations.count("GlobalAveragePool") == 1
    assert not {"Max", "Min", "ReduceSum", "Div"} & set(operations)


def test_a_file_that_would_be_wrong_is_not_written(tmp_path, faces, monkeypatch):
    network = face_network(toy_model("gender"))
    monkeypatch.setattr(exported, "_TOLERANCE", 1e-12)
    with pytest.raises(ValueError, match=r"not written.*on 5 faces"):
        export.export_onnx(network, tmp_path / "toy.onnx", faces)
    with pytest.raises(ValueError, match="at least one face"):
        export.export_onnx(network, tmp_path / "toy.onnx", [])
    assert not list(tmp_path.iterdir())


def test_a_difference_that_is_no_number_is_refused():
    network = mtcnn_networks()[0]
    require_parity(network, {"faces": 1, "max_difference": {"probability": 1e-3, "offsets": 0.0}})
    for difference in (1.1e-3, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="pnet: the export was not written, as its 'probability' differs"):
            require_parity(network, {"faces": 1, "max_difference": {"probability": difference}})
    require_parity(network, {"faces": 1, "max_difference": {"age": 0.049}})  # of years
    with pytest.raises(ValueError, match="its 'age' differs"):
        require_parity(network, {"faces": 1, "max_difference": {"age": 0.051}})


def test_differences_of_features_are_a_part_of_their_size():
    expected = {"features": np.array([[-200.0, 50.0]]), "age": np.array([30.0])}
    network = dataclasses.replace(
        as_network(None, 8, 6, outputs=("features", "age")), reference=lambda images: expected
    )
    got = {"features": np.array([[-200.0, 46.0]], np.float32), "age": np.array([29.5], np.float32)}
    found = compare(network, lambda images: got, [noise(8, 6)])
    assert found["max_difference"] == {"features": 4 / 200, "age": 0.5}
    assert found["mean_difference"] == {"features": 2 / 200, "age": 0.5}
    with pytest.raises(ValueError, match=r"toy: age of shape \(1, 1\), expected \(1,\)"):
        compare(network, lambda images: got | {"age": np.zeros((1, 1))}, [noise(8, 6)])


def test_mtcnn_equals_the_detector_at_any_size(tmp_path, faces):
    """The reference is the detector's own implementation of each network (several pixels at once)."""
    for network in mtcnn_networks():
        metadata = export.export_onnx(network, tmp_path / f"{network.name}.onnx", faces)
        assert max(metadata["check"]["max_difference"].values()) < 1e-5
    pnet = mtcnn_networks()[0]
    session = export.start_session(tmp_path / "pnet.onnx")
    for height, width in ((12, 12), (13, 12), (14, 31), (64, 45)):
        images = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(np.float32)
        got, expected = export.run_session(session, images), pnet.reference(images)
        assert got["probability"].shape == (2, (height - 1) // 2 - 4, (width - 1) // 2 - 4)
        for name in pnet.outputs:
            np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


OPERATIONS = {
    "relu6 and swish": lambda x: nn.relu6(x) + nn.swish(x),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "exponentials": lambda x: jnp.exp(-x),
    "one over a root": lambda x: lax.rsqrt(1 + jnp.square(x)),
    "largest of the pixels": lambda x: jnp.max(x, axis=(1, 2)),
    "sum over rows of a convolution": lambda x: jnp.sum(convolve(x), axis=1),
    "every second row, column and channel": lambda x: lax.slice_in_dim(
        lax.slice_in_dim(convolve(x)[:, ::2], 1, 6, stride=2, axis=2), 0, 4, stride=2, axis=3
    ),
    "parts in another order": lambda x: jnp.concatenate(jnp.split(convolve(x), [1, 3], axis=3)[::-1], axis=3),
    "rows for columns": lambda x: jnp.transpose(convolve(x), (0, 2, 1, 3)),
    "average over the border": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"),
    "select and compare": lambda x: jnp.where(x > 0.2, x, -2 * x),
    "bounds by rows": lambda x: jnp.maximum(jnp.minimum(x, 0.25), -jnp.arange(6.0)[:, None]),
    "relu": nn.relu,
    "mean of pixels": lambda x: mean_of_pixels(convolve(x)) * mean_of_pixels(x + 1)[..., :1],
    "pooled": lambda x: global_pool(convolve(x), "avg"),
    "pooled by maximum": lambda x: global_pool(convolve(x), "max"),
    "flip channels of a convolution": lambda x: convolve(x)[..., ::-1],
    "look up": lambda x: convolve(x)[..., np.array([2, 0, 3])],
    "squeeze": lambda x: jnp.squeeze(convolve(x)[:, 1:2, 2:3], (1, 2)) + jnp.squeeze(convolve(x)[:, :1], 1)[:, 0],
    "mean and broadcast": lambda x: x * jax.nn.sigmoid(jnp.mean(x, axis=(1, 2), keepdims=True)),
    "mean over channels": lambda x: x - jnp.mean(x, axis=3, keepdims=True),
    "concatenate and cut": lambda x: jnp.concatenate([x[:, 1:5, :3], 2 * x[:, 2:6, 3:6]], axis=3),
    "flip channels": lambda x: x[..., ::-1],
    "pool": lambda x: nn.max_pool(x, (3, 2), (1, 2), "SAME"),
    "average": lambda x: nn.avg_pool(x, (2, 2), (2, 2)),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=0.5),
    "flatten": lambda x: x.reshape(x.shape[0], -1) @ jnp.ones((8 * 6 * 3, 2)),
    "shift of a convolution that is read twice": lambda x: (lambda y: (y + 1) * y)(convolve(x)),
    "scale and shift of a convolution": lambda x: (convolve(x) - jnp.arange(4.0)) * 0.5 / jnp.arange(1.0, 5) + 2,
    "a constant minus a convolution": lambda x: 1 - convolve(x),
    "one over a convolution": lambda x: 1 / (50 + convolve(x)),
    "scale in a convolution's result by a row": lambda x: convolve(x, channels=6) * jnp.arange(6.0).reshape(1, 1, 6, 1),
    "grouped, strided and dilated": lambda x: convolve(jnp.concatenate([x, x], 3), groups=2, stride=2, dilation=2),
    "largest two": lambda x: lax.top_k(x.reshape(x.shape[0], -1), 2)[0],
    "products with arrays that are freed": lambda x: products(x.reshape(x.shape[0], -1)),
    "stop_gradient of a convolution": lambda x: (lambda y: (lax.stop_gradient(y) + 1) * y)(convolve(x)),
    "barrier behind a convolution": lambda x: (lambda y: (lax.optimization_barrier(y) + 1) * y)(convolve(x)),
    "a convolution through a call": lambda x: (lambda y: (jax.jit(lambda z: z)(y) + 1) * y)(convolve(x)),
    "shift of a convolution within a call": lambda x: (lambda y: jax.jit(lambda z: z + 1)(y) * y)(convolve(x)),
    "a convolution that is read by others too": lambda x: (lambda y, z: y * z)(
        *jax.jit(lambda x: (lambda y: (y, y + 1))(convolve(x)))(x)
    ),
    "sum of a broadcast constant": lambda x: x * jnp.sum(jnp.full((4, 3), 0.5) + 1, axis=0),
    "one channel times a row": lambda x: convolve(x, channels=1) * jnp.arange(4.0),
    "square of a constant": lambda x: x + jnp.square(jnp.full(x.shape, 3.0)),
    "cast of a constant": lambda x: x + jnp.full(x.shape, 3.7).astype(jnp.int32).astype(jnp.float32),
    "zeros of two types": lambda x: jnp.maximum(x, 0.0) + jnp.maximum(x.astype(jnp.int32), 0),
    "mean and maximum of one photo at each of its pixels": lambda x: jnp.concatenate(
        [
            jnp.broadcast_to(mean_of_pixels(convolve(x[:1])), (1, 8, 6, 4)),
            lax.broadcast_in_dim(x[:1].max((1, 2)), (1, 8, 6, 3), (0, 3)),
            x[:1],
        ],
        axis=3,
    ),
}


def products(x):
    for seed in range(4):
        x = jax.nn.sigmoid(x @ jnp.asarray(np.random.default_rng(seed).standard_normal((144, 144)), jnp.float32) * 0.05)
    return x


def convolve(x, groups=1, stride=1, dilation=1, channels=4):
    shape = (3, 3, x.shape[-1] // groups, channels)
    kernel = jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, 1),
        "SAME",
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_rule_alone(name):
    with jax.numpy_rank_promotion("allow"):
        network = as_network(lambda x: (OPERATIONS[name](x),), 8, 6)
        images = np.random.default_rng(2).standard_normal((3, 8, 6, 3)).astype(np.float32)
        got = export.run_session(export.start_session(export.convert(network).SerializeToString()), images)["y"]
        np.testing.assert_allclose(got, OPERATIONS[name](images), atol=2e-5, rtol=2e-5)


def test_every_rule_is_among_them(monkeypatch):
    from facejax.export import onnx_elementwise
    from facejax.export.onnx_lowering import FUNCTION_RULES, RULES

    used, binary = set(), onnx_elementwise.binary

    def noting(name, rule):
        return lambda *args: used.add(name) or rule(*args)

    for rules in (RULES, FUNCTION_RULES):
        for name, rule in rules.items():
            monkeypatch.setitem(rules, name, noting(name, rule))
    monkeypatch.setattr(onnx_elementwise, "binary", lambda graph, op, *args: used.add(op) or binary(graph, op, *args))
    with jax.numpy_rank_promotion("allow"):
        for operation in OPERATIONS.values():
            export.convert(as_network(lambda x, operation=operation: (operation(x),), 8, 6))
    assert {*RULES, *FUNCTION_RULES, *onnx_elementwise.BINARY.values()} - used == set()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (jnp.cumsum(x, axis=1),), "cumsum"),
        (lambda x: (jnp.einsum("bhwc,bhwd->bcd", x, x),), "only matrix products"),
        (
            lambda x: (lax.dot_general(x[:, 0], jnp.ones((3, 6)), (((2,), (0,)), ((1,), (1,)))),),
            "only matrix products",
        ),
        (lambda x: (lax.dot_general(x.max((1, 2)), jnp.eye(3), (((1,), (1,)), ((), ()))),), "only matrix products"),
        (lambda x: (jnp.broadcast_to(x[:, :1], x.shape),), "broadcasting from"),
        (lambda x: (lax.pad(x, 0.0, [(0, 0, 0), (1, 1, 1), (0, 0, 0), (0, 0, 0)]),), "padding at the ends"),
        (
            lambda x: (
                lax.reduce_window(
                    x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", window_dilation=(1, 2, 2, 1)
                ),
            ),
            "only pooling over height and width",
        ),
    ],
)
def test_what_has_no_form_is_named(function, message):
    with pytest.raises(NotImplementedError, match=message):
        export.convert(as_network(function, 8, 6))


def test_names_of_weights_become_harmless_file_names():
    assert file_stem("mobilenet_v1.vggface2_age_gender") == "mobilenet_v1.vggface2_age_gender"
    assert file_stem("../../etc/passwd") == "_.._etc_passwd"
    assert file_stem("...") == "network"
    assert pathlib.PurePath(file_stem("a\0b/c\\d")).name == "a_b_c_d"


def test_another_file_has_no_words(tmp_path):
    model = export.convert(as_network(lambda x: (x * 2,), 8, 6))
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="no facejax metadata"):
        export.read_metadata(tmp_path / "other.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"garbage" * 100)
    with pytest.raises(ValueError, match=r"garbage\.onnx is not an ONNX file"):
        export.read_metadata(tmp_path / "garbage.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_backbone(name, tmp_path):
    """Features agree to within 1e-4 of their magnitude."""
    network, size = random_network(name)
    faces = [noise(size, size, seed=i) for i in range(3)]
    metadata = export.export_onnx(network, tmp_path / "x.onnx", faces)
    assert metadata["check"]["max_difference"]["features"] < 1e-4
