"""How a face crop becomes a network's input: a single definition shared by training, evaluation, export and apps.

Most of the accuracy that users lose between a paper and their own program is lost here (channel order, resize kernel,
mean and scale), so the definition is stored with the weights (`facejax.models.pretrained.PretrainedCfg`).
"""

import dataclasses
import math
import numbers
from typing import Literal

import cv2
import numpy as np

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, channel order and normalisation of a network's input.

    Attributes:
        image_size: Height and width of the input in pixels; crops are stretched to it, not padded (as in the paper's
            published code).
        mean: Per-channel mean, in `channel_order`, subtracted after `scale` is applied.
        std: Per-channel standard deviation; divides the result after the mean is subtracted.
        scale: Factor on the 0-255 pixel values, applied before the mean.
        channel_order: Channel order that the network expects. Images are RGB everywhere else in facejax.
        interpolation: Resize kernel (OpenCV's; no anti-aliasing except in ``area``). The paper's code trains on crops
            resized by PIL's bilinear kernel, which smooths when downscaling; its ONNX package uses OpenCV's with the
            same networks.
        margin: Margin around the detector's box, as a fraction of its size (paper section 3: none).
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    channel_order: Literal["rgb", "bgr"] = "rgb"
    interpolation: Interpolation = "bilinear"
    margin: float = 0.0

    def __post_init__(self):
        """Raises a ValueError for invalid values, also when read from a file, rather than failing late or never."""
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise ValueError(f"expected image_size as a positive whole number of pixels, got {self.image_size!r}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if len(value) != 3 or not all(map(_is_finite, value)):
                raise ValueError(f"expected three finite numbers for {name}, got {value!r}")
        if min(self.std) <= 0:
            raise ValueError(f"expected positive numbers for std, got {self.std!r}")
        for name, value in (("scale", self.scale), ("margin", self.margin)):
            if not _is_finite(value) or value < 0:
                raise ValueError(f"expected a non-negative number for {name}, got {value!r}")
        for name, value, known in (
            ("channel_order", self.channel_order, ("rgb", "bgr")),
            ("interpolation", self.interpolation, INTERPOLATIONS),
        ):
            if value not in known:
                raise ValueError(f"no {name} {value!r}; there are: {', '.join(known)}")

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Stretches a uint8 RGB image (height, width, 3) to (image_size, image_size, 3); uint8 RGB, range 0-255.

        Raises:
            ValueError: The image has another shape or type.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 RGB image (height, width, 3), got {image.dtype} {image.shape}")
        if image.shape[:2] == (self.image_size, self.image_size):
            return image
        return cv2.resize(image, (self.image_size, self.image_size), interpolation=INTERPOLATIONS[self.interpolation])

    def normalize(self, images):
        """Converts resized RGB images to network input: float32, same shape, channels in `channel_order`.

        Args:
            images: (..., 3) uint8 or float, RGB, range 0-255; a NumPy or JAX array (the result is of the same kind),
                so that the same code runs on the host, in a jitted step and in an exported graph.
        """
        if self.channel_order == "bgr":
            images = images[..., ::-1]
        shape = (1,) * (images.ndim - 1) + (3,)
        mean = np.asarray(self.mean, np.float32).reshape(shape)
        inverse_std = (1 / np.asarray(self.std, np.float32)).reshape(shape)
        return (images.astype(np.float32) * np.float32(self.scale) - mean) * inverse_std
