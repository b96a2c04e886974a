"""Inference on a single face in onnxruntime with one thread: facejax's ONNX file compared with timm's.

Each file gets the input that it declares: facejax's takes uint8 faces and normalises them in the graph, timm's takes
normalised ones. Both have random weights, unless a file exported by facejax is given.
"""

import argparse
import pathlib
from collections.abc import Callable

from benchmarks.harness import Side
from benchmarks.torch_nets import timm_onnx

GOAL = "one face, 1 thread, B0, B2, MobileNet, RexNet: <= 1.05x the time of timm's ONNX file"
UNIT = "face"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the network and the file."""
    parser.add_argument(
        "--model", default="tf_efficientnet_b0", help="architecture, in facejax and timm (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--file", type=pathlib.Path, help="ONNX file of this network exported by facejax")
    parser.add_argument("--calls", type=int, default=20, help="calls per round (default: %(default)s)")
    parser.set_defaults(threads=1)


def sides(args: argparse.Namespace) -> list[Side]:
    """Both files."""
    if args.file is not None and not args.file.is_file():
        raise FileNotFoundError(f"no file {args.file}")
    shared = {"model": args.model, "size": args.size, "calls": args.calls, "device": args.device}
    file = None if args.file is None else str(args.file.resolve())
    return [
        Side("facejax", "onnx.from_facejax", {**shared, "file": file}),
        Side("timm", "onnx.from_timm", shared),
    ]


def from_facejax(model: str, size: int, calls: int, device: str, file: str | None) -> Callable[[], int]:
    """Rounds of calls of a file, or of facejax's export of a network with a head for eight expressions."""
    if file is not None:
        return _session(pathlib.Path(file).read_bytes(), size, calls, device)
    import dataclasses

    from facejax.export.network import face_network
    from facejax.export.onnx import convert
    from facejax.inference import LoadedModel
    from facejax.models import init_variables, model_from_cfg, pretrained_cfg

    cfg = pretrained_cfg(model)
    preprocessing = dataclasses.replace(cfg.preprocessing, image_size=size)
    cfg = dataclasses.replace(cfg, tasks=("emotion8",), preprocessing=preprocessing)
    network = face_network(LoadedModel(cfg, init_variables(model_from_cfg(cfg), 0, size)))
    return _session(convert(network).SerializeToString(), size, calls, device)


def from_timm(model: str, size: int, calls: int, device: str) -> Callable[[], int]:
    """Rounds of calls of timm's network."""
    return _session(timm_onnx(model, size), size, calls, device)


def _session(network: bytes, size: int, calls: int, device: str) -> Callable[[], int]:
    import os

    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider"] * (device == "gpu") + ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(network, options, providers=providers)
    (declared,) = session.get_inputs()
    first = 1 if declared.shape[1] != 3 else 2
    sides = [side if isinstance(side, int) else size for side in declared.shape[first : first + 2]]
    shape = (1, *sides, 3) if first == 1 else (1, 3, *sides)
    faces = np.random.default_rng(0).integers(0, 256, shape)
    faces = faces.astype({"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[declared.type])

    def work() -> int:
        for _ in range(calls):
            session.run(None, {declared.name: faces})
        return calls

    return work
