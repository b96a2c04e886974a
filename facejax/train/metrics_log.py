"""The log of a run: one JSON object per line in metrics.jsonl, and the same scalars as TensorBoard events."""

import json
import logging
import math
import pathlib
import time
from typing import Any

import jax

from facejax.atomic import write_atomically

logger = logging.getLogger(__name__)

# Phases that depend on the machine and so differ between runs.
TIMING_PHASES = ("timing", "compile")


class MetricsLog:
    """Writes metrics of steps; a resumed run first drops lines after its checkpoint, so that no step appears twice.

    Only process 0 writes.
    """

    def __init__(self, workdir: pathlib.Path, resume_step: int, resume_epoch: int):
        """Opens the log in `workdir`; lines of later steps and evaluations are removed (atomically)."""
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        self._path = workdir / "metrics.jsonl"
        kept = [
            line
            for line in read_metrics(workdir, timing=True)
            if line["step"] <= resume_step and ("epoch" not in line or line["epoch"] <= resume_epoch)
        ]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = self._path.open("a")
        self._events = _Events(workdir / "tensorboard", resume_step + 1)

    def write(self, step: int, **values: Any) -> None:
        """Appends one line; numbers also go to TensorBoard under their names."""
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        prefix = values.get("phase", "train")
        finite = {name: v for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        self._events.write(step, {f"{prefix}/{name}": value for name, value in finite.items()})

    def close(self) -> None:
        """Closes both files."""
        if self._writes:
            self._file.close()
            self._events.close()


class _Events:
    """A TensorBoard event file that is flushed after every event, like the log.

    tensorboardX's `SummaryWriter` buffers events for up to two minutes: a killed run would resume without them.
    """

    def __init__(self, directory: pathlib.Path, first_step: int):
        """Opens a new file; it supersedes events from `first_step` on in earlier files."""
        from tensorboardX.event_file_writer import EventsWriter  # pulls torch in where it is installed
        from tensorboardX.proto import event_pb2

        self._event: Any = event_pb2.Event  # pyright: ignore
        directory.mkdir(exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names, which only contain the time in seconds.
        self._file = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
        self._append(step=first_step, session_log={"status": "START"})

    def write(self, step: int, scalars: dict[str, float | int]) -> None:
        """Appends the scalars of a step, by tag."""
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars.items()]
        self._append(step=step, summary={"value": values})

    def _append(self, **fields: Any) -> None:
        self._file.write_event(self._event(wall_time=time.time(), **fields))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(workdir: pathlib.Path, timing: bool = False) -> list[dict[str, Any]]:
    """All readable lines of a run's metrics.jsonl; damaged lines are skipped.

    The last line may be incomplete if the process was killed; any other damaged line is logged as a warning.

    Args:
        workdir: The run's folder.
        timing: Include the lines of the phases ``timing`` and ``compile``. Without them a run that was interrupted and
            resumed has the same lines as one that was not.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    texts = path.read_text(errors="replace").splitlines()
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            is_timing = line["phase"] in TIMING_PHASES
        except (json.JSONDecodeError, TypeError, KeyError):
            if number < len(texts):
                logger.warning("skipping damaged line %d of %s", number, path)
            continue
        if timing or not is_timing:
            lines.append(line)
    return lines
