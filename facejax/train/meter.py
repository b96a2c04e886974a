"""Progress of a stage: its rate and what is left of it, in a line every few seconds."""

import logging
import math
import time

import numpy as np

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Meter:
    """Counts finished steps; the first one (which compiles) and pauses (evaluation, saving) are not in the rate."""

    def __init__(self, name: str, step: int, steps: int, steps_per_epoch: int, batch_size: int):
        """Starts the clock.

        Args:
            name: Of the stage, for the lines.
            step: Steps of the stage done before.
            steps: Steps of the whole stage.
            steps_per_epoch: Of them in an epoch.
            batch_size: Images a step.
        """
        self._name, self._first, self._done = name, step, step
        self._steps, self._steps_per_epoch, self._batch_size = steps, steps_per_epoch, batch_size
        self._seconds, self._since = 0.0, time.monotonic()
        self._last_line, self._recent = self._since, []

    def pause(self) -> None:
        """Stops the clock."""
        self._seconds += time.monotonic() - self._since
        self._since = math.inf

    def resume(self) -> None:
        """Starts the clock again."""
        self._since = time.monotonic()

    def update(self, metrics: dict[str, float]) -> None:
        """Counts a finished step with its ``loss`` and ``accuracy``; prints when the last line is old enough."""
        self._done += 1
        now = time.monotonic()
        if self._done == self._first + 1:
            logger.info("%s stage: first step, with its compilation, after %.1f s", self._name, now - self._since)
            self._seconds, self._since, self._last_line = 0.0, now, now
            return
        self._recent.append(metrics)
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        rate = (self._done - self._first - 1) / (self._seconds + now - self._since)
        logger.info(
            "%s epoch %d step %d/%d: loss %.4f accuracy %.3f, %.1f images/s, %s left in this stage",
            self._name,
            (self._done - 1) // self._steps_per_epoch + 1,
            self._done,
            self._steps,
            np.mean([step["loss"] for step in self._recent]),
            np.mean([step["accuracy"] for step in self._recent]),
            rate * self._batch_size,
            time.strftime("%H:%M:%S", time.gmtime((self._steps - self._done) / rate)),
        )
        self._last_line, self._recent = now, []
