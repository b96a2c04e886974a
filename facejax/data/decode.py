"""Decodes photos from bytes; the size is checked before any memory is allocated for them.

OpenCV is the reference decoder. Common JPEGs, such as the crops in shards, are decoded by simplejpeg, which gives the
same pixels in two thirds of the time: both use libjpeg-turbo with its exact transform. simplejpeg also reports damage
in the compressed pixels, which OpenCV only prints, so it is run on all other JPEGs too.
"""

import struct

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

MAX_PIXELS = 1 << 27  # 134 megapixels; the largest cameras have fewer, decompression bombs more
_JPEG = b"\xff\xd8"  # start of image
_ORIENTATION = 274  # EXIF tag; its values 1 to 8 encode the rotation or mirroring that makes a photo upright
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class CorruptImageError(ValueError):
    """The bytes are not a readable photo; the message says why."""


def _header(data: bytes) -> tuple[int, int, int | None]:
    """Height, width, and the EXIF orientation of a JPEG that simplejpeg can decode (`_jpeg_header`), otherwise None.

    A JPEG or PNG without its end marker is treated as corrupt, because decoders silently fill the missing part with
    grey; so is a PNG whose chunk claims more bytes than the file has, because OpenCV allocates them all (2 GB).
    """
    try:
        if data[:2] == _JPEG:
            return _jpeg_header(data)
        return *_other_dimensions(data), None
    except (struct.error, IndexError) as error:
        raise CorruptImageError(f"damaged header: {error}") from error


def _other_dimensions(data: bytes) -> tuple[int, int]:
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return _png_dimensions(data)
    if data[:2] == b"BM":
        width, height = struct.unpack("<ii", data[18:26])
        return abs(height), width
    if data[:4] == b"GIF8":
        width, height = struct.unpack("<HH", data[6:10])
        return height, width
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_dimensions(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_dimensions(data)
    raise CorruptImageError(f"unknown image format: starts with {data[:8]!r}" if data else "the file is empty")


def _jpeg_header(data: bytes) -> tuple[int, int, int | None]:
    """Height, width, and the EXIF orientation, which is None unless the JPEG is 8-bit with one or three channels."""
    position, size, usual, exif = 2, None, True, b""
    while True:
        if data[position] != 0xFF:
            raise CorruptImageError(f"damaged JPEG: no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _JPEG_FRAMES:
            precision, *size, channels = struct.unpack(">BHHB", data[position + 4 : position + 10])
            usual = usual and precision == 8 and channels in (1, 3)
        if marker == 0xDA:  # start of scan: the compressed pixels follow
            if size is None:
                raise CorruptImageError("damaged JPEG: pixels before the frame header")
            if data.rfind(b"\xff\xd9", position) < 0:  # searched from the end, where it is in a complete file
                raise CorruptImageError("truncated JPEG: no end marker")
            return size[0], size[1], _orientation(exif) if usual else None
        standalone = marker == 0x01 or 0xD0 <= marker <= 0xD9
        end = position + (2 if standalone else 2 + struct.unpack(">H", data[position + 2 : position + 4])[0])
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            exif = exif or data[position + 10 : end]
        position = end


def _orientation(exif: bytes) -> int | None:
    """1 to 8; 1 if the EXIF data (a TIFF without pixels) has none; None if damaged, in which case OpenCV guesses."""
    try:
        orientation = _tiff_tags(exif, (_ORIENTATION,)).get(_ORIENTATION, 1) if exif else 1
    except struct.error:
        return None
    return orientation if 1 <= orientation <= 8 else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(image[::rows, ::columns])


def _png_dimensions(data: bytes) -> tuple[int, int]:
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IEND":
            width, height = struct.unpack(">II", data[16:24])
            return height, width
        position += 12 + length
    raise CorruptImageError("truncated or damaged PNG: no end chunk")


def _webp_dimensions(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return height & 0x3FFF, width & 0x3FFF


def _tiff_dimensions(data: bytes) -> tuple[int, int]:
    found = _tiff_tags(data, (256, 257))
    if len(found) < 2:
        raise CorruptImageError("damaged TIFF: its first directory states no size")
    return found[257], found[256]


def _tiff_tags(data: bytes, wanted: tuple[int, ...]) -> dict[int, int]:
    """Whole numbers in the first directory of a TIFF, by tag."""
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack(order + "I", data[4:8])
    (entries,) = struct.unpack(order + "H", data[directory : directory + 2])
    found = {}
    for start in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind = struct.unpack(order + "HH", data[start : start + 4])
        if tag in wanted:
            form, size = ("H", 2) if kind == 3 else ("I", 4)
            (found[tag],) = struct.unpack(order + form, data[start + 8 : start + 8 + size])
    return found


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes an image file to RGB: uint8, range 0-255, rotated according to its EXIF orientation.

    Grey, palette and 16-bit images are converted. Alpha is dropped, except that OpenCV multiplies a TIFF by its alpha.

    Raises:
        CorruptImageError: The format is unknown, or the file is damaged, truncated, or larger than `max_pixels` pixels.
    """
    height, width, orientation = _header(data)
    if not 0 < height * width <= max_pixels:
        raise CorruptImageError(f"{width} x {height} pixels; allowed are 1 to {max_pixels}")
    if data[:2] == _JPEG:
        try:
            image = simplejpeg.decode_jpeg(data)
            if orientation is not None:
                return _upright(image, orientation)
        except ValueError as error:
            # libjpeg fills what it cannot read with grey. Extra bytes between the pixels and the end marker, which some
            # cameras write, are harmless; such files, and those that simplejpeg rejects, are left to OpenCV.
            if str(error).startswith("Corrupt JPEG data") and not str(error).endswith("bytes before marker 0xd9"):
                raise CorruptImageError(f"damaged JPEG: {error}") from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise CorruptImageError(f"OpenCV cannot decode it: {error}") from error
    if image is None:
        raise CorruptImageError("OpenCV cannot decode it")
    return image
