"""Networks, and published weights with what they tell and the terms they are given on."""

import argparse
import json
import pathlib
from typing import Any

from facejax.cli.options import add_output_options


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("models", help="networks and published weights", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="such as tf_efficientnet_*")
    parser.add_argument("--card", action="store_true", help="model cards of these weights, or of a trained folder")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    from facejax.cards.card import commercial, model_card, read_card, tells
    from facejax.models import list_models, pretrained_cfg
    from facejax.naming import nearest

    networks = list_models(args.pattern)
    weights = [pretrained_cfg(name) for name in list_models(args.pattern, pretrained=True)]
    if args.card and args.json:
        raise ValueError("a card is Markdown: --card or --json, not both")
    if args.card:
        card = read_card(pathlib.Path(args.pattern)) or "\n".join(map(model_card, weights))
        if not card:
            known = list_models(pretrained=True)
            raise ValueError(
                f"{args.pattern!r} is no folder with a card, and no published weights{nearest(args.pattern, known)}"
            )
        print(card)
        return 0
    if not networks and not weights:
        known = list_models() + list_models(pretrained=True)
        raise ValueError(f"no network and no weights are called {args.pattern!r}{nearest(args.pattern, known)}")
    if args.json:
        print(json.dumps({"networks": networks, "weights": [{"name": w.name, **w.to_dict()} for w in weights]}))
        return 0
    print("networks:", ", ".join(networks) or "none")
    print(
        "published weights (licence as their publisher states it; commercial use by the terms of all training photos):"
    )
    for cfg in weights:
        print(f"  {cfg.name:<45} {cfg.licence:<14} {commercial(cfg)[0]:<8} {tells(cfg)}")
    return 0
