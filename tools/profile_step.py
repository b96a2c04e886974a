r"""Times a training step on this machine's device, and profiles it kernel by kernel.

    python tools/profile_step.py --model tf_efficientnet_b0 --size 224 --batch 256 --dtype bfloat16

Each kernel of the trace is listed with the amount that it reads and writes according to the compiled program
(`plan_gpu.kernels`), so that its speed can be compared with the device's memory bandwidth. Library kernels (such as
cuDNN's) are assigned to the call that starts them. Kernels that run concurrently, on a GPU or on several cores, are
counted individually: their sum may exceed the step time.
"""

import argparse
import collections
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import plan_gpu

STEPS = 3  # traced


def kernel_seconds(folder: str) -> dict[tuple[str, str], tuple[float, int]]:
    """Seconds and number of runs in a trace, by (instruction named by the profiler, kernel)."""
    from jax.profiler import ProfileData

    found: dict[tuple[str, str], tuple[float, int]] = {}
    for path in pathlib.Path(folder).rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    instruction = dict(event.stats).get("hlo_op")
                    if instruction is not None and ("GPU" not in plane.name or line.name.startswith("Stream")):
                        seconds, runs = found.get((str(instruction), event.name), (0.0, 0))
                        found[str(instruction), event.name] = seconds + event.duration_ns / 1e9, runs + 1
    return found


def match(
    seconds: dict[tuple[str, str], tuple[float, int]], program: str
) -> list[tuple[plan_gpu.Kernel, str, float, int]]:
    """Matches traced kernels to the program: kernel, its name on the device, seconds and runs, longest first.

    Within a recorded graph of kernels, the profiler names the graph and not the instruction. The kernel is then
    identified by its own name, which is that of its instruction with other punctuation. Kernels that remain unknown
    have no traffic.
    """
    by_name = {_plain(kernel.name): kernel for kernel in plan_gpu.kernels(program)}
    matched = []
    for (instruction, name), (total, runs) in seconds.items():
        kernel = by_name.get(_plain(instruction)) or by_name.get(_plain(name))
        matched.append((kernel or plan_gpu.Kernel(name, "unknown", "", 1, 0), name, total, runs))
    return sorted(matched, key=lambda row: -row[2])


def _plain(name: str) -> str:
    return name.replace(".", "_").replace("-", "_")


def measure(args: argparse.Namespace) -> tuple[list[float], dict, str]:
    """Seconds per step in several rounds, `kernel_seconds`, and the compiled program."""
    import jax
    from benchmarks.train_step import compile_step

    compiled, state, photos = compile_step(args.model, args.size, args.batch, args.dtype, args.rho)
    step: Any = compiled.call

    def run(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, photos)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - start) / steps

    run(STEPS)
    rounds = [run(args.steps) for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(STEPS)
        return rounds, kernel_seconds(folder), step.as_text()


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plan_gpu.add_step_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, help="steps in each of five rounds (default: %(default)s)")
    args = parser.parse_args(arguments)
    rounds, seconds, program = measure(args)
    step = statistics.median(rounds)
    rows = match(seconds, program)
    total = sum(row[2] for row in rows) / STEPS
    print(f"{args.model}, {args.size} px, batch {args.batch}, {args.dtype}")
    spread = f"{1e3 * min(rounds):.2f}-{1e3 * max(rounds):.2f}"
    print(f"step     {1e3 * step:.2f} ms ({spread}), {args.batch / step:,.0f} images/s")
    print(f"kernels  {1e3 * total:.2f} ms in {sum(row[3] for row in rows) / STEPS:,.0f} runs")
    groups: dict[tuple[str, ...], list[float]] = collections.defaultdict(lambda: [0.0, 0, 0])
    for kernel, _, spent, runs in rows:
        group = groups[(*plan_gpu.scope(kernel), kernel.kind)]
        for index, value in enumerate((spent, runs, runs * kernel.traffic / kernel.calls)):
            group[index] += value / STEPS
    print("      ms    runs      GB    TB/s")
    longest = sorted(groups.items(), key=lambda group: -group[1][0])[: args.top]
    for (direction, layer, kind), (spent, runs, traffic) in longest:
        speed = traffic / spent / 1e12
        print(f"{1e3 * spent:8.3f} {runs:7.0f} {traffic / 1e9:7.2f} {speed:7.2f}  {direction:8s} {layer:10s} {kind}")
    print("      us    runs      MB    TB/s  per run")
    for kernel, name, spent, runs in rows[: args.top]:
        traffic, one = kernel.traffic / kernel.calls, spent / runs
        speed = traffic / one / 1e12
        figures = f"{1e6 * one:8.1f} {runs / STEPS:7.0f} {traffic / 1e6:7.1f} {speed:7.2f}"
        print(f"{figures}  {' '.join(plan_gpu.scope(kernel)):20s} {name[:50]:50s} {kernel.layer[-60:]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
