"""Writes docs/model_cards.md and docs/licences.md from the package.

python tools/make_model_cards.py
"""

import argparse
import pathlib

from facejax.cards.pages import cards_page, licences_page

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = {"model_cards.md": cards_page, "licences.md": licences_page}


def main() -> None:
    """Writes both pages."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
