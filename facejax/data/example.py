"""tf.train.Example messages without TensorFlow: its schema, as Google's protobuf package reads and writes it.

Source: tensorflow/core/example/example.proto and feature.proto.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

Value = bytes | str | int | float | np.ndarray | np.generic | Sequence
Decoded = dict[str, list[Any]]  # of bytes, int or float, as stored

# The map from keys to features is declared as what protobuf stores it as, a list of entries: their order is then ours.
_SCHEMA = """
name: "facejax/example.proto" package: "facejax" syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
message_type {
  name: "Feature"
  oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".facejax.BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: ".facejax.FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".facejax.Int64List" oneof_index: 0 }
}
message_type {
  name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".facejax.Feature" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".facejax.Entry" }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".facejax.Features" }
}
"""


def _example_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("facejax.Example"))


_Example = _example_class()


def encode_example(features: Mapping[str, Value]) -> bytes:
    """Serialised tf.train.Example of named features.

    Args:
        features: Text (stored as UTF-8), bytes, integers (int64), floats (float32), or sequences and arrays of one of
            them; arrays are flattened. Keys are written in sorted order, so that equal features give equal bytes.

    Raises:
        TypeError: A value is of another type.
    """
    example = _Example()
    for key in sorted(features):
        _set(example.features.feature.add(key=key).value, key, features[key])
    return example.SerializeToString()


def _set(feature: Any, key: str, value: Value) -> None:
    if isinstance(value, bytes | str):
        value = [value]
    if isinstance(value, Sequence) and value and all(isinstance(item, bytes | str) for item in value):
        feature.bytes_list.value.extend(item.encode() if isinstance(item, str) else item for item in value)
        return
    numbers = np.ravel(np.asarray(value))
    if numbers.dtype.kind == "f":
        feature.float_list.value.extend(numbers.astype(np.float32).tolist())
        feature.float_list.SetInParent()  # also if it is empty
    elif numbers.dtype.kind in "iub":
        feature.int64_list.value.extend(numbers.astype(np.int64).tolist())
        feature.int64_list.SetInParent()
    else:
        raise TypeError(f"feature {key!r}: expected text, bytes or numbers, got {type(value).__name__} {numbers.dtype}")


def decode_example(data: bytes) -> Decoded:
    """Features of a serialised tf.train.Example, each as a list (bytes, int or float, as stored).

    Raises:
        ValueError: The bytes are not an Example.
    """
    try:
        entries = _Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example: {error}") from error
    return {entry.key: _values(entry.value) for entry in entries}


def _values(feature: Any) -> list:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []
