"""Where published weights are kept. Standard library only, so that `facejax doctor` runs where packages are missing."""

import os
import pathlib


def cache_dir() -> pathlib.Path:
    """Folder of downloads and their conversions: ``$FACEJAX_CACHE``, or ``~/.cache/facejax``."""
    return pathlib.Path(os.environ.get("FACEJAX_CACHE") or pathlib.Path.home() / ".cache" / "facejax")
