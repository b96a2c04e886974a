"""Inference with trained models: takes photos, returns faces and the networks' predictions for them."""

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
