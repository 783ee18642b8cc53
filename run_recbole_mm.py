"""Run a model on a pair: `python run_recbole_mm.py --model=MetaMMCDR --dataset=movie_cd`."""

import sys

from recbole_cdr_mm.quick_start import main

if __name__ == "__main__":
    sys.exit(main())
