"""Measures how long steps take on the device, from the host, without delaying either."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class DeviceClock:
    """Measures each step from its dispatch or the end of the previous step, whichever is later, to its own end.

    A thread waits for the results of one step after another, since the loop is already busy with the next batches.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device-clock")
        self._last_end = 0.0

    def watch(self, dispatched: float, results: Any) -> Future[float]:
        """A future of the device seconds of a step, which resolves when the step has finished.

        Args:
            dispatched: `time.monotonic()` just before the step was called.
            results: Arrays that the step computes; an error in computing them is raised by the future.
        """
        return self._thread.submit(self._wait, dispatched, results)

    def _wait(self, dispatched: float, results: Any) -> float:
        jax.block_until_ready(results)
        end = time.monotonic()
        seconds, self._last_end = end - max(dispatched, self._last_end), end
        return seconds

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()
