"""Progress on standard error: one line that is updated in a terminal, occasional lines in a log."""

import sys
import time

_SECONDS_IN_A_LOG = 10.0
_SECONDS_TOGETHER = 0.2


class Progress:
    """Counts and shows progress; use as a context manager, which finishes the line.

    Args:
        what: What is counted, such as ``photos``.
        total: Total number; 0 if unknown.
        quiet: Whether to show nothing.
    """

    def __init__(self, what: str, total: int = 0, *, quiet: bool = False):
        self._what, self._total, self._quiet = what, total, quiet
        self._terminal = sys.stderr.isatty()
        self._first = self._begun = self._shown = time.monotonic()
        self._together = 0
        self.done = 0

    def add(self) -> None:
        """Counts one item; updates the line when it is due."""
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
        # Excludes the first ones, which arrive together after the networks were loaded and compiled.
        later = self.done - self._together
        rate = later / max(time.monotonic() - self._begun, 1e-6) if later else 0.0
        left = f", {(self._total - self.done) / rate:.0f} s left" if self._total and rate and not end else ""
        of = f" of {self._total}" if self._total else ""
        speed = f", {rate:.1f} per second{left}" if rate else ""
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
