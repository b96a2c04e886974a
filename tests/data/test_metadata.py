"""The folder against tensorflow_datasets: its metadata without TensorFlow, and its records with (slow)."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from facejax.data.metadata import Field, class_names, find_set, infer_field, read_fields, read_splits
from facejax.tasks import EMOTION8, GENDER
from tests.data.toy_set import FIELDS, image_of, labels_of, write_toy_set


def test_round_trip(tmp_path):
    directory = write_toy_set(tmp_path, 10)
    fields = read_fields(directory)
    assert {key: fields[key] for key in FIELDS} == FIELDS
    assert [(path.name, count) for path, count in read_splits(directory)["train"]] == [
        ("toy-train.tfrecord-00000-of-00003", 4),
        ("toy-train.tfrecord-00001-of-00003", 3),
        ("toy-train.tfrecord-00002-of-00003", 3),
    ]


def test_names_of_classes():
    assert class_names("emotion") == EMOTION8
    assert class_names("gender") == GENDER
    assert class_names("age") == class_names("identity") == class_names("person") == ()


def test_set_that_is_not_there(tmp_path):
    write_toy_set(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'toy'.*tools/prepare_dataset.py toys --raw"):
        find_set(tmp_path, "toys")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xff", b'{"featuresDict": {"features": {"a": 1}}}'])
@pytest.mark.parametrize(("name", "read"), [("features.json", read_fields), ("dataset_info.json", read_splits)])
def test_damaged_files_are_named(tmp_path, name, read, content):
    directory = write_toy_set(tmp_path, 3)
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\): copy it again, or delete its folder"):
        read(directory)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ([1, np.int32(2)], Field("int64")),
        ([1, 2.5], Field("float32")),
        ([2.5, 1], Field("float32")),
        (["a"], Field("text")),
        ([(0.1, 0.2), np.zeros(2)], Field("float32", 2)),
    ],
)
def test_types_of_labels(values, field):
    known = None
    for value in values:
        known = infer_field("label", value, known)
    assert known == field


@pytest.mark.parametrize("values", [[1, "a"], [(1.0, 2.0), 3.0], [None], [["a"]]])
def test_labels_that_fit_no_type(values):
    known = None
    with pytest.raises(TypeError, match="label 'label'"):
        for value in values:
            known = infer_field("label", value, known)


def test_tfds_reads_the_metadata_without_tensorflow(tmp_path):
    """In a separate process: importing tensorflow_datasets warns, and pytest turns warnings into errors."""
    write_toy_set(tmp_path, 10)
    script = """
import json, sys
import tensorflow_datasets as tfds
info = tfds.builder_from_directory(sys.argv[1]).info
assert "tensorflow" not in sys.modules
print(json.dumps({
    "examples": info.splits["train"].num_examples,
    "shards": info.splits["train"].shard_lengths,
    "files": [str(path.name) for path in info.splits["train"].filepaths],
    "emotions": info.features["emotion"].names,
    "pair": info.features["valence_arousal"].shape,
    "keys": sorted(info.features),
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "toy" / "1.0.0")], capture_output=True, text=True, check=True
    )
    read = json.loads(done.stdout.splitlines()[-1])
    assert read["examples"] == 10
    assert read["shards"] == [4, 3, 3]
    assert read["files"][2] == "toy-train.tfrecord-00002-of-00003"
    assert read["emotions"] == list(EMOTION8)
    assert read["pair"] == [2]
    assert read["keys"] == sorted([*FIELDS, "image", "id", "bbox", "score", "num_faces"])


@pytest.mark.slow
def test_tfds_reads_the_records_with_tensorflow(tmp_path):
    """Needs TensorFlow, importable here or by the interpreter FACEJAX_TF_PYTHON.

    FACEJAX_TF_PYTHON=/path/to/venv/bin/python pytest --slow tests/data/test_metadata.py
    (that environment needs tensorflow or tensorflow-cpu, and tensorflow-datasets)
    """
    python = os.environ.get("FACEJAX_TF_PYTHON")
    if python is None and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow: set FACEJAX_TF_PYTHON to an interpreter that has it and tensorflow-datasets")
    write_toy_set(tmp_path, 10)
    script = """
import sys
import numpy as np
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
dataset = builder.as_dataset(split="train", shuffle_files=False)
rows = sorted(tfds.as_numpy(dataset), key=lambda row: row["id"])
np.savez(sys.argv[2], **{key: np.stack([row[key] for row in rows]) for key in rows[0]})
"""
    out = tmp_path / "read.npz"
    arguments = [python or sys.executable, "-c", script, str(tmp_path / "toy" / "1.0.0"), str(out)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as read:
        assert (read["image"] == np.stack([image_of(index) for index in range(10)])).all()
        assert [text.decode() for text in read["id"]] == [f"photos/{index:03d}.jpg" for index in range(10)]
        for key in ("emotion", "age", "valence_arousal"):
            np.testing.assert_array_equal(read[key], FIELDS[key].column([labels_of(index)[key] for index in range(10)]))
