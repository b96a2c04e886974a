"""Networks of the same name get separate files in every format."""

import dataclasses
import json
import re
import sys

import jax
import numpy as np
import pytest

from facejax.export import formats, network
from facejax.export.bundle import export_bundle, unique_stems
from facejax.export.formats import export_models
from facejax.inference import LoadedModel, load_model
from tests.inference.toy import noise, toy_model


def trained(*tasks, seed=0):
    """A network as saved by training: its name is just the architecture."""
    model = toy_model(*tasks, seed=seed)
    return LoadedModel(dataclasses.replace(model.cfg, tag=""), model.variables)


def test_orbax_keeps_networks_of_one_name_apart(tmp_path):
    models = [trained("age", "gender"), trained("age", "gender", seed=1)]
    assert {model.cfg.name for model in models} == {"mobilenet_v1"}
    told = export_models(models, tmp_path, "orbax", [noise(40, 40)])
    assert list(told) == ["mobilenet_v1_age_gender", "mobilenet_v1_age_gender_2"]
    for stem, model in zip(told, models, strict=True):
        written = load_model(tmp_path / stem)
        assert written.cfg == model.cfg
        assert jax.tree.all(jax.tree.map(np.array_equal, written.variables, model.variables))


def test_a_bundle_keeps_networks_of_one_name_apart(tmp_path):
    def export(network, path, faces):
        path.write_text(" ".join(network.outputs))
        return network.metadata

    models = [trained("age", "gender"), trained("emotion7")]
    export_bundle(models, tmp_path / "x", [noise(9, 9)], runtime="onnx", suffix=".onnx", export=export)
    entries = json.loads((tmp_path / "x/manifest.json").read_text())["models"]
    assert [entry["file"] for entry in entries] == ["mobilenet_v1_age_gender.onnx", "mobilenet_v1_emotion7.onnx"]
    assert [(tmp_path / "x" / entry["file"]).read_text() for entry in entries] == [
        "features age gender",
        "features emotion7",
    ]
    assert [(tmp_path / "x" / entry["card"]).read_text() for entry in entries] == [model.card for model in models]


@pytest.mark.parametrize(
    ("format_", "package"),
    [
        ("onnx", "onnxruntime"),
        ("stablehlo", "flatbuffers"),
        ("litert", "ai_edge_quantizer"),
        ("litert", "litert_converter (only published for Linux on x86-64 and macOS)"),
    ],
)
def test_a_missing_package_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch, format_, package):
    monkeypatch.setitem(sys.modules, package.split()[0], None)
    with pytest.raises(ImportError, match=re.escape(f"{format_} needs {package}: pip install 'facejax[")):
        export_models([toy_model("age")], tmp_path / "x", format_, [noise(40, 40)])
    assert not list(tmp_path.iterdir())


def test_int8_is_calibrated_with_other_faces_than_it_is_checked_on(tmp_path, monkeypatch):
    told = {}

    def written(network, path, faces, *, kind, calibration):
        told[network.name] = kind, [len(face) for face in faces], [len(face) for face in calibration]
        path.write_bytes(b"")
        return network.metadata

    monkeypatch.setattr(formats, "export_litert", written)
    faces = [noise(10 + number, 10) for number in range(10)]
    export_models([toy_model("age")], tmp_path / "x", "litert_int8", faces)
    checked, calibrated = [10, 11], list(range(12, 20))
    assert told.pop("mobilenet_v1.toy") == ("int8", checked, calibrated)
    assert told == dict.fromkeys(("pnet", "rnet", "onet"), ("float32", checked, calibrated))
    export_models([toy_model("age")], tmp_path / "x", "litert_float16", faces)
    assert told["mobilenet_v1.toy"] == ("float16", list(range(10, 20)), [])
    export_models([toy_model("age")], tmp_path / "x", "litert", faces)
    assert told["mobilenet_v1.toy"] == ("float32", list(range(10, 20)), [])


def test_an_orbax_folder_that_would_be_wrong_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "_TOLERANCE", -1)
    with pytest.raises(ValueError, match="the export was not written"):
        export_models([toy_model("gender")], tmp_path, "orbax", [noise(9, 9)])
    assert not list(tmp_path.iterdir())


def test_stems_are_the_names_where_these_differ():
    assert unique_stems([toy_model("age"), trained("gender")]) == ["mobilenet_v1.toy", "mobilenet_v1"]
