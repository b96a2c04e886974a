"""The files that every protocol writes to its workdir: report.json for `tables.py`, report.md for people."""

import datetime
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from facejax.atomic import write_atomically
from facejax.evals.fairness import to_jsonable
from facejax.evals.tasks import format_interval


def write_results(workdir: pathlib.Path, report: dict[str, Any], markdown: list[str]) -> None:
    """Writes ``report.json`` and ``report.md``; adds the date and the command."""
    report = {"command": command(), "date": datetime.date.today().isoformat(), **report}
    write_atomically(workdir / "report.json", (json.dumps(to_jsonable(report), indent=2) + "\n").encode())
    write_atomically(workdir / "report.md", "\n".join([*markdown, "", f"    {report['command']}", ""]).encode())


def command() -> str:
    """The command that started this run, as it was typed."""
    arguments = [shlex.quote(argument) for argument in sys.argv[1:]]
    return " ".join(["python", "experiments/run.py", *arguments])


def percent(value: float, interval: Sequence[float | None] | None = None) -> str:
    """``62.42 [60.10, 64.70]``: a fraction in percent, with its interval if there is one."""
    return format_interval(value, interval, scale=100.0)


def accuracy(found: dict[str, Any]) -> str:
    """``62.42 [60.10, 64.70]`` from a result's ``accuracy`` and ``interval95``; ``-`` if there are no records."""
    return percent(found["accuracy"], found["interval95"]) if found["n"] else "-"


def accuracy_and_std(found: dict[str, Any]) -> str:
    """``92.60 ± 4.01 [90.10, 94.70]``: accuracy, its standard deviation over the repeats, and its interval if any."""
    return f"{percent(found['accuracy'])} ± {percent(found['std'], found['interval95'])}"
