"""Conversion of third-party files to Flax variables: strict, and equal to the outputs of the original model."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import warnings

import cv2
import h5py
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import save_file

from facejax.models import abstract_variables, model_from_cfg, pretrained_cfg
from facejax.models.pretrained import CFGS
from facejax.preprocessing import Preprocessing
from facejax.weights import convert
from facejax.weights.checkpoint import load_inference_checkpoint, save_inference_checkpoint
from facejax.weights.convert import convert_file, fetch, load_published
from facejax.weights.graphdef import Node, read_graph
from facejax.weights.hse_facerec import _value, from_frozen_graph, load_frozen_graph
from facejax.weights.hsemotion import _layers, _stride, from_onnx, load_onnx, load_pickle, merge_heads
from facejax.weights.keras import from_keras, keras_shapes, load_h5
from facejax.weights.merge import check_tensors, merge_variables
from facejax.weights.timm import expected_tensors, from_timm, load_state_dict, torch_name
from tests.conftest import REPOSITORY
from tests.inference.toy import toy_model
from tests.models.torchvision_stub import import_timm, skip_without
from tools.make_goldens import GOLDEN, REFERENCES, random_images, random_tensors

MOBILENET = "mobilenet_v1.vggface2_age_gender"
GRAPH = "weights/age_gender_tf2_new-01-0.14-0.92_quantized.pb"


def zeros(shapes):
    return {name: np.zeros(shape, np.float32) for name, (_, shape) in shapes.items()}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("blocks_1_0", "bn1", "scale"), "blocks.1.0.bn1.weight"),
        (("blocks_0_0", "se", "conv_reduce", "kernel"), "blocks.0.0.se.conv_reduce.weight"),
        (("layer1_0", "downsample_1", "var"), "layer1.0.downsample.1.running_var"),
        (("Mixed_5b", "branch5x5_1", "conv", "kernel"), "Mixed_5b.branch5x5_1.conv.weight"),
        (("Conv2d_1a_3x3", "bn", "bias"), "Conv2d_1a_3x3.bn.bias"),
        (("stages_0_0", "skipinit_gain"), "stages.0.0.skipinit_gain"),
    ],
)
def test_names_of_timm(path, name):
    assert torch_name(path) == name


def test_timm_lists_what_does_not_fit():
    tensors = zeros(expected_tensors("resnet18"))
    tensors["layer9.weight"] = np.zeros(3)
    del tensors["layer1.0.bn2.running_mean"]
    tensors["conv1.weight"] = np.zeros((64, 3, 3, 3))
    with pytest.raises(ValueError, match=r"resnet18") as error:
        from_timm("resnet18", tensors)
    assert "Missing (1): layer1.0.bn2.running_mean" in str(error.value)
    assert "Unexpected (1): layer9.weight" in str(error.value)
    assert "conv1.weight (64, 3, 3, 3) (expected (64, 3, 7, 7))" in str(error.value)


def test_long_lists_are_shortened_and_empty_ones_left_out():
    expected = {f"layer{index}.weight": (3,) for index in range(8)}
    with pytest.raises(ValueError, match="not the weights of a network") as error:
        check_tensors("a network", expected, {"layer7.weight": np.zeros(3), "fc": np.zeros(2)})
    assert str(error.value).splitlines()[1:] == [
        "Missing (7): layer0.weight, layer1.weight, layer2.weight, layer3.weight, layer4.weight and 2 more",
        "Unexpected (1): fc",
    ]


def test_timm_head_needs_a_classifier():
    with pytest.raises(ValueError, match="no classifier"):
        from_timm("resnet18", zeros(expected_tensors("resnet18")), head="identity")
    without_bias = {**zeros(expected_tensors("resnet18")), "fc.weight": np.zeros((2, 512))}
    with pytest.raises(ValueError, match="'fc' has no bias"):
        from_timm("resnet18", without_bias, head="identity")


def test_a_classifier_without_a_head_is_left_out_with_a_warning(caplog):
    tensors = zeros(expected_tensors("resnet18"))
    from_timm("resnet18", tensors)
    assert not caplog.text
    tensors |= {"fc.weight": np.zeros((9131, 512)), "fc.bias": np.zeros(9131)}
    assert set(from_timm("resnet18", tensors)["params"]) == {"backbone"}
    assert "classifier with 9131 outputs left out: resnet18 is converted without heads" in caplog.text
    caplog.clear()
    assert "head_identity" in from_timm("resnet18", tensors, head="identity")["params"]
    assert not caplog.text


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("state_vggface2_enet0_new.pt", "tf_efficientnet_b0.vggface2"),
        ("state_vggface2_enet2.pt", "tf_efficientnet_b2.vggface2"),
    ],
)
def test_the_published_bases_of_vggface2_are_timm_s_networks_without_a_classifier(tmp_path, file, name):
    torch = pytest.importorskip("torch")
    architecture = name.partition(".")[0]
    shapes = {key: shape for key, (_, shape) in expected_tensors(architecture).items()}
    tensors = random_tensors(shapes, REFERENCES[architecture].gain)
    state = {key: torch.from_numpy(value) for key, value in tensors.items()}
    state["bn1.num_batches_tracked"] = torch.tensor(3)
    torch.save(state, tmp_path / file)
    variables, cfg = convert_file("timm", tmp_path / file)
    assert (cfg.name, cfg.tasks, cfg.source.rsplit("/", 1)[1]) == (name, (), file)
    assert cfg.sha256 == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert_golden_features(variables, cfg)


@pytest.mark.parametrize(
    ("package", "file", "load"),
    [
        ("safetensors", "model.safetensors", load_state_dict),
        ("h5py", "weights.h5", load_h5),
        ("onnx", "b0.onnx", load_onnx),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch, tmp_path, package, file, load):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.numpy", raising=False)
    with pytest.raises(ImportError, match=rf"need {package}: pip install 'facejax\[convert\]'"):
        load(tmp_path / file)


def test_safetensors_and_unknown_files(tmp_path):
    save_file({"a": np.arange(3.0)}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load_state_dict(tmp_path / "model.safetensors")["a"], np.arange(3.0))
    with pytest.raises(ValueError, match=r"expected a \.safetensors"):
        load_state_dict(tmp_path / "model.pickle")


def test_torch_files_hold_tensors_only(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"a": torch.arange(3)}}, tmp_path / "good.pth")
    np.testing.assert_array_equal(load_state_dict(tmp_path / "good.pth")["a"], np.arange(3))
    torch.save({"a": torch.tensor([1.5, -2], dtype=torch.bfloat16)}, tmp_path / "half.pth")
    np.testing.assert_array_equal(load_state_dict(tmp_path / "half.pth")["a"], np.float32([1.5, -2]))
    torch.save({"model": {"a": torch.arange(3)}, "epoch": 3}, tmp_path / "run.pth")
    with pytest.raises(ValueError, match=r"run\.pth contains model, epoch .* save the state dict alone"):
        load_state_dict(tmp_path / "run.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_model_is_no_state_dict_and_not_damaged(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "state_vggface2_enet0_new.pt"
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"is a pickle of code \(torch.*Linear\), not a state dict: save one") as error:
        convert_file("timm", path)
    assert not any(word in str(error.value) for word in ("damaged", "weights_only", "\x1b"))


@pytest.mark.parametrize("content", [b"<html>not found</html>", bytes(5000), b""])
@pytest.mark.parametrize("format_", ["timm", "hsemotion"])
def test_a_file_that_torch_did_not_write_is_called_damaged(tmp_path, content, format_):
    pytest.importorskip("torch")
    path = tmp_path / "enet_b0_8_best_vgaf.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as .*delete it to download it again") as error:
        convert_file(format_, path, unsafe_pickle=True)
    assert "weights_only" not in str(error.value)


def missing_operator():
    raise RuntimeError("operator torchvision::nms does not exist")


class NeedsAnOperator:
    def __reduce__(self):
        return missing_operator, ()


def test_a_pickled_model_whose_code_fails_is_not_called_damaged(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "enet_b0_8_best_vgaf.pt"
    torch.save(NeedsAnOperator(), path)
    with pytest.raises(ValueError, match=r"torchvision::nms does not exist\. Install .* or use the ONNX file") as error:
        convert_file("hsemotion", path, unsafe_pickle=True)
    assert "damaged" not in str(error.value)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="delete it to download it again"):
        convert_file("hsemotion", path, unsafe_pickle=True)


def test_a_pickled_model_of_another_kind_is_not_called_damaged(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "enet_b0_8_best_vgaf.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"contains a different network from .*enet_b0_8_best_vgaf \(.*global_pool"):
        convert_file("hsemotion", path, unsafe_pickle=True)


@functools.cache
def forward(name):
    model = model_from_cfg(pretrained_cfg(name))
    return jax.jit(model.apply, compiler_options={"xla_backend_optimization_level": 0})


def assert_golden_features(variables, cfg):
    """The features are those that the reference implementation has with `random_tensors` (tools/make_goldens.py)."""
    image_size = REFERENCES[cfg.architecture].image_sizes[-1]
    expected = np.load(GOLDEN / f"{cfg.architecture}.npz")[f"features_{image_size}"]
    features = np.asarray(forward(cfg.name)(variables, random_images(image_size))["features"])
    assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()


def keras_tensors():
    shapes = {name: shape for name, (_, shape) in keras_shapes("mobilenet_v1").items()}
    return random_tensors(shapes, REFERENCES["mobilenet_v1"].gain)


def write_keras_file(path, layout):
    """Writes `keras_tensors` in the layout of Keras 2 or 3 (whole models), or of Keras 3's .weights.h5."""
    layers = {}
    for name, array in keras_tensors().items():
        layer, leaf = name.split("/")
        layers.setdefault(layer, {})[leaf] = array
    with h5py.File(path, "w") as file:
        for index, (layer, leaves) in enumerate(layers.items()):
            if layout == "keras3_weights":
                variables = file.create_group(f"layers/layer_{index}/vars")
                variables.attrs["name"] = layer
                for leaf, array in leaves.items():
                    number = ("gamma", "beta", "moving_mean", "moving_variance").index(leaf) if len(leaves) > 1 else 0
                    variables[str(number)] = array
                continue
            for leaf, array in leaves.items():
                if layout == "keras2":
                    leaf = "depthwise_kernel:0" if layer.startswith("conv_dw") and leaf == "kernel" else f"{leaf}:0"
                file[f"{layer}/{layer}/{leaf}"] = array
        file["optimizer_weights/Adam/iteration:0"] = 3
        file["optimizer/vars/0"] = 3


@pytest.mark.parametrize("layout", ["keras2", "keras3", "keras3_weights"])
def test_every_layout_of_keras_gives_the_features_of_keras(tmp_path, layout):
    write_keras_file(tmp_path / "weights.h5", layout)
    assert_golden_features(*convert_file("keras", tmp_path / "weights.h5", "mobilenet_v1.keras_in1k"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Keras itself
@pytest.mark.parametrize("file", ["mobilenet.weights.h5", "mobilenet.h5"])
def test_files_that_keras_writes_give_its_features(tmp_path, file):
    skip_without("keras")
    import keras

    images, tensors = random_images(75), keras_tensors()
    model = keras.applications.MobileNet(weights=None, include_top=False, pooling="avg", input_shape=(75, 75, 3))
    for weight in model.weights:
        weight.assign(tensors[weight.path])
    (model.save_weights if "weights" in file else model.save)(tmp_path / file)
    variables, cfg = convert_file("keras", tmp_path / file, "mobilenet_v1.keras_in1k")
    expected = np.asarray(model(images, training=False))
    assert np.abs(forward(cfg.name)(variables, images)["features"] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_keras_file_that_does_not_name_its_layers_is_refused(tmp_path):
    """As Keras 3.0 wrote them."""
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"/layers/conv2d/vars does not say which layer it is.* Keras 3\.6 or later"):
        load_h5(tmp_path / "weights.h5")


def test_a_keras_file_without_a_tensor_is_refused():
    tensors = keras_tensors()
    del tensors["conv1_bn/gamma"]
    with pytest.raises(ValueError, match=r"Missing \(1\): conv1_bn/gamma"):
        from_keras("mobilenet_v1", tensors)


def field(number, payload, wire=2):
    return bytes([number << 3 | wire]) + (bytes([len(payload)]) if wire == 2 else b"") + payload


def test_graph_reader_on_hand_written_bytes(tmp_path):
    """Encoded by hand from the protocol buffer specification: content, value lists and a repeated last value."""
    shape = field(2, field(1, b"\x02", 0)) + field(2, field(1, b"\x02", 0))
    packed = field(1, b"\x01", 0) + field(2, shape) + field(5, struct.pack("<2f", 1.5, -2.0))
    content = field(1, b"\x04", 0) + field(2, shape) + field(4, bytes([0, 1, 254, 255]))

    half = field(1, b"\x13", 0) + field(2, shape) + field(13, b"\x80\x7c\x80\x80\x03")  # bits 0x3e00, 0xc000

    def const(name, tensor):
        attribute = field(1, b"value") + field(2, field(8, tensor))
        return field(1, field(1, name) + field(2, b"Const") + field(5, attribute))

    other = field(
        1, field(1, b"y") + field(2, b"Relu") + field(3, b"a") + field(5, field(1, b"mode") + field(2, field(2, b"M")))
    )
    (tmp_path / "graph.pb").write_bytes(const(b"a", packed) + const(b"b", content) + const(b"h", half) + other)
    nodes = read_graph(tmp_path / "graph.pb")
    np.testing.assert_array_equal(nodes["a"].value, np.array([[1.5, -2], [-2, -2]], np.float32))
    np.testing.assert_array_equal(nodes["b"].value, np.array([[0, 1], [254, 255]], np.uint8))
    np.testing.assert_array_equal(nodes["h"].value, np.array([[1.5, -2], [-2, -2]], np.float16))
    assert (nodes["y"].inputs, nodes["y"].value, nodes["y"].texts) == (("a",), None, {"mode": "M"})
    (tmp_path / "bare.pb").write_bytes(field(1, field(1, b"a") + field(2, b"Const") + field(5, field(1, b"value"))))
    assert read_graph(tmp_path / "bare.pb")["a"].value is None
    (tmp_path / "broken.pb").write_bytes(const(b"a", packed)[:-3])
    with pytest.raises(ValueError, match="not a frozen TensorFlow graph"):
        read_graph(tmp_path / "broken.pb")
    pair = field(2, field(2, field(1, b"\x02", 0)))
    for wrong in (
        field(1, b"\x01", 0) + pair + field(5, struct.pack("<3f", 1, 2, 3)),  # three values for two elements
        field(1, b"\x04", 0) + pair + field(7, b"\xac\x02"),  # 300, as uint8
    ):
        (tmp_path / "wrong.pb").write_bytes(const(b"a", wrong))
        with pytest.raises(ValueError, match="not a frozen TensorFlow graph"):
            read_graph(tmp_path / "wrong.pb")
    # A varint that never ends is not read to the end of the file, in quadratic time.
    (tmp_path / "broken.pb").write_bytes(b"\xff" * 1000)
    with pytest.raises(ValueError, match="not a frozen TensorFlow graph"):
        read_graph(tmp_path / "broken.pb")


def test_frozen_graph_is_used_whole(shared_dir):
    tensors = load_frozen_graph(shared_dir / GRAPH)
    cfg = pretrained_cfg(MOBILENET)
    merge_variables(abstract_variables(model_from_cfg(cfg), 224), from_frozen_graph(tensors))
    with pytest.raises(ValueError, match="does not have: more"):
        from_frozen_graph({**tensors, "more": np.zeros(3)})
    del tensors["feats/bias"]
    with pytest.raises(ValueError, match="no 'feats/bias'"):
        from_frozen_graph(tensors)


def test_folded_norms_of_a_frozen_graph_scale_and_shift_as_its_nodes_do():
    rng = np.random.default_rng(0)
    tensors = {"conv1/kernel": np.zeros((3, 3, 3, 4)), "conv1_bn/batchnorm_1/sub": rng.normal(size=4)}
    for block in range(1, 14):
        tensors[f"conv_dw_{block}/depthwise_kernel"] = np.zeros((3, 3, 4, 1))
        tensors[f"conv_pw_{block}/kernel"] = np.zeros((1, 1, 4, 4))
        tensors[f"conv_dw_{block}_bn/batchnorm_1/mul"] = rng.normal(size=4)
        tensors |= {f"conv_{kind}_{block}_bn/batchnorm_1/sub": rng.normal(size=4) for kind in ("dw", "pw")}
    for layer in ("feats", "age_pred", "gender_pred"):
        tensors |= {f"{layer}/kernel": np.zeros((4, 4)), f"{layer}/bias": np.zeros(4)}
    variables, x = from_frozen_graph(tensors), rng.normal(size=4)
    for name, stats in variables["batch_stats"]["backbone"].items():
        params = variables["params"]["backbone"][name]
        y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-3) * params["scale"] + params["bias"]  # Keras's epsilon
        expected = x * tensors.get(f"{name}/batchnorm_1/mul", 1) + tensors[f"{name}/batchnorm_1/sub"]
        np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.slow
def test_official_mobilenet_equals_its_onnx_file_on_photos(shared_dir):
    cfg = pretrained_cfg(MOBILENET)
    model = model_from_cfg(cfg)
    variables = merge_variables(
        abstract_variables(model, 224), from_frozen_graph(load_frozen_graph(shared_dir / GRAPH))
    )
    paths = sorted((shared_dir / "data" / "facial_expressions" / "images").iterdir())[::400]
    faces = [cfg.preprocessing.resize(cv2.imread(str(path))[..., ::-1].copy()) for path in paths]
    images = cfg.preprocessing.normalize(np.stack(faces))
    session = onnxruntime.InferenceSession(str(shared_dir / "weights" / "age_gender_mobilenet224.onnx"))
    age, gender, features = session.run(None, {"input_1:0": images})
    outputs = jax.jit(model.apply)(variables, images)
    for ours, theirs in (
        (outputs["features"], features),
        (jax.nn.softmax(outputs["age"]), age),
        (jax.nn.sigmoid(outputs["gender"]), gender),
    ):
        assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_official_graph_becomes_a_checkpoint(shared_dir, tmp_path):
    variables, cfg = convert_file("hsemotion", shared_dir / GRAPH)
    assert cfg == pretrained_cfg(MOBILENET)
    save_inference_checkpoint(tmp_path / "model", variables, cfg)
    assert load_inference_checkpoint(tmp_path / "model")[1] == cfg


def test_8_bit_weights_are_read_as_tensorflow_reads_them():
    """MIN_FIRST: evenly spaced, including 0, each at most half a step from the position of its code in the range."""
    codes = np.arange(256, dtype=np.uint8)
    for low, high in ((-1.01, 2.0), (-0.3, 0.1), (0.0, 1.0)):
        nodes = {"codes": codes, "low": np.float32(low), "high": np.float32(high)}
        nodes = {name: Node(name, "Const", (), np.asarray(value), {}) for name, value in nodes.items()}
        weights = Node("weights", "Dequantize", ("codes", "low", "high"), None, {"mode": "MIN_FIRST"})
        values, step = _value(weights, nodes), (high - low) / 255
        assert 0 in values
        assert np.abs(values - (low + codes * step)).max() <= step / 2 + 1e-6
        np.testing.assert_allclose(np.diff(values), step, rtol=1e-3)
    with pytest.raises(ValueError, match="not 'SCALED'"):
        _value(dataclasses.replace(weights, texts={"mode": "SCALED"}), nodes)


def test_one_dense_layer_becomes_the_heads_in_their_order():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(10, 4)), rng.normal(size=10)
    backbone = {"params": {"backbone": {"kernel": np.ones(2)}}, "batch_stats": {}}
    merged = merge_heads(backbone, weight, bias, ("emotion8", "valence_arousal"))
    features = rng.normal(size=4)
    told = [
        features @ merged["params"][f"head_{task}"]["logits"]["kernel"]
        + merged["params"][f"head_{task}"]["logits"]["bias"]
        for task in ("emotion8", "valence_arousal")
    ]
    np.testing.assert_allclose(np.concatenate(told), weight @ features + bias)
    assert merged["params"]["backbone"] == backbone["params"]["backbone"]
    with pytest.raises(ValueError, match="10 outputs, but the heads emotion8 have 8"):
        merge_heads(backbone, weight, bias, ("emotion8",))


def test_arrays_that_a_keras_file_holds_twice_are_refused(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        for folder in ("conv1", "other/conv1"):
            file[f"{folder}/kernel:0"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="duplicate arrays: conv1/kernel"):
        load_h5(tmp_path / "weights.h5")


def test_a_name_that_several_weights_have_is_asked_for(tmp_path):
    save_file({"a": np.arange(3.0)}, tmp_path / "vggface2.safetensors")
    with pytest.raises(ValueError, match=r"pass --name\. Known: tf_efficientnet_b0\.vggface2, tf_efficientnet_b2\."):
        convert_file("timm", tmp_path / "vggface2.safetensors")


def test_a_state_dict_is_no_pickled_model(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.arange(3)}, tmp_path / "state_vggface2_enet0_new.pt")
    with pytest.raises(ValueError, match="contains a state dict, not a model: use the format timm"):
        convert_file("hsemotion", tmp_path / "state_vggface2_enet0_new.pt", unsafe_pickle=True)


def test_a_pickled_model_s_classifier_becomes_its_head(monkeypatch, caplog):
    cfg = pretrained_cfg("tf_efficientnet_b0.enet_b0_8_best_vgaf")
    shapes = {key: shape for key, (_, shape) in expected_tensors("tf_efficientnet_b0").items()}
    state = random_tensors({**shapes, "classifier.0.weight": (8, 1280), "classifier.0.bias": (8,)}, 1.0)
    monkeypatch.setattr(convert.hsemotion, "load_pickle", lambda path, *, run_its_code: (dict(state), "max"))
    variables, pool = convert._read("hsemotion", pathlib.Path("enet_b0_8_best_vgaf.pt"), cfg, True)
    assert pool == "max"
    assert not caplog.text  # the classifier is not left out
    head = variables["params"]["head_emotion8"]
    np.testing.assert_array_equal(head["logits"]["kernel"], state["classifier.0.weight"].T)
    np.testing.assert_array_equal(head["logits"]["bias"], state["classifier.0.bias"])


def test_a_conversion_is_kept_while_its_configuration_is_the_same(tmp_path):
    model = toy_model("gender")
    cfg = dataclasses.replace(model.cfg, sha256="0" * 64)
    assert convert._kept(tmp_path / "converted", cfg) is None
    save_inference_checkpoint(tmp_path / "converted", model.variables, cfg)
    variables, found = convert._kept(tmp_path / "converted", cfg)
    assert found == cfg
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, dict(model.variables)))
    assert convert._kept(tmp_path / "converted", dataclasses.replace(cfg, sha256="")) is not None  # none is published
    # Known only from the file.
    assert convert._kept(tmp_path / "converted", dataclasses.replace(cfg, global_pool="max"))[1].global_pool == "avg"
    for changed in ({"sha256": "1" * 64}, {"licence": "corrected"}, {"preprocessing": Preprocessing(48)}):
        assert convert._kept(tmp_path / "converted", dataclasses.replace(cfg, **changed)) is None


def test_conversion_checks_format_name_and_hash(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "age_gender_tf2_new-01-0.14-0.92_quantized.pb").write_bytes(b"")
    (tmp_path / "enet_b0_8_best_vgaf.pt").write_bytes(b"")
    for call, message in (
        (lambda: convert_file("tim", tmp_path / "model.safetensors"), "did you mean 'timm'"),
        (lambda: convert_file("timm", tmp_path / "model.safetensors"), "pass --name"),
        (lambda: convert_file("hsemotion", next(tmp_path.glob("*.pb"))), "its SHA-256 is e3b0c442"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(PermissionError, match="runs whatever code"):
        convert_file("hsemotion", tmp_path / "enet_b0_8_best_vgaf.pt")


@pytest.mark.parametrize(
    ("format_", "file", "name", "message"),
    [
        ("timm", "enet_b0_8_best_vgaf.onnx", None, r"no \.onnx files of tf_efficientnet_b0; .* format hsemotion\?"),
        ("keras", "enet_b0_8_best_vgaf.onnx", None, r"no \.onnx files .* format hsemotion\?"),
        ("keras", "enet_b0_8_best_vgaf.pt", None, r"no \.pt files .* format timm or hsemotion\?"),
        ("hsemotion", "x.safetensors", "resnet18.a1_in1k", r"no \.safetensors files of resnet18; .* format timm\?"),
        ("timm", "mobilenet_1_0_224_tf_no_top.h5", None, r"no \.h5 files of mobilenet_v1; .* format keras\?"),
        ("keras", "x.h5", "tf_efficientnet_b0", r"no \.h5 .* which timm reads .*; hsemotion reads \.onnx, \.pt$"),
        ("timm", "x.pth", "mobilenet_v1", r"no \.pth .* which keras reads \.h5, \.hdf5; hsemotion reads \.pb$"),
    ],
)
def test_the_format_that_reads_a_file_is_named(tmp_path, format_, file, name, message):
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(ValueError, match=f"format {format_} reads {message}"):
        convert_file(format_, tmp_path / file, name)


@pytest.mark.parametrize("name", [name for name, cfg in CFGS.items() if cfg.source])
def test_every_published_file_has_the_suffix_of_its_format(name):
    path = pathlib.Path(pretrained_cfg(name).source)
    convert._check_format(convert._format(path), path, pretrained_cfg(name).architecture)  # raises nothing


def test_fetch_checks_the_hash_and_leaves_nothing_behind(tmp_path):
    published = tmp_path / "weights.pb"
    published.write_bytes(b"weights")
    cfg = dataclasses.replace(
        pretrained_cfg(MOBILENET), source=published.as_uri(), sha256=hashlib.sha256(b"weights").hexdigest()
    )
    assert fetch(cfg, tmp_path / "cache").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "cache" / cfg.name).iterdir()] == ["weights.pb"]
    with pytest.raises(ValueError, match="is not the file of"):
        fetch(dataclasses.replace(cfg, sha256="0" * 64), tmp_path / "other")
    with pytest.raises(ConnectionError, match=r"tools/convert_weights\.py hsemotion FILE --name"):
        fetch(dataclasses.replace(cfg, source=(tmp_path / "none.pb").as_uri()), tmp_path / "other")
    assert not list((tmp_path / "other" / cfg.name).iterdir())


class BreaksOff(http.server.BaseHTTPRequestHandler):
    """Sends the beginning of a body and hangs up: with a Content-Length, or (/chunked/) in chunks."""

    def do_GET(self):
        chunked = self.path.startswith("/chunked/")
        self.send_response(200)
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", "100000")))
        self.end_headers()
        self.wfile.write((b"%x\r\n" % 100_000 if chunked else b"") + bytes(5000))

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(("folder", "reason"), [("plain", "5000 of 100000 bytes"), ("chunked", "IncompleteRead")])
def test_a_download_that_breaks_off_is_not_kept(tmp_path, folder, reason):
    with http.server.HTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = f"http://127.0.0.1:{server.server_port}/{folder}/model.safetensors"
        cfg = dataclasses.replace(pretrained_cfg("resnet18.a1_in1k"), source=source, sha256="")
        try:
            with pytest.raises(ConnectionError, match=rf"{reason}.*Get the file by other means"):
                fetch(cfg, tmp_path)
        finally:
            server.shutdown()
            thread.join()
    assert not list((tmp_path / cfg.name).iterdir())


def test_a_downloaded_file_has_the_mode_of_any_other(tmp_path):
    published = tmp_path / "weights.pb"
    published.write_bytes(b"weights")
    cfg = dataclasses.replace(pretrained_cfg(MOBILENET), source=published.as_uri(), sha256="")
    before = os.umask(0o027)
    try:
        assert fetch(cfg, tmp_path / "cache").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "tf_efficientnet_b0.enet_b0_8_best_afew"])
def test_a_damaged_file_in_the_cache_is_named(tmp_path, name):
    source = pretrained_cfg(name).source
    path = tmp_path / name / source.rsplit("/", 1)[-1]
    path.parent.mkdir()
    path.write_bytes(bytes(5000))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} cannot be read .*delete it to download it"):
        load_published(name, tmp_path)


def test_published_weights_by_name_from_a_file_in_the_cache(shared_dir, tmp_path):
    """A file copied there by hand is converted once; a wrong one is rejected by its hash."""
    place = tmp_path / "cache" / MOBILENET / GRAPH.rsplit("/", 1)[-1]
    place.parent.mkdir(parents=True)
    place.write_bytes((shared_dir / GRAPH).read_bytes())
    variables, cfg = load_published(MOBILENET, tmp_path / "cache")
    assert cfg.tasks == ("age", "gender")
    place.unlink()
    again, _ = load_published(MOBILENET, tmp_path / "cache")  # no longer needs the file
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
    place.parent.joinpath("converted").rename(tmp_path / "moved")
    place.write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected 2a917c62"):
        load_published(MOBILENET, tmp_path / "cache")


def test_a_conversion_is_made_anew_where_its_configuration_changed_or_it_is_damaged(shared_dir, tmp_path, monkeypatch):
    place = tmp_path / MOBILENET
    place.mkdir()
    shutil.copy(shared_dir / GRAPH, place)
    load_published(MOBILENET, tmp_path)
    changed = dataclasses.replace(pretrained_cfg(MOBILENET), licence="corrected")
    monkeypatch.setitem(CFGS, MOBILENET, changed)
    assert load_published(MOBILENET, tmp_path)[1] == changed
    (place / "converted" / "model.json").unlink()
    assert load_published(MOBILENET, tmp_path)[1] == changed
    assert load_inference_checkpoint(place / "converted")[1] == changed


def test_weights_that_several_ask_for_at_once_are_converted_once(shared_dir, tmp_path, monkeypatch):
    """Of several concurrent conversions, each replaces the folder that another one writes or reads."""
    place = tmp_path / MOBILENET
    place.mkdir()
    shutil.copy(shared_dir / GRAPH, place)
    converted = []

    def slow(*args, **kwargs):
        converted.append(args)
        time.sleep(1)
        return convert_file(*args, **kwargs)

    monkeypatch.setattr(convert, "convert_file", slow)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(load_published, [MOBILENET] * 3, [tmp_path] * 3))
    assert len(loaded) == 3
    assert len(converted) == 1


def test_a_file_of_other_weights_is_not_called_damaged(tmp_path):
    save_file({"a": np.arange(3.0)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not the weights of timm's resnet18") as error:
        convert_file("timm", tmp_path / "model.safetensors", "resnet18.a1_in1k")
    assert "damaged" not in str(error.value)


def test_the_tool_converts_and_says_what_came_out(shared_dir, tmp_path):
    tool = [sys.executable, "tools/convert_weights.py"]
    out = tmp_path / "age_gender"
    good = [*tool, "hsemotion", str(shared_dir / GRAPH), "--out", str(out)]
    done = subprocess.run(good, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert f"{MOBILENET}: {out} (heads: age, gender; SHA-256" in done.stdout
    assert load_inference_checkpoint(out)[1].sha256.startswith("2a917c62")
    tensors = random_tensors({key: shape for key, (_, shape) in expected_tensors("resnet18").items()}, 1.0)
    save_file({**tensors, "fc.weight": np.zeros((5, 512), np.float32)}, tmp_path / "resnet18.safetensors")
    partial = [
        *tool,
        "timm",
        str(tmp_path / "resnet18.safetensors"),
        "--name",
        "resnet18",
        "--out",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(partial, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert "(heads: none;" in done.stdout
    assert "warning: classifier with 5 outputs left out: resnet18 is converted without heads\n" in done.stderr
    bad = [*tool, "timm", str(tmp_path / "none.safetensors"), "--name", "resnet18.a1_in1k", "--out", str(out)]
    failed = subprocess.run(bad, check=False, capture_output=True, text=True, cwd=REPOSITORY)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert load_inference_checkpoint(out)[1].name == MOBILENET  # the previous content is still there


def efficientnet_b0_file(path, pool="GlobalAveragePool", pool_at=-1, stem_pads=(0, 0, 1, 1), epsilon=1e-3, trans_b=1):
    """An ONNX file of the network's layers with zero weights; nodes without weights are omitted, except the pooling."""
    nodes, arrays, size = [], {}, 224

    def node(operation, *shapes, **attributes):
        names = [f"{len(arrays) + index}" for index in range(len(shapes))]
        arrays.update(zip(names, (np.zeros(shape, np.float32) for shape in shapes), strict=True))
        nodes.append(onnx.helper.make_node(operation, ["x", *names], ["x"], **attributes))

    for place, norm, (side, _, inputs, outputs), has_bias in _layers("tf_efficientnet_b0"):
        total = max((-(-size // _stride(place)) - 1) * _stride(place) + side - size, 0)
        pads = [total // 2] * 2 + [total - total // 2] * 2 if nodes else stem_pads
        size = -(-size // _stride(place))
        biases = [(outputs,)] * has_bias
        node("Conv", (outputs, inputs, side, side), *biases, strides=[_stride(place)] * 2, pads=pads)
        if norm:
            node("BatchNormalization", *[(outputs,)] * 4, epsilon=epsilon)
    node("Gemm", (8, 1280) if trans_b else (1280, 8), (8,), **{"transB": 1} if trans_b else {})
    nodes.insert(len(nodes) if pool_at is None else pool_at, onnx.helper.make_node(pool, ["x"], ["x"]))
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "b0", [], [], initializers)), path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"pool": "MaxPool"}, "a max operation besides its pooling"),
        ({"pool": "GlobalMaxPool", "pool_at": 0}, "a max operation besides its pooling"),
        ({"pool": "ReduceMax", "pool_at": None}, "a max operation besides its pooling"),  # of a softmax
        ({"stem_pads": (1, 1, 1, 1)}, r"conv_stem: expected pads \[0, 0, 1, 1\], got \[1, 1, 1, 1\]"),
        ({"epsilon": 1e-5}, r"conv_stem: expected epsilon 0\.001"),
    ],
)
def test_onnx_of_a_network_with_the_same_weights_but_another_graph_is_refused(tmp_path, other, message):
    efficientnet_b0_file(tmp_path / "b0.onnx", **other)
    with pytest.raises(ValueError, match=message):
        from_onnx("tf_efficientnet_b0", load_onnx(tmp_path / "b0.onnx")[0], ("emotion8",))


def test_a_bias_before_a_batch_norm_moves_its_mean(tmp_path):
    efficientnet_b0_file(tmp_path / "b0.onnx")
    layers = load_onnx(tmp_path / "b0.onnx")[0]
    layers[0] |= {"bias": np.full(32, 5.0, np.float32), "mean": np.full(32, 2.0, np.float32)}
    variables = from_onnx("tf_efficientnet_b0", layers, ("emotion8",))
    np.testing.assert_array_equal(variables["batch_stats"]["backbone"]["bn1"]["mean"], -3)
    np.testing.assert_array_equal(variables["params"]["backbone"]["bn1"]["bias"], 0)
    with pytest.raises(ValueError, match="contain EfficientNets, not resnet18"):
        from_onnx("resnet18", layers, ("emotion8",))


def test_a_folded_batch_norm_adds_its_bias_and_nothing_else(tmp_path):
    efficientnet_b0_file(tmp_path / "b0.onnx")
    layers = load_onnx(tmp_path / "b0.onnx")[0]
    layers[0] = {"weight": layers[0]["weight"], "bias": np.full(32, 5.0, np.float32)}
    variables = from_onnx("tf_efficientnet_b0", layers, ("emotion8",))
    params, stats = (variables[part]["backbone"]["bn1"] for part in ("params", "batch_stats"))
    x = np.linspace(-3, 3, 32)
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-3) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, x + 5, atol=1e-6)


@pytest.mark.parametrize(("pool", "kind"), [("GlobalAveragePool", "avg"), ("GlobalMaxPool", "max")])
def test_how_a_network_pools_is_read_from_its_onnx(tmp_path, pool, kind):
    efficientnet_b0_file(tmp_path / "enet_b0_8_best_vgaf.onnx", pool=pool, trans_b=0)
    cfg = convert_file("hsemotion", tmp_path / "enet_b0_8_best_vgaf.onnx")[1]
    assert model_from_cfg(cfg).backbone.global_pool == cfg.global_pool == kind


@pytest.mark.parametrize(
    ("pool", "epsilon", "message"), [("catavgmax", 1e-3, "pools by 'catavgmax'"), ("avg", 1e-5, "an epsilon of 1e-05")]
)
def test_a_pickled_model_of_another_pooling_or_epsilon_is_refused(tmp_path, pool, epsilon, message):
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.global_pool, model.bn1 = torch.nn.Module(), torch.nn.BatchNorm2d(1, eps=epsilon)
    model.global_pool.pool_type = pool
    torch.save(model, tmp_path / "enet_b0_8_best_vgaf.pt")
    with pytest.raises(ValueError, match=message):
        load_pickle(tmp_path / "enet_b0_8_best_vgaf.pt", run_its_code=True)


@pytest.mark.slow
def test_hsemotion_onnx_gives_the_features_of_the_exported_network(tmp_path):
    """timm's network as EmotiEffLib exports it, BatchNorm folded by the exporter, with 8 + 2 outputs."""
    torch = pytest.importorskip("torch")
    skip_without("timm", "onnx")
    name = "tf_efficientnet_b0.enet_b0_8_va_mtl"
    model = import_timm().create_model("tf_efficientnet_b0", num_classes=10, exportable=True).eval()
    state = model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    weights = {key: torch.from_numpy(value) for key, value in random_tensors(shapes, 2.0).items()}
    model.load_state_dict({**state, **weights})
    images = random_images(96)
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2))
    path = tmp_path / "enet_b0_8_va_mtl.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, inputs, str(path), dynamo=False)
    variables, cfg = convert_file("hsemotion", path)
    assert (cfg.name, cfg.tasks) == (name, ("emotion8", "valence_arousal"))
    outputs = jax.jit(model_from_cfg(cfg).apply)(variables, images)
    with torch.no_grad():
        expected = model(inputs).numpy()
    actual = np.concatenate([outputs["emotion8"], outputs["valence_arousal"]], axis=1)
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    with pytest.raises(ValueError, match=r"tf_efficientnet_b2 has \d+ convolutions"):
        from_onnx("tf_efficientnet_b2", load_onnx(path)[0], ("emotion8",))
