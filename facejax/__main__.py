"""Makes ``python -m facejax`` equivalent to ``facejax``."""

import sys

from facejax.cli import main

if __name__ == "__main__":
    sys.exit(main())
