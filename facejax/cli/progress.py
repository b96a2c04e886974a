"""One line of progress on standard error: rewritten in a terminal, now and then in a log, never when quiet."""

import sys
import time

_SECONDS_IN_A_LOG = 10.0
_SECONDS_TOGETHER = 0.2


class Progress:
    """Counts what is done; use as a context manager, which ends the line.

    Args:
        what: What is counted: ``photos``.
        total: How many there will be; 0 where that is not known.
        quiet: Whether nothing is shown.
    """

    def __init__(self, what: str, total: int = 0, *, quiet: bool = False):
        self._what, self._total, self._quiet = what, total, quiet
        self._terminal = sys.stderr.isatty()
        self._first = self._begun = self._shown = time.monotonic()
        self._together = 0
        self.done = 0

    def add(self) -> None:
        """Counts one; shows the line where it is time to."""
        self.done += 1
        now = time.monotonic()
        if self.done == 1:
            self._first = now
        if now - self._first <= _SECONDS_TOGETHER:
            self._together, self._begun = self.done, now
        if now - self._shown >= (0.2 if self._terminal else _SECONDS_IN_A_LOG):
            self._shown = now
            self._show(end="")

    def _show(self, end: str) -> None:
        if self._quiet:
            return
        # Without the first ones, which come together, and for which networks were read and compiled.
        later = self.done - self._together
        rate = later / max(time.monotonic() - self._begun, 1e-6) if later else 0.0
        left = f", {(self._total - self.done) / rate:.0f} s left" if self._total and rate and not end else ""
        of = f" of {self._total}" if self._total else ""
        speed = f", {rate:.1f} a second{left}" if rate else ""
        line = f"{self.done}{of} {self._what}{speed}"
        if self._terminal:
            sys.stderr.write(f"\r{line:<70}{end}")
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.done:
            self._show(end="\n")
