"""Precomputed noise, cropped at random: drawing normal numbers for every pixel would cost more than rendering."""

import functools

import cv2
import numpy as np
from jaxtyping import Float

BANK = 1024


@functools.cache
def _bank() -> Float[np.ndarray, "bank bank"]:
    return np.random.default_rng(20210717).standard_normal((BANK, BANK), np.float32)


def white(rng: np.random.Generator, rows: int, columns: int) -> Float[np.ndarray, "rows columns"]:
    """White noise, mean 0 and standard deviation 1: a random, possibly mirrored crop of the bank.

    Raises:
        ValueError: The size is larger than the bank.
    """
    if rows > BANK or columns > BANK:
        raise ValueError(f"noise of {rows} x {columns} pixels is larger than the bank of {BANK} x {BANK}")
    top, left = int(rng.integers(BANK - rows + 1)), int(rng.integers(BANK - columns + 1))
    cut = _bank()[top : top + rows, left : left + columns]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


def smooth(rng: np.random.Generator, rows: int, columns: int, scale: float) -> Float[np.ndarray, "rows columns"]:
    """Noise with blobs of about `scale` pixels, mean about 0 and standard deviation 1."""
    step = max(1, int(scale / 1.5))
    sigma = scale / step
    coarse = cv2.GaussianBlur(white(rng, rows // step + 3, columns // step + 3), (0, 0), sigma)
    # White noise blurred by a Gaussian keeps 1 / (2 sigma sqrt(pi)) of its standard deviation.
    coarse *= 2 * sigma * np.sqrt(np.pi)
    return cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
