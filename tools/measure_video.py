"""Measures memory use over a long video, and its speed compared with a plain loop over single frames.

    python tools/measure_video.py VIDEO --model DIR [--every 30] [--max_side 640]

Every frame is decoded. Every n-th goes through detection, cropping and the network as in `facejax.video`: decoded
ahead in a thread, detected in groups, embedded in batches. The plain loop does the same to the same first frames, one
at a time. Both run in turn, three times; the first run compiles. CPU time is that of this process.
"""

import argparse
import itertools
import pathlib
import sys
import time

import cv2
import numpy as np

from facejax.detect import MTCNN, crop_face
from facejax.inference.model import LoadedModel, load_model
from facejax.video.faces import Face, find_faces
from facejax.video.frames import read_frames

_LINES = 20
_EMBED_AT_ONCE = 64


def resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def stream(path: pathlib.Path, detector: MTCNN, model: LoadedModel, every: int, max_side: int, max_frames: int = 0):
    """Yields (frames so far, faces so far) while processing the video."""
    waiting: list[Face] = []
    faces = 0
    video = read_frames(path, every=every, max_side=max_side, max_frames=max_frames)
    for frames, (_, found) in enumerate(find_faces(video, detector, crop_face), 1):
        waiting += found
        if len(waiting) >= _EMBED_AT_ONCE:
            model.features([face.crop for face in waiting])
            faces += len(waiting)
            waiting = []
        yield frames, faces + len(waiting)
    if waiting:
        model.features([face.crop for face in waiting])


def plain_loop(path: pathlib.Path, detector: MTCNN, model: LoadedModel, every: int, max_side: int, max_frames: int):
    """Does the same work frame by frame; returns the number of faces."""
    capture, faces = cv2.VideoCapture(str(path)), 0
    for index in itertools.count():
        whole, image = capture.read()
        if not whole or index // every == max_frames:
            return faces
        if index % every:
            continue
        scale = max_side / max(image.shape[:2]) if max_side else 1
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        found = detector.detect([image])[0].largest()
        for bbox, landmarks in zip(found.bboxes, found.landmarks, strict=True):
            model.features([crop_face(image, bbox, landmarks)])
            faces += 1


def timed(function) -> tuple[float, float]:
    """Returns (wall, CPU) seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder of a saved model")
    parser.add_argument("--every", type=int, default=30)
    parser.add_argument("--max_side", type=int, default=640)
    parser.add_argument("--compare", type=int, default=48, help="frames to compare with the plain loop")
    named = parser.parse_args(arguments)
    detector, model = MTCNN(32.0), load_model(named.model)
    work = (named.video, detector, model, named.every, named.max_side, named.compare)
    for _ in range(3):  # the first compiles
        for name, function in (("stream", lambda: list(stream(*work))), ("plain loop", lambda: plain_loop(*work))):
            wall, cpu = timed(function)
            print(
                f"{name}: {named.compare / wall:.2f} frames/s, {1000 * cpu / named.compare:.0f} CPU ms per frame",
                flush=True,
            )
    capture = cv2.VideoCapture(str(named.video))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) // named.every
    started, memory, faces = time.perf_counter(), [], 0
    for frames, faces in stream(named.video, detector, model, named.every, named.max_side):
        if frames % max(total // _LINES, 1) == 0:
            memory.append(resident())
            seconds = frames * named.every / capture.get(cv2.CAP_PROP_FPS)
            print(f"{seconds:6.0f} s of video, {faces} faces, {memory[-1]:.0f} MiB", flush=True)
    first, second = memory[: len(memory) // 2], memory[len(memory) // 2 :]
    print(f"{time.perf_counter() - started:.0f} s in total, {faces} faces")
    print(f"peak memory: {max(first):.0f} MiB in the first half, {max(second):.0f} MiB in the second")


if __name__ == "__main__":
    main(sys.argv[1:])
