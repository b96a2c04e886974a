"""The files that every protocol writes to its workdir: report.json for `tables.py`, report.md for people."""

import datetime
import json
import math
import pathlib
import shlex
import sys
from typing import Any

from facejax.atomic import write_atomically
from facejax.evals.fairness import to_jsonable


def write_results(workdir: pathlib.Path, report: dict[str, Any], markdown: list[str]) -> dict[str, Any]:
    """Writes ``report.json`` and ``report.md``; adds the date and the command. Returns the report."""
    report = {"command": command(), "date": datetime.date.today().isoformat(), **report}
    write_atomically(workdir / "report.json", (json.dumps(to_jsonable(report), indent=2) + "\n").encode())
    write_atomically(workdir / "report.md", "\n".join([*markdown, "", f"    {report['command']}", ""]).encode())
    return report


def command() -> str:
    """The command that started this run, as it was typed."""
    arguments = [shlex.quote(argument) for argument in sys.argv[1:]]
    return " ".join(["python", "experiments/run.py", *arguments])


def percent(value: float, interval: tuple[float, float] | list[float] | None = None) -> str:
    """``62.42 [60.1, 64.7]``: a fraction in percent, with its interval if there is one."""
    text = f"{100 * value:.2f}"
    return text if interval is None else f"{text} [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"


def accuracy(found: dict[str, Any]) -> str:
    """``62.42 [60.1, 64.7]`` from a result's ``accuracy`` and ``interval95``; ``-`` if there are no records.

    A single person gives no interval: its ends are nan (null in files).
    """
    low, high = found["interval95"]
    interval = None if low is None or math.isnan(low) else (low, high)
    return percent(found["accuracy"], interval) if found["n"] else "-"
