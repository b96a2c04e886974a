"""Runs one side of a benchmark in its own process. Standard library only, so that any Python can run it.

    python -m benchmarks.worker MODULE FUNCTION CORES     with one line of JSON settings on standard input

``FUNCTION(**settings)`` sets everything up and returns a function that does one round of work and returns the number of
items processed, or a dict with ``items`` and further figures. Each line ``round`` on standard input is then answered
with one line of JSON; the process exits at the end of its input.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import pathlib
import resource
import sys
import time

_LIBRARIES = (
    "facejax",
    "jax",
    "jaxlib",
    "flax",
    "grain",
    "numpy",
    "opencv-python-headless",
    "simplejpeg",
    "torch",
    "torchvision",
    "timm",
    "facenet-pytorch",
    "onnxruntime",
    "ai-edge-litert",
    "tensorflow-cpu",
    "tensorflow",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries imported by this process."""
    found = {"python": sys.version.split()[0]}
    owners = importlib.metadata.packages_distributions()
    loaded = {owner for module in list(sys.modules) for owner in owners.get(module, ())}
    for name in _LIBRARIES:
        if name in loaded or (name == "facejax" and "facejax" in sys.modules):
            found[name] = importlib.metadata.version(name)
    return found


def device() -> str:
    """The accelerator that this process uses, or the CPU."""
    if "jax" in sys.modules and sys.modules["jax"].default_backend() != "cpu":
        return sys.modules["jax"].devices()[0].device_kind
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.get_device_name()
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"


def processor_seconds() -> float:
    """CPU seconds of all threads of this process and its living child processes (Linux)."""
    ticks, seconds = os.sysconf("SC_CLK_TCK"), time.process_time()
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has exited
            # After the name, which may contain anything: state, parent, ..., user and system time.
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                seconds += (int(fields[11]) + int(fields[12])) / ticks
    return seconds


def measured(work) -> dict[str, float]:
    """Wall and CPU seconds, items, and peak resident memory of the process so far."""
    processor, wall = processor_seconds(), time.perf_counter()
    done = work()
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": processor_seconds() - processor}
    figures |= done if isinstance(done, dict) else {"items": done}
    # Kilobytes on Linux.
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **figures}


def main() -> None:
    """Runs the rounds of one side on request."""
    module, function, cores = sys.argv[1:4]
    # Before any import, as libraries size their thread pools by it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries goes to standard error
    settings = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    try:
        work = getattr(importlib.import_module(module), function)(**settings)
    except ModuleNotFoundError as error:
        sys.exit(
            f"it needs {error.name}, which {sys.executable} does not have: install it next to facejax, or see --only"
        )
    ready = time.perf_counter() - start
    first = measured(work)
    print(json.dumps({"ready_s": ready, "first": first, "versions": versions(), "device": device()}), file=answers)
    answers.flush()
    for _ in iter(sys.stdin.readline, ""):
        print(json.dumps(measured(work)), file=answers, flush=True)


if __name__ == "__main__":
    main()
