"""`python -m recbole_cdr_mm.tune`."""

import sys

from recbole_cdr_mm.tune.cli import main

if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
