"""Faces in photos: the MTCNN detector, and how a face is rotated and cut out."""

from facejax.detect.align import align_eyes, centre_crop, crop_face, warp_five_points
from facejax.detect.mtcnn import MTCNN, Detections

__all__ = ["MTCNN", "Detections", "align_eyes", "centre_crop", "crop_face", "warp_five_points"]
