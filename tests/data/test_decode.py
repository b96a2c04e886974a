"""Decoding: size in the header against the decoded size, in every format; JPEGs against OpenCV; bombs and damage."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from facejax.data.decode import CorruptImageError, decode_image


@pytest.fixture(scope="module")
def photo():
    """Smooth colours, so that lossy formats stay close."""
    y, x = np.mgrid[0:37, 0:53]
    return np.stack([x * 4, y * 6, 255 - x * 3], axis=-1).astype(np.uint8)


def encoded(photo, extension, *options):
    return cv2.imencode(extension, photo[..., ::-1].copy(), list(options))[1].tobytes()


def check_stated_size(data):
    """The photo's size is known before its pixels are decoded."""
    with pytest.raises(CorruptImageError, match=r"^53 x 37 pixels; allowed are 1 to 1$"):
        decode_image(data, max_pixels=1)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".tiff", ".webp"])
def test_formats(photo, extension):
    data = encoded(photo, extension)
    check_stated_size(data)
    assert np.abs(decode_image(data).astype(int) - photo).mean() < (6 if extension in (".jpg", ".webp") else 0.01)


def test_headers_that_opencv_does_not_write(photo):
    """A BMP from its top row down, a big-endian TIFF, fill bytes before a marker of a JPEG."""
    bmp = bytearray(encoded(photo, ".bmp"))
    bmp[22:26] = struct.pack("<i", -37)
    np.testing.assert_array_equal(decode_image(bytes(bmp)), photo[::-1])
    width, length, bits, compression, colours, offsets, samples, counts = 256, 257, 258, 259, 262, 273, 277, 279
    tags = {width: 53, length: 37, bits: 8, compression: 1, colours: 1, offsets: 106, samples: 1, counts: 53 * 37}
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = struct.pack(">2sHIH", b"MM", 42, 8, len(tags)) + entries + bytes(106 - 10 - 12 * len(tags))
    grey = decode_image(tiff + photo[..., 0].tobytes())
    np.testing.assert_array_equal(grey, np.repeat(photo[..., :1], 3, axis=-1))
    jpeg = encoded(photo, ".jpg")
    filled = jpeg[:2] + b"\xff\xff" + jpeg[2:]
    check_stated_size(filled)
    np.testing.assert_array_equal(decode_image(filled), decode_image(jpeg))


def test_lossless_webp_and_progressive_jpeg(photo):
    check_stated_size(encoded(photo, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101))
    check_stated_size(encoded(photo, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1))


@pytest.mark.parametrize("kind", ["grey", "alpha", "deep"])
def test_other_pixels_become_rgb(photo, kind):
    pixels = {
        "grey": photo[..., 0],
        "alpha": np.concatenate([photo[..., ::-1], np.full((37, 53, 1), 255, np.uint8)], axis=-1),
        "deep": photo[..., ::-1].astype(np.uint16) * 257,
    }[kind]
    decoded = decode_image(cv2.imencode(".png", pixels)[1].tobytes())
    assert decoded.dtype == np.uint8
    expected = np.repeat(photo[..., :1], 3, axis=-1) if kind == "grey" else photo
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (37, 53), (130, 67)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpegs_are_those_of_opencv_bit_for_bit(size, mode, subsampling):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).convert(mode)
    for quality in (5, 60, 95):
        for progressive in (False, True):
            stream = io.BytesIO()
            image.save(stream, "jpeg", quality=quality, subsampling=subsampling, progressive=progressive)
            np.testing.assert_array_equal(decode_image(stream.getvalue()), by_opencv(stream.getvalue()))


def with_exif(photo, orientation, order="<"):
    """A JPEG whose EXIF data only contains the orientation."""
    tag = struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + tag
    data = encoded(photo, ".jpg")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.mark.parametrize("orientation", range(10))
def test_jpegs_are_turned_as_their_exif_says(photo, orientation):
    mirrored = photo[:, ::-1]
    turned = {2: mirrored, 3: np.rot90(photo, 2), 4: np.rot90(mirrored, 2), 5: np.rot90(mirrored, 1)}
    turned |= {6: np.rot90(photo, 3), 7: np.rot90(mirrored, 3), 8: np.rot90(photo, 1)}
    expected = turned.get(orientation, photo)
    for order in "<>":
        data = with_exif(photo, orientation, order)
        decoded = decode_image(data)
        assert decoded.shape == expected.shape
        assert np.abs(decoded.astype(int) - expected).mean() < 6
        np.testing.assert_array_equal(decoded, by_opencv(data))
        assert decoded.flags.c_contiguous


def test_a_damaged_exif_is_left_to_opencv(photo):
    data = bytearray(with_exif(photo, 6))
    data[20:22] = b"\xff\xff"  # the number of entries, only one of which is present
    np.testing.assert_array_equal(decode_image(bytes(data)), by_opencv(bytes(data)))
    with pytest.raises(CorruptImageError, match="damaged JPEG: Corrupt JPEG data"):
        decode_image(bytes(data[:-40]) + b"\xff\xd9")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("exif", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_whose_pixels_are_damaged(mode, exif, progressive):
    """Decoders silently fill what they cannot read with grey."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (130, 67, 3), np.uint8)).convert(mode)
    stream, orientation = io.BytesIO(), Image.Exif()
    orientation[0x0112] = 6
    noise.save(stream, "jpeg", progressive=progressive, **({"exif": orientation} if exif else {}))
    whole = stream.getvalue()
    decode_image(whole)
    half = len(whole) // 2
    for damaged in (whole[:half] + whole[half + 500 :], whole[:half] + b"\xff\xd9"):
        with pytest.raises(CorruptImageError, match="damaged JPEG: Corrupt JPEG data"):
            decode_image(damaged)


def test_bytes_too_many_in_a_jpeg_are_passed_over(photo):
    whole = encoded(photo, ".jpg")
    for data in (whole + b"trailer", whole[:-2] + b"padding" + whole[-2:]):
        np.testing.assert_array_equal(decode_image(data), decode_image(whole))


def test_damaged_jpegs_are_refused_or_those_of_opencv(photo):
    whole = encoded(photo, ".jpg")
    rng = np.random.default_rng(2)
    kept = 0
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(2, len(data), 2):
            data[place] = rng.integers(0, 256)
        try:
            decoded = decode_image(bytes(data), max_pixels=1 << 16)
        except CorruptImageError:
            continue
        np.testing.assert_array_equal(decoded, by_opencv(bytes(data)))
        kept += 1
    assert 50 < kept < 250


def test_jpegs_take_the_fast_decoder(photo, monkeypatch):
    taken = []
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data: taken.append(data) or photo)
    jpegs = [encoded(photo, ".jpg"), with_exif(photo, 6)]
    for data in (*jpegs, encoded(photo, ".png")):
        decode_image(data)
    assert taken == jpegs


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + end


@pytest.mark.parametrize("size", [(100_000, 100_000), (0, 10), (2**31 - 1, 1)])
def test_bombs_are_refused_before_they_are_decoded(size):
    with pytest.raises(CorruptImageError, match="pixels; allowed"):
        decode_image(png_header(*size))


def test_own_limit(photo):
    with pytest.raises(CorruptImageError, match="allowed are 1 to 100"):
        decode_image(encoded(photo, ".png"), max_pixels=100)


def test_truncated_jpeg(photo):
    data = encoded(photo, ".jpg")
    with pytest.raises(CorruptImageError, match="truncated JPEG"):
        decode_image(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("length", [2**31 - 1, 2**20])
def test_a_png_chunk_that_claims_more_than_there_is(photo, length):
    """OpenCV allocates as much memory as the chunk claims, 2 GB, before it notices that the file ends."""
    data = bytearray(encoded(photo, ".png"))
    place = data.index(b"IDAT") - 4
    data[place : place + 4] = struct.pack(">I", length)
    with pytest.raises(CorruptImageError, match="no end chunk"):
        decode_image(bytes(data))
    with pytest.raises(CorruptImageError, match="no end chunk"):
        decode_image(encoded(photo, ".png")[:-13])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"\0" * 100, "unknown image format"),
        (b"<html>404</html>", "starts with b'<html>40'"),
        (b"\xff\xd8", "damaged header"),
        (b"\xff\xd8\xff\xe0", "damaged header"),
        (b"BM", "damaged header"),
    ],
)
def test_no_image(data, words):
    with pytest.raises(CorruptImageError, match=words):
        decode_image(data)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".tiff", ".webp"])
def test_random_damage_is_an_image_or_a_clear_error(photo, extension):
    whole = encoded(photo, extension)
    rng, refused = np.random.default_rng(1), 0
    for _ in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, min(len(data), 64), 2):
            data[place] = rng.integers(0, 256)
        try:
            decode_image(bytes(data), max_pixels=1 << 16)
        except CorruptImageError:
            refused += 1
    assert refused > 75  # at least half of the files lose bytes that matter
