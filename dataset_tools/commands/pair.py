"""The command `pair`."""

from __future__ import annotations

import argparse
from typing import Any

from dataset_tools import pair
from dataset_tools.commands import add_data_path, plain_name, print_table

HELP = """\
Make two domains a pair, after a look whether they have users in common. Users are the same where
their tokens are equal.

example:
  python -m dataset_tools pair --dataset=movie_cd --source=amazon-movie --target=amazon-cd \\
      --data_path=dataset
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--dataset", type=plain_name, required=True, help="the pair to be")
    parser.add_argument(
        "--source", type=plain_name, required=True, help="domain in which users have a past"
    )
    parser.add_argument(
        "--target", type=plain_name, required=True, help="domain in which users are new"
    )
    parser.add_argument(
        "--rating_range",
        type=pair.check_range,
        help="lowest and highest rating; default: what the domains' manifests say, or 1,5",
    )


def run(**options: Any) -> None:
    """Run the command."""
    rows = [("domain", "items", "users", "ratings", "overlapped users")]
    for size in pair.make_pair(**options):
        items, users, ratings = (f"{n:,}" for n in (size.items, size.users, size.ratings))
        share = f"{size.overlapped:,} ({size.overlapped_share:.1%} of its users)"
        rows.append((size.domain, items, users, ratings, share))
    print_table(rows)
    name = options["dataset"]
    print(f"written to {options['data_path'] / name / f'{name}.yaml'}")
