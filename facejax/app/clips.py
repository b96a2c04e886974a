"""Analyses an uploaded clip within limits on size and duration."""

import pathlib
from collections.abc import Generator
from typing import Any

import cv2

from facejax.app.limits import Limits
from facejax.inference import FaceAnalyzer
from facejax.inference.video import analyze_frames
from facejax.video.frames import open_video, read_frames


def analyze_clip(analyzer: FaceAnalyzer, path: pathlib.Path, limits: Limits) -> Generator[dict[str, Any]]:
    """Yields `VideoFrame.to_dict` for a few frames per second, tracked and smoothed.

    Boxes and landmarks refer to ``width`` and ``height``, which may be smaller than the clip's.

    Raises:
        ValueError: OpenCV cannot read the clip, or its frames are too large.
    """
    _check(path, limits)
    frames = read_frames(path, per_second=limits.clip_fps, max_side=limits.clip_side)
    for frame in analyze_frames(analyzer, frames):
        if frame.time > limits.clip_seconds:
            return
        yield frame.to_dict()


def _check(path: pathlib.Path, limits: Limits) -> None:
    """Rejects clips whose header states too large frames, before memory is allocated for one."""
    with open_video(path) as capture:
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if not 0 < pixels <= limits.clip_pixels:
        raise ValueError(f"its frames have {pixels:.0f} pixels; 1 to {limits.clip_pixels} are allowed")
