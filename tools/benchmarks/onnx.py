"""One face through exported networks in onnxruntime, one thread: facejax's ONNX file beside timm's.

facejax's file is one that its export wrote: it takes what the file's input declares (uint8 photos are normalised in
the graph; timm's file is fed normalised ones).
"""

import argparse
import pathlib
from collections.abc import Callable

from benchmarks.harness import Side
from benchmarks.torch_nets import timm_onnx

GOAL = "one face, 1 thread, B0, B2, MobileNet, RexNet: <= 1.05x the time of timm's ONNX file"
UNIT = "face"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Network and files."""
    parser.add_argument("--model", default="tf_efficientnet_b0", help="of the peer, in timm (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--file", type=pathlib.Path, required=True, help="the ONNX file that facejax exported")
    parser.add_argument("--calls", type=int, default=20, help="of a round (default: %(default)s)")
    parser.set_defaults(threads=1)


def sides(args: argparse.Namespace) -> list[Side]:
    """Both files."""
    if not args.file.is_file():
        raise FileNotFoundError(f"no file {args.file}: export the network first, python -m facejax.cli export --help")
    shared = {"size": args.size, "calls": args.calls, "device": args.device}
    return [
        Side("facejax", "onnx.from_file", {**shared, "file": str(args.file.resolve())}),
        Side("timm", "onnx.from_timm", {**shared, "model": args.model}),
    ]


def from_file(file: str, size: int, calls: int, device: str) -> Callable[[], int]:
    """Rounds of calls of an ONNX file."""
    return _session(pathlib.Path(file).read_bytes(), size, calls, device)


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
