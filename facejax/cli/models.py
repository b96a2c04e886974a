"""Lists networks, and published weights with their outputs and terms of use."""

import argparse
import json
import pathlib
from typing import Any

from facejax.cli import DONE
from facejax.cli.options import add_output_options


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser = commands.add_parser("models", help="list networks and published weights", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="pattern for names, such as tf_efficientnet_*")
    parser.add_argument(
        "--card", action="store_true", help="print the model cards of these weights, or of a trained folder"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from facejax.cards.card import commercial, describe_outputs, model_card, read_card
    from facejax.models import list_models, pretrained_cfg
    from facejax.naming import did_you_mean

    networks = list_models(args.pattern)
    weights = [pretrained_cfg(name) for name in list_models(args.pattern, pretrained=True)]
    if args.card and args.json:
        raise ValueError("cards are Markdown: use --card or --json, not both")
    if args.card:
        card = read_card(pathlib.Path(args.pattern)) or "\n".join(map(model_card, weights))
        if not card:
            known = list_models(pretrained=True)
            raise ValueError(
                f"{args.pattern!r} is neither a folder with a card nor published weights"
                f"{did_you_mean(args.pattern, known)}"
            )
        print(card)
        return DONE
    if not networks and not weights:
        known = list_models() + list_models(pretrained=True)
        raise ValueError(f"no network or weights match {args.pattern!r}{did_you_mean(args.pattern, known)}")
    if args.json:
        print(json.dumps({"networks": networks, "weights": [{"name": w.name, **w.to_dict()} for w in weights]}))
        return DONE
    print("networks:", ", ".join(networks) or "none")
    print("published weights (licence as stated by the publisher; commercial use by the terms of all training photos):")
    for cfg in weights:
        print(f"  {cfg.name:<45} {cfg.licence:<14} {commercial(cfg)[0]:<8} {describe_outputs(cfg)}")
    return DONE
