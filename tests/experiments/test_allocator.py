"""The restart of a run with other memory settings."""

import json
import os
import subprocess
import sys

import pytest

from experiments.allocator import HUGE_PAGES
from tests.conftest import REPOSITORY

PROGRAM = """
import json, os, sys
from experiments.allocator import use_huge_pages
use_huge_pages()
print(json.dumps([os.environ["GLIBC_TUNABLES"], sys.flags.optimize, sys._xoptions, sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_a_restart_keeps_the_flags_of_python_and_the_arguments():
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-O", "-X", "utf8", "-c", PROGRAM, "--config", "a b"]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [HUGE_PAGES, 1, {"utf8": True}, ["--config", "a b"]]
