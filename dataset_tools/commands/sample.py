"""The command `sample`."""

from __future__ import annotations

import argparse
from typing import Any

from dataset_tools import sample
from dataset_tools.commands import add_data_path, plain_name, print_table

HELP = """\
Make a smaller pair of a large one. It has a share of its ratings; density, share of overlapped
users, timestamps and item texts stay, ratings per user and per item get fewer. Features are not
copied: make them with the command text.

example:
  python -m dataset_tools sample --dataset=book_movie --to=book_movie_small --ratio=0.1 \\
      --data_path=dataset
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--dataset", type=plain_name, required=True, help="the pair to draw from")
    parser.add_argument(
        "--to",
        type=plain_name,
        required=True,
        help="the pair to be; its domains get _source and _target added",
    )
    parser.add_argument("--ratio", type=float, help="share of the ratings to keep; default: 0.1")
    parser.add_argument("--seed", type=int, help="default: 0")


def run(**options: Any) -> None:
    """Run the command."""
    header = ("domain", "items", "users", "ratings", "density", "ratings/user", "ratings/item")
    rows: list[tuple[str, ...]] = [(*header, "overlapped users")]
    for sizes in sample.make_sample(**options):
        for size in sizes:
            counts = (size.items, size.users, size.ratings)
            numbers = (
                *(f"{count:,}" for count in counts),
                f"{size.density:.4%}",
                f"{size.ratings_per_user:.2f}",
                f"{size.ratings_per_item:.2f}",
            )
            share = f"{size.overlapped:,} ({size.overlapped_share:.1%} of its users)"
            rows.append((size.domain, *numbers, share))
    print_table(rows)
    print(f"written to {options['data_path'] / options['to']}, and its two domains beside it")
