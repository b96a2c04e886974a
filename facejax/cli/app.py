"""``facejax app``: the local page."""

import argparse
from typing import Any

from facejax.cli.options import add_model_options


def add_parser(commands: Any) -> None:
    """Adds the command; its other options are those of the app itself."""
    parser = commands.add_parser("app", help="a local page for photos, clips and the camera", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    try:
        from facejax.app import serve  # pyright: ignore
    except ModuleNotFoundError as error:
        raise ImportError(f"this installation has no app ({error})") from error
    return serve(args)
