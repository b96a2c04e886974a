"""Runs the sides of a row in turn; summarises, describes and saves their measurements."""

import argparse
import contextlib
import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from facejax.atomic import write_atomically

TOOLS = pathlib.Path(__file__).parents[1]
# Environment in which experiments/run.py runs itself; used for facejax's sides to match real training.
TRAINING_ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class SideError(RuntimeError):
    """A side failed; the message has the end of its output."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the implementations that are compared.

    Attributes:
        name: Display name; the first side of a row is facejax.
        function: ``module.function`` in this package, which does the setup; see `benchmarks.worker`.
        settings: Its keyword arguments, JSON values.
        python: Interpreter, for peers that need their own environment.
        environment: Variables in addition to the parent's.
    """

    name: str
    function: str
    settings: Mapping[str, Any]
    python: str = sys.executable
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Process:
    """The process of one side."""

    def __init__(self, side: Side, cores: int, device: str, log: Any):
        self.side, self._log = side, log
        paths = [str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "PYTHONPATH": os.pathsep.join(paths)}
        # Two libraries share the accelerator, so JAX must not preallocate three quarters of its memory.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if device == "cpu":
            environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        module, _, function = side.function.rpartition(".")
        self._process = subprocess.Popen(
            [side.python, "-m", "benchmarks.worker", f"benchmarks.{module}", function, str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**environment, **side.environment},
            process_group=0,
        )
        self._say(json.dumps(side.settings))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then `answer` reports why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Reads the next line of JSON from the side.

        Raises:
            SideError: It exited instead, or a figure (such as the loss of a step) is not finite.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines()[-15:]
            raise SideError("\n".join([f"{self.side.name} exited with status {status}; its output:", *said]))
        told = json.loads(line)
        for figures in (told, told.get("first", {})):
            wrong = [name for name, value in figures.items() if isinstance(value, float) and not math.isfinite(value)]
            if wrong:
                raise SideError(
                    f"{self.side.name}: {wrong[0]} is {figures[wrong[0]]}, so its computation cannot be right"
                )
        return told

    def ready(self) -> dict[str, Any]:
        """Waits until the side is ready; returns what it reports about itself."""
        told = self.answer()
        self._signal(signal.SIGSTOP)
        return told

    def round(self) -> dict[str, Any]:
        """Runs one round. Between rounds a side is stopped, as a loader would read ahead during the other's turn."""
        self._signal(signal.SIGCONT)
        self._say("round")
        measured = self.answer()
        self._signal(signal.SIGSTOP)
        return measured

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has exited
            os.killpg(self._process.pid, number)  # including its child processes

    def close(self) -> None:
        """Ends the process."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def run(
    name: str, row: ModuleType, sides: Sequence[Side], args: argparse.Namespace, command: Sequence[str]
) -> dict[str, Any]:
    """Sets up all sides one after another, lets them take turns, and returns the results to save.

    Raises:
        SideError: One of them failed.
    """
    available = len(os.sched_getaffinity(0))
    cores = min(args.threads or available, available)
    measured: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        processes = []
        for side in sides:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = _Process(side, cores, args.device, log)
            stack.callback(process.close)
            measured.append({"name": side.name, "settings": dict(side.settings), **process.ready(), "rounds": []})
            processes.append(process)
        for number in range(args.rounds):
            # The sides take turns at starting, as the first one after a pause finds a cooler machine.
            for place in range(len(sides)):
                index = (place + number) % len(sides)
                measured[index]["rounds"].append(processes[index].round())
    key = getattr(row, "MEASURE", "wall_s")
    for side in measured:
        side["summary"] = summarise(side["rounds"])
    first = measured[0]["summary"]
    return {
        "row": name,
        "goal": row.GOAL,
        "unit": row.UNIT,
        "measure": key,
        "command": "python " + shlex.join(command),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": args.device,
        "machine": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
        "sides": measured,
        # First side relative to each other side: below 1, the first is faster (or smaller).
        "ratios": {side["name"]: first[key] / side["summary"][key] for side in measured[1:]},
    }


def summarise(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians over rounds: wall seconds (with minimum and maximum) and CPU seconds per item; peak memory."""
    walls = [one["wall_s"] / one["items"] for one in rounds]
    summary = {"wall_s": statistics.median(walls), "wall_s_least": min(walls), "wall_s_most": max(walls)}
    summary["cpu_s"] = statistics.median(one["cpu_s"] / one["items"] for one in rounds)
    summary["peak_mb"] = max(one["peak_mb"] for one in rounds)
    others = {key for one in rounds for key in one} - {"wall_s", "cpu_s", "items", "peak_mb"}
    return summary | {key: statistics.median(one[key] for one in rounds) for key in sorted(others)}


def describe(result: Mapping[str, Any]) -> str:
    """Formats the results as text."""
    unit = result["unit"]
    lines = [f"{result['row']} on {result['sides'][0]['device']}; goal: {result['goal']}"]
    for side in result["sides"]:
        figures = side["summary"]
        spread = f"{1e3 * figures['wall_s_least']:.4g}-{1e3 * figures['wall_s_most']:.4g}"
        lines.append(
            f"  {side['name']}: {1e3 * figures['wall_s']:.4g} ms per {unit} ({spread}, {len(side['rounds'])} rounds), "
            f"{1 / figures['wall_s']:.4g} per second; CPU {1e3 * figures['cpu_s']:.4g} ms; "
            f"peak {figures['peak_mb']:.0f} MB; ready in {side['ready_s']:.1f} s"
        )
    what = {"wall_s": "time", "cpu_s": "CPU time", "peak_mb": "peak memory"}[result["measure"]]
    first = result["sides"][0]
    for other in result["sides"][1:]:
        ratio, cpu = result["ratios"][other["name"]], first["summary"]["cpu_s"] / other["summary"]["cpu_s"]
        lines.append(
            f"  {first['name']} / {other['name']}: {ratio:.3f} of its {what}, {1 / ratio:.3f} x as good; "
            f"{cpu:.3f} of its CPU time"
        )
    return "\n".join(lines)


def save(result: Mapping[str, Any], folder: pathlib.Path, tag: str = "") -> pathlib.Path:
    """Writes the JSON atomically; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['row']}-{result['device']}{'-' * bool(tag)}{tag}.json"
    write_atomically(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return path
