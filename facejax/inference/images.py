"""Photos as they come from users: files, bytes and arrays of any kind, made uint8 RGB or refused with the reason.

Nothing is taken on trust: a file must be a regular one (no device, no pipe that never ends) of bounded length, and the
size that its header states is bounded before memory is taken for its pixels (`facejax.data.decode`).
"""

import os
import pathlib
import stat

import numpy as np
from jaxtyping import UInt8

from facejax.data.decode import CorruptImageError, decode_image

Source = str | os.PathLike | bytes | np.ndarray

MAX_FILE_BYTES = 1 << 28  # an uncompressed photo of 89 megapixels
PHOTO_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Photos as well, and of a phone's folder often most: better told as not read than passed over.
UNREAD_SUFFIXES = frozenset({".avif", ".heic", ".heif"})


def read_image(source: Source) -> UInt8[np.ndarray, "height width 3"]:
    """A photo as uint8 RGB (height, width, 3), range 0-255.

    Args:
        source: A path, the bytes of a file, or an array. Files: JPEG, PNG, BMP, GIF, WebP or TIFF, turned as their EXIF
            says; grey, palette, 16-bit and CMYK are converted, alpha is dropped, of an animation the first picture is
            taken. Arrays: uint8 or uint16 (its upper byte), **RGB** order, never BGR; (height, width) and (height,
            width, 1) grey, (height, width, 3), or (height, width, 4), whose alpha is dropped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no photo, a damaged one, or too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), "the bytes given")
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"expected a path, bytes or an array as a photo, got {type(source).__name__}")
    path = pathlib.Path(source)
    return _decode(_read_bounded(path), str(path))


def _read_bounded(path: pathlib.Path) -> bytes:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such photo: {path}") from error
    except ValueError as error:  # a NUL in the name
        raise ValueError(f"not a file's name: {str(path)!r}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"expected a file with a photo, {path} is {'a folder' if path.is_dir() else 'no regular file'}"
        )
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {status.st_size} bytes; allowed are {MAX_FILE_BYTES}")
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)  # also where the file grows meanwhile


def _decode(data: bytes, name: str) -> np.ndarray:
    if data[4:8] == b"ftyp":
        raise CorruptImageError(f"{name}: a HEIC or AVIF photo or a video; save the photo as JPEG, PNG or WebP first")
    try:
        return decode_image(data)
    except CorruptImageError as error:
        raise CorruptImageError(f"{name}: {error}") from error


def _from_array(image: np.ndarray) -> np.ndarray:
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected an RGB array of uint8 (0-255) or uint16 (0-65535), got {image.dtype} {image.shape}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"expected one photo (height, width[, 1, 3 or 4 channels]) with pixels, got {image.shape}")
    image = np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image[..., :3]
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return np.ascontiguousarray(image)
