"""Analyses faces in photos, videos and cameras: perceived age, gender and ethnicity, and the look of the expression.

Exit status: 0 success; 1 error, reported in one line; 2 wrong usage; 3 finished, but some photos could not be
read; 130 interrupted.
"""

import argparse
import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from facejax.cards.use import EU
from facejax.cli.broken_pipe import ignore_broken_pipe

DONE, FAILED, PARTLY, STOPPED = 0, 1, 3, 130


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM raises KeyboardInterrupt; later ones are ignored, so that cleanup can finish."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # For `facejax doctor` no other command is imported: it must run even if their dependencies are missing.
    names = ("doctor",) if argv[:1] == ["doctor"] else ("analyze", "search", "export", "models", "doctor", "app")
    parser = argparse.ArgumentParser(
        prog="facejax", description=__doc__, epilog=EU, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        importlib.import_module(f"facejax.cli.{name}").add_parser(commands)
    args = parser.parse_args(argv)
    try:
        with _interrupted_once(), ignore_broken_pipe():
            return args.run(args)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
