"""tf.train.Example against the message types that TensorFlow Datasets has of it."""

import numpy as np
import pytest

from facejax.data.example import decode_example, encode_example


@pytest.fixture(scope="module")
def example_class():
    """tf.train.Example as TensorFlow Datasets compiled it from TensorFlow's own definition."""
    from tensorflow_datasets.proto import tf_example_generated_pb2

    return tf_example_generated_pb2.Example


FEATURES = {
    "image": bytes(range(256)) * 3,
    "id": "Zoë/größe.jpg",
    "emotion": 7,
    "missing": -1,
    "large": np.array([0, 127, 128, 2**31, 2**63 - 1, -(2**63)]),
    "box": np.array([1.5, -2.25, 3e30, 0.0], np.float32),
    "score": 0.25,
    "names": ["a", "", "bc"],
    "empty": np.zeros(0, np.float32),
}


def test_protobuf_reads_what_is_written(example_class):
    message = example_class.FromString(encode_example(FEATURES))
    feature = message.features.feature
    assert set(feature) == set(FEATURES)
    assert list(feature["image"].bytes_list.value) == [FEATURES["image"]]
    assert feature["id"].bytes_list.value[0].decode() == FEATURES["id"]
    assert list(feature["emotion"].int64_list.value) == [7]
    assert list(feature["missing"].int64_list.value) == [-1]
    assert list(feature["large"].int64_list.value) == FEATURES["large"].tolist()
    assert list(feature["box"].float_list.value) == FEATURES["box"].tolist()
    assert list(feature["score"].float_list.value) == [0.25]
    assert list(feature["names"].bytes_list.value) == [b"a", b"", b"bc"]
    assert len(feature["empty"].float_list.value) == 0


def test_what_protobuf_writes_is_read(example_class):
    message = example_class()
    feature = message.features.feature
    feature["image"].bytes_list.value.append(FEATURES["image"])
    feature["large"].int64_list.value.extend(FEATURES["large"].tolist())
    feature["box"].float_list.value.extend([0.5, -1.25])
    decoded = decode_example(message.SerializeToString())
    assert decoded == {
        "image": [FEATURES["image"]],
        "large": FEATURES["large"].tolist(),
        "box": [0.5, -1.25],
    }


def test_hand_built_bytes():
    expected = bytes.fromhex("0a0e0a0c0a016112071a050a03960101")
    assert encode_example({"a": [150, 1]}) == expected
    unpacked = bytes.fromhex("0a0e0a0c0a016112071a050896010801")
    assert decode_example(unpacked) == {"a": [150, 1]}


def test_order_of_keys_does_not_matter():
    assert encode_example({"a": 1, "b": 2.0}) == encode_example({"b": 2.0, "a": 1})


@pytest.mark.parametrize("value", [None, object(), [b"a", 1]])
def test_other_types_are_refused(value):
    with pytest.raises((TypeError, ValueError)):
        encode_example({"a": value})


def test_damaged_bytes_end_in_value_error_only():
    whole = encode_example(FEATURES)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(2000):
        damaged = bytearray(whole[: rng.integers(0, len(whole))])
        for _ in range(3):
            if damaged:
                damaged[rng.integers(0, min(len(damaged), 60))] = rng.integers(0, 256)
        try:
            decode_example(bytes(damaged))
        except ValueError:
            refused += 1
    assert refused > 1000
