"""Bundles are complete, and the example that runs them without JAX finds what the package finds."""

import hashlib
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
import skimage.data

from facejax.detect import MTCNN, sampling
from facejax.export.bundle import export_bundle
from facejax.export.onnx import export_onnx
from facejax.inference import FaceAnalyzer, LoadedModel
from tests.inference.toy import noise, toy_model

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "onnx_bundle.py"


@pytest.fixture(scope="module")
def model():
    return toy_model("age", "gender", "emotion7", channel_order="bgr")


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("bundles") / "onnx"
    export_bundle([model], folder, [noise(50, 40)], runtime="onnx", suffix=".onnx", export=export_onnx)
    return folder


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("onnx_bundle", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_manifest_describes_every_file(bundle, model):
    manifest = json.loads((bundle / "manifest.json").read_text())
    entries = [manifest["detector"][name] for name in ("pnet", "rnet", "onet")] + manifest["models"]
    files = {entry["file"] for entry in entries} | {"manifest.json", manifest["models"][0]["card"], "mtcnn.md"}
    assert files == {file.name for file in bundle.iterdir()}
    for entry in entries:
        data = (bundle / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest["models"][0]["outputs"]["emotion7"]["labels"][0] == "anger"
    assert (bundle / manifest["models"][0]["card"]).read_text() == model.card
    assert "MTCNN" in (bundle / "mtcnn.md").read_text()
    detector, cascade = MTCNN(), manifest["detector"]["cascade"]
    assert cascade["thresholds"] == list(detector.thresholds)
    assert (cascade["min_face"], cascade["factor"]) == (detector.min_face, detector.factor)
    assert "Art. 5(1)(f)" in manifest["use"]


def with_strong_heads(model: LoadedModel) -> LoadedModel:
    """The toy network, whose random weights hardly let its input through, with heads that amplify what is left."""
    params = {
        name: jax.tree.map(lambda w: 300 * w, tree) if name.startswith("head_") else tree
        for name, tree in model.variables["params"].items()
    }
    return LoadedModel(model.cfg, {**model.variables, "params": params})


@pytest.mark.parametrize(
    "preprocessing",
    [{"channel_order": "bgr"}, {"interpolation": "bicubic", "margin": 0.4}, {"interpolation": "nearest"}],
)
def test_the_example_finds_what_the_package_finds(example, preprocessing, tmp_path):
    model = with_strong_heads(toy_model("age", "emotion7", **preprocessing))
    export_bundle([model], tmp_path / "x", [noise(50, 40)], runtime="onnx", suffix=".onnx", export=export_onnx)
    astronaut = skimage.data.astronaut()
    photos = [astronaut, np.ascontiguousarray(astronaut[:, ::-1]), astronaut[:201, 120:340], noise(40, 40), noise(5, 5)]
    results = FaceAnalyzer([model]).analyze(photos)
    opened = example.Bundle(tmp_path / "x")
    assert sum(len(result.faces) for result in results) >= 3
    for photo, result in zip(photos, results, strict=True):
        got = opened.analyze(photo)
        assert len(got) == len(result.faces)
        for mine, face in zip(got, result.faces, strict=True):
            np.testing.assert_allclose(mine["box"], face.box, atol=0.01)
            np.testing.assert_allclose(mine["landmarks"], face.landmarks, atol=0.01)
            assert mine["score"] == pytest.approx(face.score, abs=1e-4)
            assert mine["age"] == pytest.approx(face.age, abs=0.02)
            np.testing.assert_allclose(mine["emotion7"], [*face.emotion.probabilities.values()], atol=1e-3)


def test_the_example_proposes_the_boxes_that_the_detector_proposes(example, bundle):
    photo = skimage.data.astronaut()
    opened, detector = example.Bundle(bundle), MTCNN()
    limits, suppression = opened.cascade["thresholds"], opened.cascade["suppression"]
    _, expected = detector._propose(sampling.integral_buffer([photo], None))
    got = opened._propose(photo, limits[0], suppression)
    assert len(got) == len(expected) > 100
    in_order = [boxes[np.lexsort(np.round(boxes, 1).T)] for boxes in (got, expected)]
    np.testing.assert_allclose(*in_order, atol=0.01)


def test_the_example_prints_classes_with_their_probability_and_values_as_they_are(
    example, tmp_path, monkeypatch, capsys
):
    photo = skimage.data.astronaut()[:250, 120:370]
    cv2.imwrite(str(tmp_path / "a.png"), photo[..., ::-1])
    models = [toy_model("emotion7", "valence_arousal")]
    export_bundle(models, tmp_path / "x", [noise(50, 40)], runtime="onnx", suffix=".onnx", export=export_onnx)
    monkeypatch.setattr(sys, "argv", ["onnx_bundle.py", str(tmp_path / "x"), str(tmp_path / "a.png")])
    example.main()
    number = r"[+-]\d+\.\d\d"
    assert re.search(rf"emotion7: \w+ \d+%; valence {number}; arousal {number}\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "a.png"], "nowhere contains no ONNX files: give the folder written by `facejax export --to onnx`"),
        (["BUNDLE", "none.png"], "cannot read none.png"),
        (["BUNDLE", "a.png", "--out", "nowhere/b.png"], "cannot write nowhere/b.png"),
    ],
)
def test_the_example_says_what_is_missing(arguments, words, example, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", noise(30, 30))
    monkeypatch.setattr(sys, "argv", ["onnx_bundle.py", *(str(bundle) if a == "BUNDLE" else a for a in arguments)])
    with pytest.raises(SystemExit, match="2"):
        example.main()
    assert words in capsys.readouterr().err


def test_the_example_drops_boxes_outside_the_photo(bundle, example, monkeypatch):
    opened = example.Bundle(bundle)
    boxes = np.array([[5, 60, 25, 80], [-9, 5, 0.9, 25], [4, 4, 30, 30]], np.float32)
    points = np.tile(np.array([[10, 10], [20, 10], [15, 15], [10, 20], [20, 20]], np.float32), (3, 1, 1))
    monkeypatch.setattr(opened, "detect", lambda photo: (boxes, np.array([0.9, 0.8, 0.7]), points))
    (face,) = opened.analyze(noise(50, 40))
    np.testing.assert_array_equal(face["box"], boxes[2])
    assert 0 < face["age"] < 100


def test_the_example_needs_neither_jax_nor_the_package():
    code = f"import sys, runpy; runpy.run_path({str(EXAMPLE)!r}); print('jax' in sys.modules, 'facejax' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/").stdout
    assert printed.split() == ["False", "False"]


def test_the_example_refuses_files_outside_the_bundle(bundle, example, tmp_path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["detector"]["pnet"]["file"] = "../onnx/pnet.onnx"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="must be in its folder"):
        example.Bundle(tmp_path)


def test_what_others_put_into_a_bundle_stays(model, tmp_path):
    export_bundle([model], tmp_path, [noise(9, 9)], runtime="onnx", suffix=".onnx", export=export_onnx)
    own = {path.name for path in tmp_path.iterdir()}
    foreign = {"README.md", "other.onnx", "notes.txt"}
    for name in foreign:
        (tmp_path / name).write_text("mine")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["models"][0] |= {"file": "gone.onnx", "card": "gone.md"}  # as from weights of another name
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for name in ("gone.onnx", "gone.onnx.json", "gone.md"):
        (tmp_path / name).write_text("of an older bundle")
    export_bundle([model], tmp_path, [noise(9, 9)], runtime="onnx", suffix=".onnx", export=export_onnx)
    assert {path.name for path in tmp_path.iterdir()} == own | foreign
    assert {(tmp_path / name).read_text() for name in foreign} == {"mine"}


def test_an_older_bundle_is_replaced_and_other_folders_are_not(model, bundle, tmp_path):
    def broken(network, path, faces):
        path.write_bytes(b"half")
        raise ValueError("no")

    before = sorted(bundle.iterdir())
    with pytest.raises(ValueError, match="no"):
        export_bundle([model], bundle, [noise(9, 9)], runtime="onnx", suffix=".onnx", export=broken)
    assert sorted(bundle.iterdir()) == before
    assert len(list(bundle.parent.iterdir())) == 1
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        export_bundle([model], tmp_path, [noise(9, 9)], runtime="onnx", suffix=".onnx", export=export_onnx)
