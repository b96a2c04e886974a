"""Progress of a stage: throughput, where the time goes, time left; logged every few seconds and written as metrics."""

import datetime
import logging
import math
import resource
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from facejax.train.flops import peak_flops

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


def memory_use() -> dict[str, int]:
    """Peak memory so far in bytes: of this process, and of its fullest device if JAX reports it (not on CPU)."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    use = {"host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    counted = [stats["peak_bytes_in_use"] for device in jax.local_devices() if (stats := device.memory_stats())]
    return {**use, "device_peak_bytes": max(counted)} if counted else use


class Meter:
    """Counts finished steps and where their time went; the rate excludes pauses (evaluation, saving)."""

    def __init__(
        self,
        name: str,
        step: int,
        steps: int,
        steps_per_epoch: int,
        batch_size: int,
        flops: int,
        write: Callable[..., None],
    ):
        """Starts the clock.

        Args:
            name: Name of the stage, for the log lines.
            step: Steps of the stage already done.
            steps: Steps of the whole stage.
            steps_per_epoch: Steps per epoch.
            batch_size: Images per step.
            flops: Floating-point operations per step, over all devices.
            write: Called with the timing of each line as keyword arguments.
        """
        self._name, self._done = name, step
        self._steps, self._steps_per_epoch, self._batch_size = steps, steps_per_epoch, batch_size
        peak = peak_flops(jax.devices()[0].device_kind)
        self._least_seconds = flops / (peak * jax.device_count()) if peak else None
        self._write = write
        self._seconds, self._since = 0.0, time.monotonic()
        self._recent: list[tuple[dict[str, float], float, float]] = []

    def pause(self) -> None:
        """Stops the clock."""
        self._seconds += time.monotonic() - self._since
        self._since = math.inf

    def resume(self) -> None:
        """Starts the clock again."""
        self._since = time.monotonic()

    def update(self, metrics: dict[str, float], device_seconds: float, input_seconds: float) -> None:
        """Counts a finished step; logs a line if the last one is old enough.

        Args:
            metrics: Metrics of the step, including ``loss``.
            device_seconds: Time it took on the device.
            input_seconds: Time the loop waited for its batch.
        """
        self._done += 1
        self._recent.append((metrics, device_seconds, input_seconds))
        if self._elapsed() > SECONDS_BETWEEN_LINES:
            self.report()

    def _elapsed(self) -> float:
        return self._seconds + max(time.monotonic() - self._since, 0.0)

    def report(self) -> None:
        """Logs and writes what happened since the last line; does nothing if no step has finished."""
        if not self._recent:
            return
        count, elapsed = len(self._recent), self._elapsed()
        metrics, device, waiting = zip(*self._recent, strict=True)
        step_seconds = elapsed / count
        timing = {
            "steps": count,
            "images_per_second": self._batch_size / step_seconds,
            "step_seconds": step_seconds,
            "device_seconds": float(np.mean(device)),
            "input_seconds": float(np.mean(waiting)),
            **({"mfu": self._least_seconds / step_seconds} if self._least_seconds else {}),
            **memory_use(),
        }
        self._write(phase="timing", stage=self._name, **timing)
        shown = [name for name in metrics[0] if not name.endswith(("/loss", "grad_norm"))]
        logger.info(
            "%s epoch %d step %d/%d: %s; %.1f images/s (device %.3g s per step, %.0f%% waiting for input%s), "
            "%s left in this stage",
            self._name,
            (self._done - 1) // self._steps_per_epoch + 1,
            self._done,
            self._steps,
            ", ".join(f"{name} {np.mean([step[name] for step in metrics]):.4g}" for name in shown),
            timing["images_per_second"],
            timing["device_seconds"],
            100 * timing["input_seconds"] / step_seconds,
            f", MFU {100 * timing['mfu']:.0f}%" if "mfu" in timing else "",
            datetime.timedelta(seconds=round((self._steps - self._done) * step_seconds)),
        )
        self._recent, self._seconds = [], 0.0
        if self._since < math.inf:
            self._since = time.monotonic()
