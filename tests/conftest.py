"""Shared setup: simulated devices, strict JAX, shapes and types checked at every call, `slow` tests on request."""

import os
import pathlib
import shutil
import subprocess
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from jaxtyping import install_import_hook

install_import_hook("facejax", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).parents[1]
COMPILED = pytest.StashKey[str]()


def pytest_configure(config):
    """Shares compiled XLA programs between the workers of this test run; programs that tests start do not use them."""
    if hasattr(config, "workerinput"):
        folder = config.workerinput["compiled"]
    else:
        owner = tempfile.TemporaryDirectory(prefix="facejax-tests-compiled-", ignore_cleanup_errors=True)
        config.add_cleanup(owner.cleanup)
        folder = config.stash[COMPILED] = owner.name
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)  # less than writing and reading would take


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Passes its location to a worker of pytest-xdist."""
    node.workerinput["compiled"] = node.config.stash[COMPILED]


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with real photos and official weights next to the checkout (or at FACEJAX_SHARED)."""
    path = pathlib.Path(os.environ.get("FACEJAX_SHARED", REPOSITORY.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"needs the folder of real photos and official weights (FACEJAX_SHARED={path})")
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MiB, if the test is allowed to mount one."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
