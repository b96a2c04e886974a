"""Augmentation on the host: functions of an image and a random generator.

Each takes ``(image, rng)`` and returns an image, both uint8 RGB (height, width, 3). The loader seeds the generator from
its own seed and the record's position in the stream, so that the random draws do not depend on threads or the number of
hosts.
"""

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "height width 3"]
Square = UInt8[np.ndarray, "{self.size} {self.size} 3"]
Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirrors the image with the given probability."""

    probability: float = 0.5

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """The image or its mirror image."""
        return np.ascontiguousarray(image[:, ::-1]) if rng.random() < self.probability else image


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a random region of random size and aspect ratio and stretches it to a square.

    Source: torchvision's transform of the same name, which the paper's published identity training uses (resize 256,
    RandomResizedCrop 224). Up to ten draws of area and aspect ratio (log-uniform); if none fits into the image, the
    largest centre crop of an allowed ratio. Intended difference: the random numbers are NumPy's, and resizing is
    OpenCV's bilinear without anti-aliasing, as everywhere in facejax.

    Attributes:
        size: Height and width of the result in pixels.
        scale: Smallest and largest area of the crop, as a fraction of the image's area.
        ratio: Smallest and largest aspect ratio, width / height.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def part(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draws the crop for an image of this size: top, left, height and width in pixels."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            part_width, part_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < part_width <= width and 0 < part_height <= height:
                top = int(rng.integers(0, height - part_height + 1))
                left = int(rng.integers(0, width - part_width + 1))
                return top, left, part_height, part_width
        part_height, part_width = height, width
        if width / height < self.ratio[0]:
            part_height = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            part_width = round(height * self.ratio[1])
        return (height - part_height) // 2, (width - part_width) // 2, part_height, part_width

    def __call__(self, image: Image, rng: np.random.Generator) -> Square:
        """A random crop of the image, (size, size, 3)."""
        top, left, height, width = self.part(image.shape[0], image.shape[1], rng)
        part = image[top : top + height, left : left + width]
        return cv2.resize(part, (self.size, self.size), interpolation=cv2.INTER_LINEAR)


@dataclasses.dataclass(frozen=True)
class Resize:
    """Stretches the image to a square of the given size in pixels, before other transforms; uses no random numbers."""

    size: int

    def __call__(self, image: Image, rng: np.random.Generator) -> Square:
        """The image, (size, size, 3)."""
        del rng
        return cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
