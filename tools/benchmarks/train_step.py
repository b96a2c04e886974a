"""Training step of SAM on top of Adam, compared with timm's network and the two-pass SAM of the paper's code.

The peer is davda54/sam as used in the paper's published code (two passes on the same batch, with Adam), in
channels-last memory format; on a GPU it also uses torch.compile. Both sides run in bfloat16 if requested.
"""

import argparse
from collections.abc import Callable

from benchmarks.harness import TRAINING_ENVIRONMENT, Side
from benchmarks.torch_nets import DEVICES, create_timm, set_threads

GOAL = "EfficientNet B0 and B2, SAM-Adam: >= 1.0x PyTorch + timm on a CPU, >= 1.4x on a GPU"
UNIT = "photo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds options for the network, batch and precision."""
    parser.add_argument(
        "--model", default="tf_efficientnet_b0", help="architecture, in facejax and timm (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=224, help="input side, pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--peer_batch", type=int, help="batch size of the peer, if it is fastest with a different one")
    parser.add_argument("--steps", type=int, default=2, help="steps per round (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="(default: %(default)s)")
    parser.add_argument(
        "--rho", type=float, default=0.05, help="radius of SAM; 0 for plain Adam (default: %(default)s)"
    )
    parser.add_argument(
        "--channels_last", action=argparse.BooleanOptionalAction, default=True, help="memory format of the peer"
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="use torch.compile for the peer (default: on a GPU)"
    )


def sides(args: argparse.Namespace) -> list[Side]:
    """Sides for facejax and timm."""
    shared = {"model": args.model, "size": args.size, "steps": args.steps, "dtype": args.dtype, "rho": args.rho}
    peer = {
        "batch": args.peer_batch or args.batch,
        "device": DEVICES[args.device],
        "channels_last": args.channels_last,
        "compile": args.device == "gpu" if args.compile is None else args.compile,
    }
    return [facejax_side({**shared, "batch": args.batch}), Side("timm", "train_step.timm_step", {**shared, **peer})]


def facejax_side(settings: dict, name: str = "facejax") -> Side:
    """The side of facejax, with the memory setting of experiments/run.py."""
    return Side(name, "train_step.facejax_step", settings, environment=TRAINING_ENVIRONMENT)


def facejax_step(model: str, size: int, batch: int, steps: int, dtype: str, rho: float) -> Callable[[], dict]:
    """Rounds of `steps` steps of facejax's own training step, on every device of the process."""
    import jax

    compiled, state, photos = compile_step(model, size, batch, dtype, rho)
    held = [state]

    def work() -> dict:
        for _ in range(steps):
            held[0], metrics = compiled.call(held[0], photos)
        jax.block_until_ready((held[0], metrics))
        figures = {
            "items": batch * steps,
            "loss": float(metrics["loss"]),
            "gflop_an_item": compiled.flops / batch / 1e9,
        }
        memory = jax.local_devices()[0].memory_stats()
        return figures | ({"peak_mb": memory["peak_bytes_in_use"] / 2**20} if memory else {})

    return work


def compile_step(model: str, size: int, batch: int, dtype: str, rho: float):
    """The compiled step of facejax, with a state and a batch of synthetic photos, on every device of the process."""
    import numpy as np

    from facejax.config import StageConfig

    placement, state = make_stage(model, size, dtype, rho, StageConfig(lr=1e-4))
    rng = np.random.default_rng(0)
    photos = placement.put_batch(
        {
            "image": rng.integers(0, 256, (batch, size, size, 3)).astype(np.uint8),
            "emotion": rng.integers(0, 8, batch).astype(np.int32),
            "mask": np.ones(batch, np.float32),
        }
    )
    state = placement.to_step(state)
    return placement.compile(state, photos), state, photos


def make_stage(model: str, size: int, dtype: str, rho: float, stage):
    """Placement and initial state of a training stage for emotion8, without data."""
    import dataclasses

    import jax
    import jax.numpy as jnp

    from facejax.config import LossConfig, SamConfig
    from facejax.models import create_model, init_variables, pretrained_cfg
    from facejax.tasks import TASKS
    from facejax.train import parallel
    from facejax.train.state import TrainState, split_params
    from facejax.train.step import init_optimizer, make_optimizer, make_step_functions

    preprocessing = dataclasses.replace(pretrained_cfg(model).preprocessing, image_size=size)
    network = create_model(model, tasks=("emotion8",), dtype=jnp.dtype(dtype))
    variables = init_variables(network, 0, size)
    tx = make_optimizer(stage, 1)
    weights = {"emotion8": jnp.ones(8)}
    sam = SamConfig(rho=rho)
    functions = make_step_functions(
        network,
        [TASKS["emotion8"]],
        preprocessing,
        tx,
        weights,
        stage,
        sam,
        LossConfig(),
        join_weights=parallel.should_join_weights("none"),
    )
    placement = parallel.place(functions, "jit", parallel.data_mesh())
    trainable, _ = split_params(variables["params"], stage.trainable)
    step, rng = jnp.zeros((), jnp.int32), jax.random.key(1)
    state = TrainState(step, variables["params"], variables["batch_stats"], init_optimizer(tx, trainable), rng)
    return placement, placement.put_state(state)


def timm_step(
    model: str,
    size: int,
    batch: int,
    steps: int,
    dtype: str,
    rho: float,
    device: str,
    channels_last: bool,
    compile: bool,
    trainable: str = "all",
) -> Callable[[], dict]:
    """Rounds of `steps` training steps as in the paper's published code: timm's network, two-pass SAM, Adam."""
    import torch

    set_threads()
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = create_timm(model, num_classes=8).to(device, memory_format=layout).train()
    if trainable == "heads":
        network.requires_grad_(False)
        network.get_classifier().requires_grad_(True)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    photos = photos.to(device, memory_format=layout)
    labels = torch.randint(0, 8, (batch,), generator=generator).to(device)
    forward = torch.compile(network) if compile else network

    def gradient() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = forward((photos.float() / 255 - mean) / std)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        return loss

    def step() -> torch.Tensor:
        loss = gradient()
        if rho:
            with torch.no_grad():
                norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
                moved = [p.grad * (rho / (norm + 1e-12)) for p in parameters if p.grad is not None]
                for parameter, move in zip(parameters, moved, strict=True):
                    parameter.add_(move)
            optimizer.zero_grad()
            gradient()
            with torch.no_grad():
                for parameter, move in zip(parameters, moved, strict=True):
                    parameter.sub_(move)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    def work() -> dict:
        for _ in range(steps):
            loss = step()
        figures = {"items": batch * steps, "loss": float(loss)}  # waits for the device
        if device == "cuda":
            torch.cuda.synchronize()
            figures["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
        return figures

    return work
