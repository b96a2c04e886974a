"""Preemption by SIGTERM: the run saves a checkpoint and exits with a special exit code."""

import os
import signal
import threading
from types import FrameType

import jax
from jax.experimental import multihost_utils

# sysexits.h: "temporary failure, the user is invited to try again".
EXIT_CODE = os.EX_TEMPFAIL


class PreemptedError(Exception):
    """The run was asked to stop and has saved its progress; the same command resumes it."""


class Preemption:
    """Context manager around a run that records whether SIGTERM asked it to stop.

    With several processes it is enough that one of them receives the signal: JAX's preemption service, started by
    `jax.distributed`, makes all of them stop at the same step.
    """

    def __init__(self):
        self._asked, self._calls, self._before = False, 0, None

    def __enter__(self) -> "Preemption":
        # Only the main thread can handle signals; a run in another thread is stopped by whoever owns the process.
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
        """Whether to stop now. All processes must call this equally often; they get the same answer at each call."""
        if jax.process_count() == 1:
            return self._asked
        self._calls += 1
        self._asked = self._asked or multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked
