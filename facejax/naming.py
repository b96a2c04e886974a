"""Suggestions for error messages about unknown names. Standard library only."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of an error message about an unknown name: ``; did you mean 'x'?`` if one is close, and all known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"{meant} There are: {', '.join(known) or 'none'}"
