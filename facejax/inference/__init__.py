"""Trained models in use: photos in; faces, and what the networks say about them, out."""

from facejax.inference.analyzer import FaceAnalyzer
from facejax.inference.images import read_image
from facejax.inference.model import LoadedModel, load_model
from facejax.inference.results import Classification, Face, PhotoResult
from facejax.inference.tracking import FaceTracker
from facejax.inference.video import VideoFrame

__all__ = [
    "Classification",
    "Face",
    "FaceAnalyzer",
    "FaceTracker",
    "LoadedModel",
    "PhotoResult",
    "VideoFrame",
    "load_model",
    "read_image",
]
