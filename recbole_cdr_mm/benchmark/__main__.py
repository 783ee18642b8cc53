"""`python -m recbole_cdr_mm.benchmark`."""

import sys

from recbole_cdr_mm.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
