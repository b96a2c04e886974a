"""Hostile input: every photo, array, name and result file either works or is a ValueError or OSError. Seeded.

Quick: 600 mutated photos (8 formats x 5 kinds of damage x 15), 200 random byte strings, 200 odd arrays.
Slow: 40 times as many photos. Each must end within seconds, with no more memory than its header allows.
"""

import io
import resource
import struct
import time

import numpy as np
import pytest
from PIL import Image

from facejax.cli.results_file import ResultsFile, read_results
from facejax.inference import FaceAnalyzer, read_image
from tests.inference.toy import FixedDetector, noise, toy_model

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "TIFF_LZW", "JPEG_PROGRESSIVE")
DAMAGES = ("bits", "cut", "splice", "header", "insert")
PER_KIND = 15
# What one photo may take: far above a real one of this size, far below a bomb.
MAX_SECONDS, MAX_GROWTH = 5.0, 1 << 30


def photo(file_format: str) -> bytes:
    file = io.BytesIO()
    options = {"TIFF_LZW": {"compression": "tiff_lzw"}, "JPEG_PROGRESSIVE": {"progressive": True}}.get(file_format, {})
    Image.fromarray(noise(48, 64)).save(file, file_format.partition("_")[0], **options)
    return file.getvalue()


def damaged(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    buffer = bytearray(data)
    if kind == "bits":
        for place in rng.integers(0, len(buffer), rng.integers(1, 20)):
            buffer[place] ^= 1 << rng.integers(0, 8)
    elif kind == "cut":
        del buffer[rng.integers(0, len(buffer)) :]
    elif kind == "splice":
        start, end = np.sort(rng.integers(0, len(buffer), 2))
        buffer[start:end] = rng.bytes(int(end - start))
    elif kind == "header":
        place = rng.integers(0, 64)
        buffer[place : place + 4] = struct.pack(
            ">I", int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**32 - 1]))
        )
    else:
        place = rng.integers(0, len(buffer))
        buffer[place:place] = rng.bytes(int(rng.integers(1, 300)))
    return bytes(buffer)


def survive(source) -> bool:
    """Whether the photo could be read; only these two kinds of error may occur, in bounded time and memory."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        image = read_image(source)
    except (ValueError, OSError):
        return False
    finally:
        assert time.monotonic() - start < MAX_SECONDS
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_GROWTH
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    return True


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_photos(file_format):
    data, rng = photo(file_format), np.random.default_rng(FORMATS.index(file_format))
    assert survive(data)
    read = [survive(damaged(data, kind, rng)) for kind in DAMAGES for _ in range(PER_KIND)]
    assert len(read) == 75
    assert not all(read)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
def test_many_damaged_photos(file_format):
    data, rng = photo(file_format), np.random.default_rng([7, FORMATS.index(file_format)])
    read = [survive(damaged(data, kind, rng)) for kind in DAMAGES for _ in range(40 * PER_KIND)]
    assert 0 < sum(read) < len(read) == 3000


def test_random_bytes_with_and_without_a_signature():
    rng = np.random.default_rng(0)
    starts = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*")
    for index in range(200):
        assert not survive(starts[index % len(starts)] + rng.bytes(int(rng.integers(0, 2000))))


def test_odd_arrays():
    rng = np.random.default_rng(0)
    dtypes = (
        "uint8",
        "uint16",
        "int16",
        "int64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "bool",
        "object",
        "U3",
        "S2",
    )
    for _ in range(200):
        shape = tuple(rng.integers(0, 6, rng.integers(0, 5)).tolist())
        dtype = dtypes[rng.integers(len(dtypes))]
        is_photo = len(shape) in (2, 3) and min(shape) > 0 and shape[2:] in [(), (1,), (3,), (4,)]
        assert survive(np.zeros(shape, dtype)) == (is_photo and dtype in ("uint8", "uint16"))


@pytest.mark.parametrize("source", ["", ".", "\0", "a" * 5000, "/dev/null/x.jpg", b""], ids=repr)
def test_odd_names(source):
    assert not survive(source)


def test_odd_faces_of_a_detector():
    """Boxes that are empty, inside out, huge or far outside: a result, or the face is dropped."""
    analyzer = FaceAnalyzer([toy_model("gender")], FixedDetector([]))
    rng = np.random.default_rng(0)
    for _ in range(40):
        boxes = rng.choice([-1e6, -50, -0.5, 0, 0.4, 1, 30, 59.9, 60, 61, 1e6], (5, 4))
        analyzer.detector = FixedDetector(boxes)
        result = analyzer.analyze(noise(50, 60))
        assert len(result.faces) <= 5
        assert result.draw().shape == (50, 60, 3)


def test_a_results_file_that_was_cut_anywhere(tmp_path):
    with ResultsFile(tmp_path, {}) as file:
        for index in range(5):
            file.add(f"photo {index}", {"faces": [index]})
    whole = file.path.read_bytes()
    for length in range(0, len(whole), 7):
        file.path.write_bytes(whole[:length])
        with ResultsFile(tmp_path, {}) as again:
            kept = len(again.keys)
            again.add("new", {"faces": []})
        assert len(list(read_results(file.path))) == kept + 1
