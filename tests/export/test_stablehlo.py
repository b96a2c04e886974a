"""A StableHLO file runs alone, with any batch size."""

import dataclasses

import jax
import numpy as np
import pytest

from facejax.export.mtcnn import mtcnn_networks
from facejax.export.network import face_network
from facejax.export.stablehlo import export_stablehlo, load_stablehlo
from tests.inference.toy import noise, toy_model


def test_round_trip(tmp_path):
    model = toy_model("age", "emotion7", channel_order="bgr")
    network = face_network(model, "shift")
    faces = [noise(50, 40, seed=i) for i in range(4)]
    path = tmp_path / "toy.stablehlo"
    export_stablehlo(network, path, faces)
    run, metadata = load_stablehlo(path)
    assert metadata["outputs"]["emotion7"]["labels"] == list(model.class_names("emotion7"))
    for count in (1, 3):
        got, expected = run(network.prepare(faces[:count])), model.predict(faces[:count])
        np.testing.assert_allclose(got["emotion7"], expected["emotion7"], atol=1e-5)
        np.testing.assert_allclose(got["age"], expected["age"], rtol=1e-4)


def test_mtcnn_and_a_p_net_of_any_size(tmp_path):
    for network in mtcnn_networks():
        path = tmp_path / f"{network.name}.stablehlo"
        metadata = export_stablehlo(network, path, [noise(60, 50, seed=1)])
        assert max(metadata["check"]["max_difference"].values()) < 1e-5
    pnet = mtcnn_networks()[0]
    run, _ = load_stablehlo(tmp_path / "pnet.stablehlo")
    for count, height, width in ((1, 12, 12), (2, 13, 31)):
        images = np.random.default_rng(0).uniform(0, 255, (count, height, width, 3)).astype(np.float32)
        np.testing.assert_allclose(run(images)["probability"], pnet.reference(images)["probability"], atol=1e-5)


def test_a_file_that_would_be_wrong_is_not_written(tmp_path):
    rnet = mtcnn_networks()[1]
    wrong = dataclasses.replace(
        rnet, reference=lambda images: {name: values + 0.01 for name, values in rnet.reference(images).items()}
    )
    with pytest.raises(ValueError, match="rnet: the export was not written, as its 'probability' differs"):
        export_stablehlo(wrong, tmp_path / "rnet.stablehlo", [noise(60, 50)])
    assert not list(tmp_path.iterdir())


def test_a_file_of_a_newer_jax_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "onet.stablehlo"
    onet = mtcnn_networks()[2]
    assert export_stablehlo(onet, path, [noise(60, 50, seed=1)])["jax"] == jax.__version__
    data = path.read_bytes()
    newer = data.replace(b"convolution_v1", b"convolution_v9")  # versions of operations are in their names
    assert newer != data
    for wrong in (newer, data[: len(data) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"cannot read .*onet\.stablehlo, written by JAX {jax.__version__}"):
            load_stablehlo(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"onet\.stablehlo"):
        load_stablehlo(path)
