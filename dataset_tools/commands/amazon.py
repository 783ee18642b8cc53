"""The command `amazon`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools import amazon
from dataset_tools.commands import add_data_path, plain_name, print_table

HELP = """\
Convert raw files of Amazon's 2014 release to a domain: reviews_X_5.json.gz or ratings_X.csv, and
meta_X.json.gz for titles and texts. Other releases are not converted yet.

example:
  python -m dataset_tools amazon --reviews=reviews_CDs_and_Vinyl_5.json.gz \\
      --meta=meta_CDs_and_Vinyl.json.gz --dataset=amazon-cd --data_path=dataset
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--reviews", type=Path, required=True, help="the file of the ratings")
    parser.add_argument("--meta", type=Path, help="the file of the products; none: no item texts")
    parser.add_argument("--dataset", type=plain_name, required=True, help="the domain to be")


def run(**options: Any) -> None:
    """Run the command."""
    converted = amazon.convert(**options)
    print_table(
        [
            ("domain", "users", "items", "ratings", "repeated", "with text", "written to"),
            (
                options["dataset"],
                f"{converted.users:,}",
                f"{converted.items:,}",
                f"{converted.ratings:,}",
                f"{converted.repeated:,}",
                f"{converted.with_text:,}",
                str(options["data_path"] / options["dataset"]),
            ),
        ]
    )
