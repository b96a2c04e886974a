"""``facejax models``: networks, and published weights with their tasks and licences."""

import argparse
import json
from typing import Any

from facejax.cli.options import add_output_options


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("models", help="networks and published weights", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="such as tf_efficientnet_*")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    from facejax.models import list_models, pretrained_cfg

    networks = list_models(args.pattern)
    weights = [pretrained_cfg(name) for name in list_models(args.pattern, pretrained=True)]
    if not networks and not weights:
        raise ValueError(f"nothing is called {args.pattern!r}; facejax models lists all")
    if args.json:
        print(json.dumps({"networks": networks, "weights": [{"name": w.name, **w.to_dict()} for w in weights]}))
        return 0
    print("networks:", ", ".join(networks) or "none")
    print("published weights (docs/weights.md; the licence is the publisher's, the photos have terms of their own):")
    for cfg in weights:
        print(f"  {cfg.name:<45} {cfg.licence:<14} {', '.join(cfg.tasks) or 'features only'}")
    return 0
