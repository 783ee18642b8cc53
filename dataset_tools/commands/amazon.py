"""The command `amazon`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools.commands import (
    add_data_path,
    add_problem_options,
    add_rating_options,
    add_template_option,
    plain_name,
    print_converted,
)
from dataset_tools.convert import amazon

HELP = """\
Convert Amazon's raw files of one product category to a domain. Reviews or ratings of 2014, 2018 or
2023 are told by their content; metadata gives titles and texts. Files may be plain, gzip or zstd.

| release | reviews | ratings alone | metadata |
| 2014 | reviews_X_5.json.gz | ratings_X.csv | meta_X.json.gz |
| 2018 | X_5.json.gz | X.csv | meta_X.json.gz |
| 2023 | X.jsonl.gz | X.csv.gz | meta_X.jsonl.gz |

example:
  python -m dataset_tools amazon --reviews=reviews_CDs_and_Vinyl_5.json.gz \\
      --meta=meta_CDs_and_Vinyl.json.gz --dataset=amazon-cd --data_path=dataset --k_core=5
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--reviews", type=Path, required=True, help="the file of the ratings")
    parser.add_argument("--meta", type=Path, help="the file of the products; none: no item texts")
    parser.add_argument("--dataset", type=plain_name, required=True, help="the domain to be")
    parser.add_argument(
        "--release", help=f"{', '.join(amazon.RELEASES)}; default: what the content tells"
    )
    add_rating_options(parser)
    add_template_option(parser)
    add_problem_options(parser)


def run(**options: Any) -> None:
    """Run the command."""
    converted = amazon.convert(**options)
    print(f"release: {converted.options['release']}")
    print_converted({options["dataset"]: converted}, options["data_path"])
