"""XProf trace of a few steps: where the time on the device and on the host goes."""

import logging
import pathlib
from typing import Any

import jax

logger = logging.getLogger(__name__)

# The first steps allocate memory and fill queues; the trace starts after them.
STEPS_BEFORE = 3


class Profile:
    """Traces `steps` steps once, into `directory`; does nothing if `steps` is 0. Used in the last stage of a run."""

    def __init__(self, directory: pathlib.Path, steps: int):
        """Only stores the settings; the trace is started by `before_step`."""
        self._directory, self._steps, self._seen, self._running = directory, steps, 0, False

    def before_step(self, running: Any) -> None:
        """Starts or stops the trace when it is due; `running` is what the devices are still computing."""
        if self._steps and self._seen == STEPS_BEFORE:
            jax.block_until_ready(running)
            jax.profiler.start_trace(self._directory)
            self._running = True
        if self._seen == STEPS_BEFORE + self._steps:
            self.stop(running)
        self._seen += 1

    def stop(self, running: Any) -> None:
        """Waits for the devices and writes the trace, if one is being recorded."""
        if self._running:
            jax.block_until_ready(running)
            jax.profiler.stop_trace()
            self._running = False
            traced = self._seen - STEPS_BEFORE
            logger.info("profile of %d steps written; look at it with: xprof %s", traced, self._directory)

    def close(self) -> None:
        """Writes the trace if the run ends during the traced steps; logs a warning if it was too short for a trace."""
        if self._running:
            self.stop(())
        elif self._steps and self._seen <= STEPS_BEFORE:
            logger.warning("no profile: it starts after %d steps, but only %d were run", STEPS_BEFORE, self._seen)
