"""LiteRT files against Flax, in the LiteRT interpreter."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated

from facejax.export import litert
from facejax.export.litert_flatbuffer import _raised
from facejax.export.mtcnn import mtcnn_networks
from facejax.export.network import compare, face_network
from facejax.inference import LoadedModel
from facejax.models import list_models
from tests.export.backbones import random_network
from tests.inference.toy import noise, toy_model

pytest.importorskip("litert_converter")  # not published for Linux on Arm
pytestmark = pytest.mark.filterwarnings("ignore")  # LiteRT's own


@pytest.fixture(scope="module")
def model():
    return toy_model("age", "gender", "emotion8", "valence_arousal", channel_order="bgr")


def test_float32_predicts_what_the_model_does_and_carries_its_words(model, tmp_path):
    faces = [noise(50, 40, seed=i) for i in range(3)]
    path = tmp_path / "toy.tflite"
    metadata = litert.export_litert(face_network(model), path, faces)
    got = litert.run(path, face_network(model).prepare(faces))
    expected = model.predict(faces)
    for task in ("age", "gender", "emotion8"):
        np.testing.assert_allclose(got[task], expected[task], rtol=1e-4, atol=1e-5)
    assert litert.read_metadata(path) == json.loads(json.dumps(metadata))
    assert metadata["input"]["shape"] == [1, 32, 32, 3]


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_smaller_kinds_are_smaller_and_say_how_far_they_are(model, tmp_path, kind):
    calibration, faces = ([noise(50, 40, seed=i) for i in range(start, start + 8)] for start in (0, 100))
    network = face_network(model)
    litert.export_litert(network, tmp_path / "whole.tflite", faces)
    metadata = litert.export_litert(network, tmp_path / "small.tflite", faces, kind=kind, calibration=calibration)
    assert (tmp_path / "small.tflite").stat().st_size < 0.6 * (tmp_path / "whole.tflite").stat().st_size
    assert set(metadata["check"]["agreement"]) == {"gender", "emotion8"}
    assert metadata["check"]["mean_difference"]["emotion8"] < 0.02
    written = compare(network, lambda images: litert.run(tmp_path / "small.tflite", images), faces)
    assert written == {name: told for name, told in metadata["check"].items() if name != "agreement"}
    got = litert.run(tmp_path / "small.tflite", network.prepare(faces[:1]))
    assert {values.dtype for values in got.values()} == {np.dtype(np.float32)}
    assert litert.read_metadata(tmp_path / "small.tflite")["numbers"] == kind


def kernel_types(path) -> list[int]:
    model = schema_py_generated.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds = schema_py_generated.BuiltinOperator
    return [
        graph.tensors[operator.inputs[1]].type
        for graph in model.subgraphs
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D)
    ]


def test_of_a_channel_that_is_too_small_only_the_largest_weight_is_raised():
    kernel = np.array([[[[0.1, -0.4], [0.2, 0.3]]], [[[-0.9, 0.1], [0.2, 0.3]]]], np.float32)  # (2, 1, 2, 2)
    raised = kernel.copy()
    raised[0, 0, 0, 1] = 0.5
    np.testing.assert_array_equal(_raised(kernel, np.array([0.5, 0.5], np.float32), 0), raised)
    np.testing.assert_array_equal(
        _raised(kernel.transpose(1, 2, 3, 0), np.array([0.5, 0.5], np.float32), 3).transpose(3, 0, 1, 2), raised
    )


def test_agreement_is_the_part_of_faces_with_the_same_most_probable_class(model, monkeypatch):
    network = face_network(model)
    expected = {name: values.copy() for name, values in network.reference(np.zeros((4, 32, 32, 3), np.uint8)).items()}
    expected["emotion8"], expected["gender"] = np.eye(8)[[0, 3, 5, 7]], np.eye(2)[[0, 1, 0, 1]]
    got = {**expected, "emotion8": np.eye(8)[[0, 3, 5, 1]], "gender": np.eye(2)[[1, 1, 1, 1]]}
    monkeypatch.setattr(litert, "run", lambda *_: got)
    network = dataclasses.replace(network, reference=lambda images: expected)
    assert litert._agreement(network, b"", [noise(9, 9)] * 4) == {"emotion8": 0.75, "gender": 0.5}


@pytest.mark.parametrize("layer", ["conv1", "conv_dw_13"])
def test_a_channel_without_weights_keeps_its_constant_in_8_bits(tmp_path, monkeypatch, layer):
    """Such a channel outputs its bias for any photo: a dense and a depthwise one, as in the official network."""
    model = toy_model("gender")
    backbone = jax.tree.map(np.array, model.variables["params"]["backbone"])
    backbone[layer]["kernel"][..., 1::2] = 0
    backbone[f"{layer}_bn"]["bias"][1::2] = 3
    variables = {**model.variables, "params": {**model.variables["params"], "backbone": backbone}}
    network = face_network(LoadedModel(model.cfg, variables))
    calibration, faces = ([noise(32, 32, seed=i) for i in range(start, start + 4)] for start in (0, 100))
    ranges, change = {}, litert.without_dead_channels
    monkeypatch.setattr(
        litert, "without_dead_channels", lambda data, measured: ranges.update(measured) or change(data, measured)
    )
    metadata = litert.export_litert(network, tmp_path / "x.tflite", faces, kind="int8", calibration=calibration)
    assert metadata["check"]["max_difference"]["features"] < 0.1
    pixels = model.cfg.preprocessing.normalize(network.prepare(calibration))
    assert any(np.allclose(found, (pixels.min(), pixels.max()), atol=0.05) for found in ranges.values())
    kernels = kernel_types(tmp_path / "x.tflite")
    assert (len(kernels), set(kernels)) == (27, {schema_py_generated.TensorType.INT8})


def test_mtcnn_and_a_p_net_of_other_even_sides(tmp_path):
    for network in mtcnn_networks():
        metadata = litert.export_litert(network, tmp_path / f"{network.name}.tflite", [noise(60, 50, seed=1)])
        assert max(metadata["check"]["max_difference"].values()) < 1e-5
    pnet = mtcnn_networks()[0]
    for height, width in ((12, 12), (300, 130)):
        images = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)).astype(np.float32)
        got, expected = litert.run(tmp_path / "pnet.tflite", images), pnet.reference(images)
        np.testing.assert_allclose(got["probability"], expected["probability"], atol=1e-5)


def test_another_file_is_no_export(tmp_path):
    for content in (b"garbage" * 100, b""):
        (tmp_path / "x.tflite").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.tflite is not a LiteRT file"):
            litert.read_metadata(tmp_path / "x.tflite")


def test_what_is_missing_is_said(model, tmp_path):
    with pytest.raises(ValueError, match="calibration faces"):
        litert.export_litert(face_network(model), tmp_path / "x.tflite", [noise(40, 40)], kind="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_backbone(name, tmp_path):
    """Features agree to within 1e-4 of their magnitude."""
    network, size = random_network(name)
    faces = [noise(size, size, seed=i) for i in range(2)]
    metadata = litert.export_litert(network, tmp_path / "x.tflite", faces)
    assert metadata["check"]["max_difference"]["features"] < 1e-4
