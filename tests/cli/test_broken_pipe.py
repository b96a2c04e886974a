"""Commands whose output is piped into `head`."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

LINES = "for line in range({}): print(line)"
PROGRAM = "from facejax.cli.broken_pipe import ignore_broken_pipe\nwith ignore_broken_pipe():\n    " + LINES


def unread(arguments: list[str]) -> tuple[int, str]:
    """Exit status and standard error of a program whose output pipe was closed before it prints anything."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("lines", [3, 100_000], ids=["less than a buffer", "more than a buffer"])
def test_a_program_ends_quietly(lines):
    assert unread(["-c", PROGRAM.format(lines)]) == (0, "")
    status, error = unread(["-c", LINES.format(lines)])
    assert status > 0
    assert "BrokenPipeError" in error


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "facejax", "models"],
        ["experiments/run.py", "--list"],
        ["experiments/tables.py", "--table", "Table 1"],
        ["tools/prepare_dataset.py", "--list"],
    ],
    ids=lambda command: " ".join(command),
)
def test_lists_end_quietly(command):
    assert unread(command) == (0, "")
