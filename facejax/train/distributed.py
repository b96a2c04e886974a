"""Training with several processes, usually one per host."""

import contextlib
import functools
import os
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp

from facejax.config import ConfigError

# How long processes wait for the first one, which may be rendering a dataset.
_PATIENCE_MS = 6 * 3600 * 1000


def join(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of the run; must be called before anything else asks JAX for its devices.

    Arguments that are None are taken from ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` if
    these are set, and otherwise detected by JAX: on Cloud TPU, in Kubernetes jobs, under Slurm and Open MPI.

    Args:
        coordinator_address: ``host:port`` of process 0, reachable by all.
        num_processes: Number of processes of the run.
        process_id: Index of this process, from 0.

    Raises:
        ConfigError: JAX does not recognise the environment and the arguments are incomplete, or they are invalid.
    """
    if coordinator_address and ":" not in coordinator_address:
        raise ConfigError(f"--coordinator {coordinator_address}: expected HOST:PORT, such as localhost:12345")
    variables = {"JAX_NUM_PROCESSES": num_processes, "JAX_PROCESS_ID": process_id}
    try:
        for name, value in variables.items():
            if value is None and name in os.environ:
                variables[name] = int(os.environ[name])
        jax.distributed.initialize(coordinator_address, variables["JAX_NUM_PROCESSES"], variables["JAX_PROCESS_ID"])
    except (ValueError, IndexError) as error:  # IndexError: a coordinator without a port
        raise ConfigError(
            f"cannot join the other processes: {error} JAX detects them on Cloud TPU, in Kubernetes jobs "
            "(pip install 'jax[k8s]'), under Slurm and Open MPI; elsewhere pass --coordinator HOST:PORT "
            "--num_processes N --process_id I (docs/devices.md)"
        ) from error


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """Context that process 0 completes before the others enter it, so that they find the files that it writes.

    If it fails in process 0, the others enter it nonetheless, and find out themselves what is missing.

    Args:
        what: Name of the action, the same in all processes and unique within a run.
    """
    # The barrier is at the coordinator: a collective operation on the devices times out after half a minute on CPUs.
    wait = functools.partial(ocp.multihost.get_barrier_sync_fn(), key=what, timeout_ms=_PATIENCE_MS)
    if jax.process_index() > 0:
        wait()
    try:
        yield
    finally:
        if jax.process_index() == 0:
            wait()
