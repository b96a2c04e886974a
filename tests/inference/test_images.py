"""Every kind of photo becomes the same uint8 RGB array, or is rejected with its name."""

import io
import os
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

from facejax.inference import images
from facejax.inference.images import read_image


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Red above, blue below left, green below right; smooth, so that JPEG changes it little."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :, 0], picture[24:, :32, 2], picture[24:, 32:, 1] = 200, 220, 180
    return picture


def encoded(picture: np.ndarray, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, file_format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("file_format", "tolerance"), [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("JPEG", 60), ("WEBP", 60)]
)
def test_colours_and_places_survive(photo, tmp_path, file_format, tolerance):
    path = tmp_path / f"photo.{file_format.lower()}"
    path.write_bytes(encoded(photo, file_format))
    (tmp_path / "link").symlink_to(path)
    for source in (path, str(path), tmp_path / "link", path.read_bytes()):
        got = read_image(source)
        assert (got.shape, got.dtype) == (photo.shape, np.uint8)
        middles = np.abs(got[12::24, 16::32].astype(int) - photo[12::24, 16::32]).max()
        assert middles <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = read_image(encoded(photo, "JPEG", exif=exif, quality=95))
    turned = [photo, photo[:, ::-1], photo[::-1, ::-1], photo[::-1]]
    turned += [view.transpose(1, 0, 2) for view in (photo, photo[::-1], photo[::-1, ::-1], photo[:, ::-1])]
    expected = turned[orientation - 1]
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).mean() < 6


def test_grey_palette_alpha_and_sixteen_bits(photo):
    grey = read_image(encoded(photo[..., 0], "PNG"))
    assert (grey == photo[..., :1]).all()
    alpha = np.dstack([photo, np.full(photo.shape[:2], 40, np.uint8)])
    assert (read_image(encoded(alpha, "PNG")) == photo).all()
    palette = io.BytesIO()
    Image.fromarray(photo).convert("P", palette=Image.Palette.ADAPTIVE).save(palette, "PNG")
    assert np.abs(read_image(palette.getvalue()).astype(int) - photo).max() <= 4
    deep = io.BytesIO()
    Image.fromarray(photo[..., 0].astype(np.uint16) * 257).save(deep, "PNG")
    assert np.abs(read_image(deep.getvalue()).astype(int) - photo[..., :1]).max() <= 1
    cmyk = io.BytesIO()
    Image.fromarray(photo).convert("CMYK").save(cmyk, "JPEG", quality=95)
    assert np.abs(read_image(cmyk.getvalue())[12::24, 16::32].astype(int) - photo[12::24, 16::32]).max() < 60


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_picture_of_an_animation(photo, file_format):
    file = io.BytesIO()
    rest = [Image.fromarray(np.zeros_like(photo)), Image.fromarray(photo[::-1].copy())]
    Image.fromarray(photo).save(file, file_format, save_all=True, append_images=rest, duration=50)
    got = read_image(file.getvalue())
    assert np.abs(got[12::24, 16::32].astype(int) - photo[12::24, 16::32]).max() < 40


def test_arrays(photo):
    assert (read_image(photo) == photo).all()
    assert (read_image(photo.astype(np.uint16) * 257) == photo).all()
    assert (read_image(np.dstack([photo, photo[..., :1]])) == photo).all()
    grey = photo[..., 0]
    assert (read_image(grey) == grey[..., None]).all()
    assert (read_image(grey[..., None]) == grey[..., None]).all()
    assert read_image(photo[::-1, ::2]).flags.c_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), bool),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(9, np.uint8),
        np.zeros((4, 4), object),
    ],
    ids=str,
)
def test_arrays_that_could_mean_anything_are_refused(array):
    with pytest.raises(ValueError, match="expected"):
        read_image(array)


def test_what_is_no_photo_is_named(tmp_path, photo, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jpg"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ValueError, match="not a valid file name"):
        read_image("a\0b.jpg")
    with pytest.raises(ValueError, match="HEIC"):
        read_image(b"\0\0\0\x18ftypheic" + bytes(40))
    for data in (b"", b"GIF89a", b"\xff\xd8\xff", b"not a photo at all"):
        with pytest.raises(ValueError, match="the given bytes"):
            read_image(data)
    (tmp_path / "big.png").write_bytes(encoded(photo, "PNG"))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 50)
    with pytest.raises(ValueError, match="at most 50"):
        read_image(tmp_path / "big.png")


def test_no_more_of_a_file_is_read_than_is_allowed(tmp_path, photo, monkeypatch):
    """Even if the file has grown since its size was checked."""
    path, stat = tmp_path / "grown.png", pathlib.Path.stat
    path.write_bytes(encoded(photo, "PNG"))
    monkeypatch.setattr(images, "MAX_FILE_BYTES", path.stat().st_size // 2)

    def before(self, **options):
        told = list(stat(self, **options))
        told[6] = 10  # st_size
        return os.stat_result(told)

    monkeypatch.setattr(pathlib.Path, "stat", before)
    with pytest.raises(ValueError, match=r"grown\.png"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        read_image("/dev/zero")


def test_a_bomb_is_refused_by_its_header(photo):
    png = bytearray(encoded(photo, "PNG"))
    png[16:24] = struct.pack(">II", 100_000, 100_000)
    with pytest.raises(ValueError, match="100000 x 100000 pixels"):
        read_image(bytes(png))


def test_of_a_16_bit_array_the_upper_byte_is_taken():
    grey = np.array([[0x00FF, 0x0100], [0xAB12, 0xFFFF]], np.uint16)
    expected = np.array([[0, 1], [0xAB, 255]], np.uint8)
    np.testing.assert_array_equal(read_image(grey), np.repeat(expected[..., None], 3, axis=2))
