"""A trace of some steps, for XProf: where the time on the device and on the host goes."""

import logging
import pathlib
from typing import Any

import jax

logger = logging.getLogger(__name__)

# The first steps after a start allocate and fill queues; the trace begins behind them.
STEPS_BEFORE = 3


class Profile:
    """Traces `steps` steps once, into `directory`; nothing where `steps` is 0. The run asks in its last stage."""

    def __init__(self, directory: pathlib.Path, steps: int):
        """Nothing starts before the first `before_step`."""
        self._directory, self._steps, self._seen, self._running = directory, steps, 0, False

    def before_step(self, running: Any) -> None:
        """Starts or stops the trace where it is time; `running` is what the devices are still computing."""
        if self._steps and self._seen == STEPS_BEFORE:
            jax.block_until_ready(running)
            jax.profiler.start_trace(self._directory)
            self._running = True
        if self._seen == STEPS_BEFORE + self._steps:
            self.stop(running)
        self._seen += 1

    def stop(self, running: Any) -> None:
        """Waits for the devices and writes the trace, if there is one under way."""
        if self._running:
            jax.block_until_ready(running)
            jax.profiler.stop_trace()
            self._running = False
            traced = self._seen - STEPS_BEFORE
            logger.info("profile of %d steps written; look at it with: xprof %s", traced, self._directory)

    def close(self) -> None:
        """Writes the trace of a run that ends amid the traced steps; tells where the run was too short for one."""
        if self._running:
            self.stop(())
        elif self._steps and self._seen <= STEPS_BEFORE:
            logger.warning("no profile: it would begin behind %d steps, and %d were run", STEPS_BEFORE, self._seen)
