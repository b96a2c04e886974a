"""Faces of photos, folders, videos and cameras: perceived age, gender, ethnicity, and the look of the expression.

Exit status: 0 done; 1 an error, in one line; 2 wrong usage; 3 done, but some photos could not be
read; 130 stopped.
"""

import argparse
import sys
from collections.abc import Sequence

from facejax.cards.use import EU
from facejax.cli.unread import quiet_when_unread

DONE, FAILED, PARTLY, STOPPED = 0, 1, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    from facejax.cli import analyze, app, doctor, export, models, search

    parser = argparse.ArgumentParser(
        prog="facejax", description=__doc__, epilog=EU, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (analyze, search, export, models, doctor, app):
        module.add_parser(commands)
    args = parser.parse_args(argv)
    try:
        with quiet_when_unread():
            return args.run(args)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
