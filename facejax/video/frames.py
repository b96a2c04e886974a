"""Frames of a video, one after another: decoded ahead in a thread, with only a few in memory at a time."""

import atexit
import contextlib
import logging
import math
import os
import pathlib
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

logger = logging.getLogger(__name__)

# Decoded frames that wait for the consumer: enough for detection and decoding to overlap, 50 MB at 1080p.
_AHEAD = 8
# For a broken frame in the middle of a file, decoders report a failed read, and the next read may succeed. This many
# failures in a row are taken for the end; before the frame count in the header, which may be wrong, more are allowed.
_MAX_FAILURES, _MAX_FAILURES_WITHIN = 30, 10_000
# Containers round times to milliseconds, including the first: within this many seconds the rate is more exact.
_ROUNDING = 1.001e-3
# A clip whose last frame is earlier than this before the one that its header states is reported as cut off; a few last
# frames of whole clips may be missing too.
_MISSING_SECONDS = 1.0
# Frames per second assumed for a file that states neither times nor a rate.
_FPS = 25.0


class Frame(NamedTuple):
    """One frame.

    Attributes:
        index: Number in the file, from 0; skipped frames count.
        time: Seconds from the first frame, according to the file (audio that starts earlier does not count); never
            less than that of the previous frame.
        image: uint8 RGB (height, width, 3).
        scale: Factor from the file's pixels to the image's (1 unless `max_side` reduced it).
    """

    index: int
    time: float
    image: UInt8[np.ndarray, "height width 3"]
    scale: float


class VideoError(ValueError):
    """A file is not a video that OpenCV can read; the message names the file."""


def read_frames(
    path: pathlib.Path | str,
    *,
    every: int = 1,
    per_second: float | int = 0,
    max_side: int = 0,
    max_frames: int = 0,
    ahead: int = _AHEAD,
) -> Iterator[Frame]:
    """Yields the frames of a video file in order; memory does not grow with its length.

    Frames between the wanted ones are grabbed but not converted. Rotation requested by the file is applied (OpenCV does
    so). Damaged frames are skipped and leave a gap in the numbering. A warning is logged for these, and for a file that
    ends more than a second before the end that its header states.

    Args:
        path: A file that OpenCV's FFmpeg can read (mp4, avi, mov, webm, ...).
        every: Yields every n-th frame; 1 for all, as the paper does.
        per_second: Of these, yields about this many per second, chosen by their times; 0 for all.
        max_side: Larger frames are downscaled to this many pixels on their longer side; 0 for never.
        max_frames: Stops after this many frames; 0 for the whole file.
        ahead: Number of frames to decode ahead.

    Raises:
        FileNotFoundError: There is no such file.
        VideoError: It cannot be opened or contains no readable frame.
        ValueError: `every` is below 1, or `per_second` or `max_side` below 0.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no video file {path}")
    if every < 1:
        raise ValueError(f"expected every >= 1 (1 for all frames), got {every}")
    if max_side < 0:
        raise ValueError(f"expected max_side >= 0 pixels (0 for frames as they are), got {max_side}")
    if per_second < 0:
        raise ValueError(f"expected per_second >= 0 (0 for all frames), got {per_second}")
    return _ahead(_decode(path, every, per_second, max_side, max_frames), ahead)


def mean_rate(path: pathlib.Path | str, *, every: int = 1, seconds: float | int = 0) -> float:
    """Mean frames per second that `read_frames` yields; decodes the file, since only some headers state it.

    Args:
        path: As in `read_frames`.
        every: Counts every n-th frame.
        seconds: Counts frames up to this time; 0 for the whole file.

    Returns:
        (frames - 1) / (last time - first time); 25 if there are no two different times.

    Raises:
        VideoError: It cannot be opened.
    """
    count, first, last = 0, 0.0, 0.0
    path = pathlib.Path(path)
    with open_video(path) as capture:
        for _, time in _grabbed(path, capture, every, 0):
            if seconds and time > seconds:
                break
            first, last = (first if count else time), time
            count += 1
    return (count - 1) / (last - first) if last > first else _FPS


def array_frames(images: Iterable[np.ndarray], *, fps: float | int = 30, every: int = 1) -> Iterator[Frame]:
    """Yields images that are already in memory as frames, e.g. a clip of the dataset `people`.

    Args:
        images: uint8 RGB (height, width, 3) each.
        fps: Images per second, for the times.
        every: Yields every n-th image.
    """
    for index, image in enumerate(images):
        if index % every == 0:
            yield Frame(index, index / fps, image, 1.0)


def ffmpeg_path(path: pathlib.Path | str) -> Any:
    """A path in a form that OpenCV's FFmpeg accepts, whatever characters it has.

    It is in bytes, since a name that is not UTF-8 would end the process, and absolute, since in ``talk: 1.mp4`` the
    part before the colon would be taken for a protocol.
    """
    return os.fsencode(os.path.abspath(path))


@contextlib.contextmanager
def open_video(path: pathlib.Path) -> Iterator[cv2.VideoCapture]:
    """Opens a video file with FFmpeg only: another of OpenCV's backends decodes a picture before it reports its size.

    Raises:
        VideoError: It is not a video that FFmpeg can read.
    """
    capture = cv2.VideoCapture(ffmpeg_path(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise VideoError(f"{path} is not a video that OpenCV can open; `ffprobe FILE` shows what it is")
        yield capture
    finally:
        capture.release()


def _decode(path: pathlib.Path, every: int, per_second: float | int, max_side: int, max_frames: int) -> Iterator[Frame]:
    with open_video(path) as capture:
        given = 0
        for index, time in _grabbed(path, capture, every, per_second):
            whole, image = capture.retrieve()
            if not whole or image is None:
                continue
            given += 1
            yield _frame(index, time, image, max_side)
            if given == max_frames:
                return
        if not given:
            raise VideoError(f"{path} contains no frame that OpenCV can read")


def _grabbed(
    path: pathlib.Path, capture: cv2.VideoCapture, every: int, per_second: float | int
) -> Iterator[tuple[int, float]]:
    """Yields number and time in seconds of each wanted frame; `capture.retrieve` returns the one yielded last."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if fps > 0 else _FPS
    index, failures, before, due = -1, 0, 0.0, -math.inf
    stated, lost = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
    while failures < (_MAX_FAILURES_WITHIN if index < stated else _MAX_FAILURES):
        index += 1
        if not capture.grab():
            failures += 1
            continue
        lost, failures = lost + failures, 0
        by_rate = index / fps
        # Frames from phones and browsers vary in duration; the header's rate may even be the clock's 1000.
        told = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        time = max(told if told > 0 and abs(told - by_rate) > _ROUNDING else by_rate, before)
        # Takes the frame nearest to the due time; the time of the next one is extrapolated from the last.
        reached = time + (time - before) / 2 >= due - _ROUNDING
        before = time
        if index % every == 0 and reached:
            due = time + 1 / per_second if per_second else -math.inf
            yield index, time
    if lost:
        logger.warning("%d damaged frames in the middle of %s were skipped", lost, path)
    last = (stated - 1) / fps
    if last - before > _MISSING_SECONDS:
        logger.warning("%s ends with a frame at %.1f s, by its header at %.1f: it may be cut off", path, before, last)


def _frame(index: int, time: float, bgr: np.ndarray, max_side: int) -> Frame:
    scale = max_side / max(bgr.shape[:2]) if max_side else 1.0
    if scale < 1:
        size = (max(round(bgr.shape[1] * scale), 1), max(round(bgr.shape[0] * scale), 1))
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    return Frame(index, time, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), min(scale, 1.0))


def _ahead(frames: Iterator[Frame], size: int) -> Iterator[Frame]:
    """Yields the same items, made in a thread at most `size` of them ahead; the thread ends with the consumer."""
    ready: queue.Queue = queue.Queue(maxsize=max(size, 1))
    stopped = threading.Event()

    def put(item: tuple[str, object]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for frame in frames:
                if not put(("frame", frame)):
                    return
            put(("end", None))
        except Exception as error:  # raised again where the frames are consumed
            put(("error", error))

    thread = threading.Thread(target=produce, name="facejax-decode", daemon=True)

    def stop() -> None:
        stopped.set()
        thread.join()

    # The program may exit with the clip half read; a decoder that is still running would then crash it.
    atexit.register(stop)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, Exception)
                raise value
            assert isinstance(value, Frame)
            yield value
    finally:
        if not sys.is_finalizing():
            atexit.unregister(stop)
            stop()
