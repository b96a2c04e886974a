"""Face detection with MTCNN, and alignment and cropping of faces.

The detector is imported lazily, because worker processes only cut out crops, which does not need JAX.
"""

from typing import TYPE_CHECKING, Any

from facejax.detect.align import align_eyes, centre_crop, crop_face, make_cropper, warp_five_points

if TYPE_CHECKING:
    from facejax.detect.mtcnn import MTCNN, Detections

__all__ = ["MTCNN", "Detections", "align_eyes", "centre_crop", "crop_face", "make_cropper", "warp_five_points"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'facejax.detect' has no attribute {name!r}")
    from facejax.detect import mtcnn

    return getattr(mtcnn, name)
