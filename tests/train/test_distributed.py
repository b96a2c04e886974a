"""Process 0 goes first, in two real processes (CPU)."""

import socket
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from facejax.train import distributed

coordinator, process, work = sys.argv[1], int(sys.argv[2]), sys.argv[3]
distributed.join(coordinator, 2, process)
started = time.monotonic()
try:
    with distributed.first_process_first("work"):
        if process == 0:
            exec(work)
    print("passed", int(time.monotonic() - started))
except FileNotFoundError as error:
    print(error)
"""


def run(work):
    """Output of process 0 and process 1."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = f"localhost:{probe.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, coordinator, str(process), work],
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    try:
        return [process.communicate(timeout=120)[0].strip() for process in started]
    finally:
        for process in started:
            process.kill()


def test_an_error_of_process_0_holds_nobody():
    """The other process continues, and finds the same error itself."""
    first, second = run("raise FileNotFoundError('no prepared set')")
    assert first == "no prepared set"
    assert second.startswith("passed")


@pytest.mark.slow
def test_the_others_wait_longer_than_a_device_would():
    """Gloo times out after 30 seconds; rendering a dataset takes minutes."""
    first, second = run("time.sleep(40)")
    assert first.startswith("passed")
    assert int(second.split()[1]) >= 35
