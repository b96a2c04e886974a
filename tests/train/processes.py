"""Starts `tests.train.worker` as real processes of one run."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

REPOSITORY = pathlib.Path(__file__).parents[2]


def start(data_dir, workdir, processes=1, devices=1, pause=0.0, **changes) -> list[subprocess.Popen]:
    """Starts the processes of a run; their output goes to ``WORKDIR/log_<process>.txt``.

    `pause` delays each batch of the full stage by so many seconds.
    """
    workdir.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = f"localhost:{probe.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    started = []
    for process in range(processes):
        options = {
            "data_dir": str(data_dir),
            "workdir": str(workdir),
            "devices": devices,
            "pause": pause,
            "changes": {path.replace("__", "."): str(value) for path, value in changes.items()},
        }
        if processes > 1:
            options |= {"coordinator": coordinator, "num_processes": processes, "process_id": process}
        with (workdir / f"log_{process}.txt").open("a") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.train.worker", json.dumps(options)],
                    env={**environment, "JAX_PLATFORMS": "cpu"},
                    cwd=REPOSITORY,
                    stdout=log,
                    stderr=log,
                )
            )
    return started


def finish(started, timeout=300) -> list[int]:
    """Exit codes once all processes have ended; none is left running."""
    try:
        return [process.wait(timeout) for process in started]
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def run(data_dir, workdir, processes=1, devices=1, **changes) -> None:
    """Runs to the end."""
    codes = finish(start(data_dir, workdir, processes, devices, **changes))
    assert codes == [0] * processes, (workdir / "log_0.txt").read_text()[-3000:]


def count_lines(workdir) -> int:
    """Lines of metrics.jsonl; empty if there is no such file."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(workdir, lines, started) -> None:
    """Waits until metrics.jsonl has the given number of lines, or a process has ended."""
    while all(process.poll() is None for process in started) and count_lines(workdir) < lines:
        time.sleep(0.005)


def order(workdir, processes) -> dict[int, list[int]]:
    """Records of each step of the stage in the order of the global batch, as last written by the processes."""
    parts: list[dict[int, list[int]]] = []
    for process in range(processes):
        lines = (workdir / f"order_{process}.txt").read_text().splitlines()
        parts.append({int(line.split()[0]): [int(index) for index in line.split()[1:]] for line in lines})
    steps = set.intersection(*(set(part) for part in parts))
    return {step: [index for part in parts for index in part[step]] for step in steps}
