"""tf.train.Example messages without TensorFlow: encodes to and decodes from protobuf's wire format.

An Example is ``Features features = 1``; Features is ``map<string, Feature> feature = 1``, whose entries are messages
of key = 1 and value = 2; a Feature is one of BytesList = 1, FloatList = 2 and Int64List = 3, each with ``value = 1``
repeated (numbers packed). Source: tensorflow/core/example/feature.proto and the protobuf encoding guide.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Value = bytes | str | int | float | np.ndarray | np.generic | Sequence
Decoded = dict[str, list[Any]]  # of bytes, int or float, as stored

_LENGTH_DELIMITED = 2
_FIXED_SIZE = {1: 8, 5: 4}


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # negative int64: two's complement in ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(field: int, payload: bytes) -> bytes:
    return bytes((field << 3 | _LENGTH_DELIMITED,)) + _varint(len(payload)) + payload


def _feature(key: str, value: Value) -> bytes:
    if isinstance(value, bytes | str):
        value = [value]
    if isinstance(value, Sequence) and value and all(isinstance(item, bytes | str) for item in value):
        texts = (item.encode() if isinstance(item, str) else item for item in value)
        return _message(1, b"".join(_message(1, text) for text in texts))
    numbers = np.ravel(np.asarray(value))
    if numbers.dtype.kind == "f":
        packed = numbers.astype("<f4").tobytes()
        return _message(2, _message(1, packed) if packed else b"")
    if numbers.dtype.kind in "iub":
        packed = b"".join(_varint(number) for number in numbers.tolist())
        return _message(3, _message(1, packed) if packed else b"")
    raise TypeError(f"feature {key!r}: expected text, bytes or numbers, got {type(value).__name__} {numbers.dtype}")


def encode_example(features: Mapping[str, Value]) -> bytes:
    """Serialised tf.train.Example of named features.

    Args:
        features: Text (stored as UTF-8), bytes, integers (int64), floats (float32), or sequences and arrays of one of
            them; arrays are flattened. Keys are written in sorted order, so that equal features give equal bytes.

    Raises:
        TypeError: A value is of another type.
    """
    entries = (
        _message(1, _message(1, key.encode()) + _message(2, _feature(key, features[key]))) for key in sorted(features)
    )
    return _message(1, b"".join(entries))


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("varint of more than ten bytes")


def _fields(data: bytes, position: int, end: int):
    """Yields (field number, start, end) of each field; for a varint, start is its value and end is -1."""
    while position < end:
        # Nearly all tags and lengths are one byte long: avoiding a call for these halves the time per record.
        tag, position = data[position], position + 1
        if tag > 0x7F:
            tag, position = _read_varint(data, position - 1)
        wire = tag & 7
        if wire == _LENGTH_DELIMITED:
            size, position = data[position], position + 1
            if size > 0x7F:
                size, position = _read_varint(data, position - 1)
            if position + size > end:
                raise ValueError(f"field at byte {position} ends beyond its message")
            yield tag >> 3, position, position + size
            position += size
        elif wire == 0:
            value, position = _read_varint(data, position)
            yield tag >> 3, value, -1
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
            yield tag >> 3, position, position + size
            position += size
        else:
            raise ValueError(f"wire type {wire} at byte {position}")


def _signed(value: int) -> int:
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value


def _values(data: bytes, kind: int, position: int, end: int) -> list:
    values: list = []
    for field, start, stop in _fields(data, position, end):
        if field != 1:
            continue
        if kind == 1:
            values.append(data[start:stop])
        elif kind == 2:
            values.extend(struct.unpack(f"<{(stop - start) // 4}f", data[start:stop]))
        elif stop < 0:  # an int64 that is not packed
            values.append(_signed(start))
        else:
            while start < stop:
                value, start = data[start], start + 1
                if value > 0x7F:
                    value, start = _read_varint(data, start - 1)
                values.append(value if value < 1 << 63 else _signed(value))
    return values


def _entry(data: bytes, position: int, end: int) -> tuple[str, list]:
    """Key and values of an entry of the map of features."""
    key, values = "", []
    for part, start, stop in _fields(data, position, end):
        if part == 1:
            key = data[start:stop].decode()
        elif part == 2:
            for kind, list_start, list_end in _fields(data, start, stop):
                values = _values(data, kind, list_start, list_end)
    return key, values


def decode_example(data: bytes) -> Decoded:
    """Features of a serialised tf.train.Example, each as a list (bytes, int or float, as stored).

    Raises:
        ValueError: The bytes are not an Example.
    """
    features: Decoded = {}
    try:
        for field, start, end in _fields(data, 0, len(data)):
            if field != 1:
                continue
            for _, entry_start, entry_end in _fields(data, start, end):
                key, values = _entry(data, entry_start, entry_end)
                features[key] = values
    except (IndexError, struct.error, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"not a tf.train.Example: {error}") from error
    return features
