"""Clips as a browser records them: a timestamp for each frame, and no rate in the header."""

import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

# Matroska elements: containers of others, the cluster's time, blocks, and the duration of all frames.
_HOLDERS, _CLUSTER_TIME, _BLOCKS = (0x18538067, 0x1F43B675, 0xA0), 0xE7, (0xA1, 0xA3)
_FRAME_LENGTH = b"\x23\xe3\x83"


def write_webm(path: pathlib.Path, images: Sequence[np.ndarray], milliseconds: Sequence[int]) -> None:
    """RGB images in VP8, each with its time; less than 32 seconds. Skips where OpenCV writes no VP8."""
    size = images[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 25, size)
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no VP8")
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()
    data = bytearray(path.read_bytes())
    place = data.index(_FRAME_LENGTH)
    length = data[place + 3] & 0x7F
    data[place : place + 4 + length] = bytes([0xEC, 0x80 | (2 + length)]) + bytes(2 + length)  # a void of that size
    times, place, cluster = iter(milliseconds), 0, 0
    while place < len(data) - 2:
        kind, of_kind = _number(data, place, marked=True)
        size, of_size = _number(data, place + of_kind)
        place += of_kind + of_size
        if kind in _HOLDERS:
            continue
        if kind == _CLUSTER_TIME:
            cluster = int.from_bytes(data[place : place + size], "big")
        elif kind in _BLOCKS:
            data[place + 1 : place + 3] = (next(times) - cluster).to_bytes(2, "big", signed=True)
        place += size
    path.write_bytes(data)


def _number(data: bytearray, place: int, *, marked: bool = False) -> tuple[int, int]:
    """A number whose first bits give its length in bytes, and that length; ids keep these bits."""
    length = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + length], "big")
    return value if marked else value & ((1 << 7 * length) - 1), length
