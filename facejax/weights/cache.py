"""Location of the weights cache. Standard library only, so that `facejax doctor` works even if packages are missing."""

import os
import pathlib


def cache_dir() -> pathlib.Path:
    """Folder of downloads and converted weights: ``$FACEJAX_CACHE``, or ``~/.cache/facejax``."""
    return pathlib.Path(os.environ.get("FACEJAX_CACHE") or pathlib.Path.home() / ".cache" / "facejax")
