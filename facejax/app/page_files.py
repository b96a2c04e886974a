"""The files of the page, and its configuration."""

import pathlib
from collections.abc import Sequence
from typing import Any

from facejax.app.limits import Limits
from facejax.inference import LoadedModel

PAGE = pathlib.Path(__file__).with_name("page")
CONFIG = "config.json"


def page_config(engine: str, models: Sequence[LoadedModel], limits: Limits) -> dict[str, Any]:
    """Content of ``config.json``, from which the page chooses its engine.

    Args:
        engine: ``server`` (POST to /api) or ``browser`` (the networks of ``bundle/`` in the browser).
        models: The networks.
        limits: Limits on uploads.
    """
    networks = [
        {"name": model.cfg.name, "licence": model.cfg.licence, "tasks": list(model.cfg.tasks)} for model in models
    ]
    return {"engine": engine, "models": networks, "limits": limits.for_page()}
