"""A StableHLO file runs alone, with any batch size."""

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


def test_networks_of_any_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="any size"):
        export_stablehlo(mtcnn_networks()[0], tmp_path / "pnet.stablehlo", [noise(40, 40)])
