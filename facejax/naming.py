"""What an error says about a name that is not there. Standard library only."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of such a message: ``; did you mean 'x'?`` and what there is, or only the latter where none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"{meant} There are: {', '.join(known) or 'none'}"
