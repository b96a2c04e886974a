"""facejax: lightweight multi-task face networks in JAX.

The public names are imported lazily, on first use, so that ``import facejax`` is fast and lightweight.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facejax.inference import FaceAnalyzer as FaceAnalyzer
    from facejax.inference import load_model as load_model
    from facejax.models import create_model as create_model
    from facejax.models import list_models as list_models

_HOMES = {
    "FaceAnalyzer": "facejax.inference",
    "create_model": "facejax.models",
    "list_models": "facejax.models",
    "load_model": "facejax.inference",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'facejax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
