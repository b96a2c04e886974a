"""Inference on a single face, as in an app: jitted facejax compared with eager PyTorch."""

import argparse
from collections.abc import Callable

from benchmarks.harness import Side
from benchmarks.torch_nets import DEVICES, create_timm, set_threads

GOAL = "one face: <= 1.0x the time of PyTorch eager"
UNIT = "face"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the network and the batch."""
    parser.add_argument(
        "--model", default="tf_efficientnet_b0", help="architecture, in facejax and timm (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="faces per call (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=20, help="calls per round (default: %(default)s)")
    parser.add_argument(
        "--channels_last", action=argparse.BooleanOptionalAction, default=False, help="memory layout of the peer"
    )


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax and timm."""
    shared = {"model": args.model, "size": args.size, "batch": args.batch, "calls": args.calls}
    peer = {"channels_last": args.channels_last, "device": DEVICES[args.device]}
    return [Side("facejax", "one_face.facejax", shared), Side("timm eager", "one_face.timm", {**shared, **peer})]


def facejax(model: str, size: int, batch: int, calls: int) -> Callable[[], int]:
    """Rounds of blocking calls: uint8 faces to features and logits on the host."""
    import dataclasses

    import jax
    import numpy as np

    from facejax.models import create_model, init_variables, pretrained_cfg

    network = create_model(model, tasks=("emotion8",))
    variables = jax.device_put(init_variables(network, 0, size))
    preprocessing = dataclasses.replace(pretrained_cfg(model).preprocessing, image_size=size)
    faces = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    forward = jax.jit(lambda variables, images: network.apply(variables, preprocessing.normalize(images)))

    def work() -> int:
        for _ in range(calls):
            jax.device_get(forward(variables, faces))
        return batch * calls

    return work


def timm(model: str, size: int, batch: int, calls: int, channels_last: bool, device: str) -> Callable[[], int]:
    """The same in PyTorch."""
    import torch

    set_threads()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = create_timm(model, num_classes=8).eval().to(device, memory_format=layout)
    faces = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def work() -> int:
        with torch.inference_mode():
            for _ in range(calls):
                images = faces.to(device, memory_format=layout).float() / 255
                features = network.forward_features((images - mean) / std)
                network.forward_head(features).cpu()
        return batch * calls

    return work
