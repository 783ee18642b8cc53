"""The command `csv`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools.commands import (
    add_data_path,
    add_problem_options,
    add_rating_options,
    name_list,
    plain_name,
    print_converted,
)
from dataset_tools.convert import table
from dataset_tools.convert.ratings import UNITS
from dataset_tools.pair import check_range

HELP = """\
Convert any file of ratings to a domain: delimited text with or without a header, plain, gzip or
zstd, or parquet. MovieLens 25M and, with another separator and no header, MovieLens 1M:

example:
  python -m dataset_tools csv --ratings=ml-25m/ratings.csv --user=userId --item=movieId \\
      --rating_range=0.5,5 --items=ml-25m/movies.csv --title=title --text=genres \\
      --dataset=ml-25m --data_path=dataset

  python -m dataset_tools csv --ratings=ml-1m/ratings.dat --separator=:: \\
      --columns=user,item,rating,timestamp --user=user --item=item --items=ml-1m/movies.dat \\
      --items_columns=item,title,genres --title=title --text=genres --encoding=latin-1 \\
      --dataset=ml-1m --data_path=dataset

Two domains whose users have the same ids make a pair: see `pair --help`.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--ratings", type=Path, required=True, help="the file of the ratings")
    parser.add_argument("--dataset", type=plain_name, required=True, help="the domain to be")
    parser.add_argument("--user", help="column of users; default: user_id")
    parser.add_argument("--item", help="column of items; default: item_id")
    parser.add_argument("--rating", help="column of ratings; default: rating")
    parser.add_argument("--time", help="column of times; default: timestamp, where there is one")
    parser.add_argument(
        "--separator",
        type=_separator,
        help="between two values, one or more characters, or `tab`; default: ,",
    )
    parser.add_argument("--encoding", help="of the text; default: utf-8")
    parser.add_argument(
        "--columns", type=name_list, help="names of the columns, if there is no header"
    )
    parser.add_argument(
        "--rating_range", type=check_range, help="lowest and highest rating; default: 1,5"
    )
    parser.add_argument(
        "--time_unit", help=f"of times that are numbers: {', '.join(UNITS)}; default: s"
    )
    parser.add_argument("--time_format", help="of times that are dates, for example %%Y-%%m-%%d")
    parser.add_argument("--items", type=Path, help="the file of the items; none: no item texts")
    parser.add_argument("--items_id", help="its column of items; default: that of --item")
    parser.add_argument("--items_columns", type=name_list, help="as --columns, of this file")
    parser.add_argument("--items_separator", type=_separator, help="default: that of --separator")
    parser.add_argument("--items_encoding", help="default: that of --encoding")
    parser.add_argument("--title", help="its column of titles")
    parser.add_argument("--text", type=name_list, help="its columns that make the text")
    add_rating_options(parser)
    add_problem_options(parser)


def _separator(value: str) -> str:
    """Take a tab as people write it."""
    return "\t" if value in ("tab", "\\t") else value


def run(**options: Any) -> None:
    """Run the command."""
    converted = table.convert(**options)
    print_converted({options["dataset"]: converted}, options["data_path"])
