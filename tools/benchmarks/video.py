"""Features of the largest face in every frame of a video file: facejax in batches, compared with the usual loop.

The peer decodes a frame, runs facenet-pytorch's MTCNN on it, and then timm's network, exported to ONNX, in onnxruntime.
Both networks have random weights, as the time does not depend on them.
"""

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Iterator

from benchmarks.harness import Side
from benchmarks.torch_nets import DEVICES, import_facenet, set_threads, timm_onnx

GOAL = "frames/s end to end: >= 2x a frame-by-frame loop of facenet-pytorch and onnxruntime"
UNIT = "frame"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the clip and the network."""
    parser.add_argument("--clip", type=pathlib.Path, help="video file (default: a rendered clip of 48 frames)")
    parser.add_argument(
        "--frames", type=int, default=48, help="maximum number of frames per round (default: %(default)s)"
    )
    parser.add_argument("--model", default="tf_efficientnet_b0", help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax and the frame-by-frame loop."""
    clip = args.clip.resolve() if args.clip else rendered_clip(args.frames)
    if not clip.is_file():
        raise FileNotFoundError(f"no video file {clip}")
    shared = {"clip": str(clip), "frames": args.frames, "model": args.model, "size": args.size}
    peer = {**shared, "device": DEVICES[args.device]}
    return [Side("facejax", "video.facejax", shared), Side("frame by frame", "video.loop", peer)]


def rendered_clip(frames: int) -> pathlib.Path:
    """A clip of the built-in dataset as an mp4 file; cached."""
    import cv2

    from facejax.datasets import get_dataset

    path = pathlib.Path(tempfile.gettempdir()) / f"facejax-benchmark-{frames}.mp4"
    if not path.exists():
        clips = get_dataset("people").clips(None, num_train=1, num_validation=0, size=360, num_frames=frames)
        images = next(iter(clips)).image()  # pyright: ignore
        partial = path.with_name(f"partial-{path.name}")
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), 30, (360, 360))
        for image in images:
            writer.write(image[..., ::-1])
        writer.release()
        partial.rename(path)
    return path


def facejax(clip: str, frames: int, model: str, size: int) -> Callable[[], dict]:
    """Decodes frames ahead in a thread; detects faces and embeds crops in batches."""
    import dataclasses

    from facejax.detect import MTCNN, crop_face
    from facejax.inference import LoadedModel
    from facejax.models import init_variables, model_from_cfg, pretrained_cfg
    from facejax.video.faces import clip_faces, find_faces
    from facejax.video.frames import read_frames

    cfg = pretrained_cfg(model)
    cfg = dataclasses.replace(cfg, preprocessing=dataclasses.replace(cfg.preprocessing, image_size=size))
    network = LoadedModel(cfg, init_variables(model_from_cfg(cfg), 0, size))
    detector = MTCNN()

    def work() -> dict:
        faces = clip_faces(find_faces(read_frames(clip, max_frames=frames), detector, crop_face))
        features = network.features(faces.crops)
        return {"items": faces.num_frames, "faces": len(features)}

    return work


def loop(clip: str, frames: int, model: str, size: int, device: str) -> Callable[[], dict]:
    """Processes one frame after another."""
    import cv2
    import numpy as np
    import onnxruntime

    set_threads()
    detector = import_facenet().MTCNN(keep_all=True, device=device)
    providers = ["CUDAExecutionProvider"] * (device == "cuda") + ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(timm_onnx(model, size), providers=providers)
    mean, std = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def read() -> Iterator[np.ndarray]:
        capture = cv2.VideoCapture(clip)
        for _ in range(frames):
            whole, image = capture.read()
            if not whole:
                break
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        capture.release()

    def work() -> dict:
        seen = faces = 0
        for image in read():
            seen += 1
            boxes, _ = detector.detect(image)
            if boxes is None:
                continue
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            left, top, right, bottom = boxes[areas.argmax()].clip(0).astype(int)
            crop = cv2.resize(image[top:bottom, left:right], (size, size)).astype(np.float32) / 255
            session.run(None, {"images": ((crop - mean) / std).transpose(2, 0, 1)[None]})
            faces += 1
        # onnxruntime silently falls back to the CPU if its GPU package is not installed.
        on_gpu = "CUDAExecutionProvider" in session.get_providers()
        return {"items": seen, "faces": faces, "onnxruntime_on_gpu": float(on_gpu)}

    return work
