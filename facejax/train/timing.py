"""How long steps take on the device, seen from the host without holding either up."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class DeviceClock:
    """Measures steps from the later of their dispatch and the end of the step before, to their own end.

    A thread waits for the results of one step after another, since the loop is then busy with the batches that follow.
    """

    def __init__(self):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device-clock")
        self._last_end = 0.0

    def watch(self, dispatched: float, results: Any) -> Future[float]:
        """The device seconds of a step, as soon as it has ended.

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
