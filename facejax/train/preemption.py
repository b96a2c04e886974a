"""SIGTERM, by which schedulers take a machine back: the run saves where it stands and exits with a code of its own."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

# sysexits.h: "temporary failure, the user is invited to try again".
EXIT_CODE = os.EX_TEMPFAIL


class PreemptedError(Exception):
    """The run was asked to stop and has saved all it did; the same command continues it."""


class Preemption:
    """Whether the run was asked to stop by SIGTERM, as a context manager around the run.

    With several processes it is enough that one gets the signal: JAX's preemption service, which `jax.distributed`
    starts, hears it and lets all of them stop at the same step.
    """

    def __init__(self):
        self._asked, self._calls, self._before = False, 0, None

    def __enter__(self) -> "Preemption":
        # Signals can be handled by the main thread only; a run in another one is stopped by whoever owns the process.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def requested(self) -> bool:
        """Whether to stop now; all processes call it equally often, and get the same answer at the same call."""
        if jax.process_count() == 1:
            return self._asked
        self._calls += 1
        self._asked = self._asked or multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked
