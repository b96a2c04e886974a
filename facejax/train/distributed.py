"""Many processes, usually one a host, that train as one."""

import contextlib
import functools
import os
from collections.abc import Iterator

import jax
import orbax.checkpoint as ocp

from facejax.config import ConfigError

# How long processes wait for the first one, which may be rendering a data set.
_PATIENCE_MS = 6 * 3600 * 1000


def join(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of the run; to be called before anything else asks JAX for its devices.

    What is None is taken from ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` where these are
    set, and else found by JAX itself: on Cloud TPU, in Kubernetes jobs, under Slurm and Open MPI.

    Args:
        coordinator_address: ``host:port`` of process 0, reachable by all.
        num_processes: Of the whole run.
        process_id: Of this one, from 0.

    Raises:
        ConfigError: JAX does not know the place where it runs and the arguments do not say it all, or say nonsense.
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
            f"cannot join the other processes: {error} JAX finds them itself on Cloud TPU, in Kubernetes jobs "
            "(pip install 'jax[k8s]'), under Slurm and Open MPI; elsewhere pass --coordinator HOST:PORT "
            "--num_processes N --process_id I (docs/devices.md)"
        ) from error


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """A context that process 0 goes through before the others, so that they find the files that it writes.

    Where it ends in an error the others go through it too, and find for themselves what is missing.

    Args:
        what: Name of what is done, the same on all processes and used once in a run.
    """
    # At the coordinator: to meet in an operation of the devices is given up after half a minute on CPUs.
    wait = functools.partial(ocp.multihost.get_barrier_sync_fn(), key=what, timeout_ms=_PATIENCE_MS)
    if jax.process_index() > 0:
        wait()
    try:
        yield
    finally:
        if jax.process_index() == 0:
            wait()
