"""How a face crop becomes a network's input: one definition that training, evaluation, export and apps all read.

Most accuracy that users lose between a paper and their own programme is lost here (channel order, resize kernel,
mean and scale), so the definition is a value that travels with the weights (`facejax.models.pretrained.PretrainedCfg`).
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
        image_size: Height and width of the input in pixels; crops are stretched to it, not padded (the paper's
            published code does so).
        mean: Subtracted from each channel, in the order of `channel_order`, on the scale after `scale`.
        std: Each channel is divided by it, after the mean.
        scale: Factor on the 0-255 pixel values, before the mean.
        channel_order: Order that the network expects. Images are RGB everywhere else in facejax.
        interpolation: Resize kernel (OpenCV's; no anti-aliasing but in ``area``). The paper's code trains on bilinear
            crops of PIL, which smooths where it reduces; its ONNX package feeds the same networks by OpenCV's.
        margin: Margin around the detector's box, as a part of its size (paper section 3: none).
    """

    image_size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    channel_order: Literal["rgb", "bgr"] = "rgb"
    interpolation: Interpolation = "bilinear"
    margin: float = 0.0

    def __post_init__(self):
        """Refuses with a ValueError what was mistyped, in a file too; it would be found late, or never."""
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise ValueError(f"expected image_size in whole pixels, got {self.image_size!r}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if len(value) != 3 or not all(map(_is_finite, value)):
                raise ValueError(f"expected three numbers as {name}, got {value!r}")
        if min(self.std) <= 0:
            raise ValueError(f"expected numbers above 0 as std, got {self.std!r}")
        for name, value in (("scale", self.scale), ("margin", self.margin)):
            if not _is_finite(value) or value < 0:
                raise ValueError(f"expected a number from 0 on as {name}, got {value!r}")
        for name, value, known in (
            ("channel_order", self.channel_order, ("rgb", "bgr")),
            ("interpolation", self.interpolation, INTERPOLATIONS),
        ):
            if value not in known:
                raise ValueError(f"no {name} {value!r}; there are: {', '.join(known)}")

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Stretches a uint8 RGB image (height, width, 3) to (image_size, image_size, 3); uint8 RGB, range 0-255.

        Raises:
            ValueError: It is no such image.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected a uint8 RGB image (height, width, 3), got {image.dtype} {image.shape}")
        if image.shape[:2] == (self.image_size, self.image_size):
            return image
        return cv2.resize(image, (self.image_size, self.image_size), interpolation=INTERPOLATIONS[self.interpolation])

    def normalize(self, images):
        """Network input of resized RGB images: float32, same shape, channels in `channel_order`.

        Args:
            images: (..., 3) uint8 or float, RGB, range 0-255; a NumPy or a JAX array (the result is of the same kind),
                so that the same lines run on the host, in a jitted step and in an exported graph.
        """
        if self.channel_order == "bgr":
            images = images[..., ::-1]
        shape = (1,) * (images.ndim - 1) + (3,)
        mean = np.asarray(self.mean, np.float32).reshape(shape)
        inverse_std = (1 / np.asarray(self.std, np.float32)).reshape(shape)
        return (images.astype(np.float32) * np.float32(self.scale) - mean) * inverse_std
