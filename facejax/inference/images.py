"""Reads photos supplied by users: files, bytes and arrays are converted to uint8 RGB or rejected with the reason.

Input is not trusted: a file must be a regular file (not a device, nor a pipe that never ends) of bounded length, and
the image size stated in its header is checked before memory is allocated for its pixels (`facejax.data.decode`).
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
# Photos too, and often most of a phone's folder: reported as unreadable rather than silently skipped.
UNREAD_SUFFIXES = frozenset({".avif", ".heic", ".heif"})


def read_image(source: Source) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a photo as uint8 RGB (height, width, 3), range 0-255.

    Args:
        source: A path, the bytes of a file, or an array. Files: JPEG, PNG, BMP, GIF, WebP or TIFF, rotated by their
            EXIF orientation; grey, palette, 16-bit and CMYK are converted, alpha is dropped, and of an animation the
            first frame is used. Arrays: uint8 or uint16 (its upper byte), **RGB** order, never BGR; (height, width) and
            (height, width, 1) grey, (height, width, 3), or (height, width, 4), whose alpha is dropped.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a photo, is damaged, or is too large.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), "the given bytes")
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
        raise ValueError(f"not a valid file name: {str(path)!r}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"expected a photo file, but {path} is {'a folder' if path.is_dir() else 'not a regular file'}"
        )
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {status.st_size} bytes; at most {MAX_FILE_BYTES} are allowed")
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)  # the file may have grown in the meantime


def _decode(data: bytes, name: str) -> np.ndarray:
    if data[4:8] == b"ftyp":
        raise CorruptImageError(f"{name} is a HEIC or AVIF photo or a video; save the photo as JPEG, PNG or WebP first")
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
