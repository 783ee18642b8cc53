"""The command `amazon-tasks`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools.commands import (
    add_data_path,
    add_problem_options,
    add_template_option,
    name_list,
    print_converted,
)
from dataset_tools.convert import amazon_tasks

HELP = """\
Convert the domains of the paper's three tasks (movie_cd, book_movie, book_cd) from Amazon's 2014
files, each domain once, and compare every figure with the paper's Table 1.

example:
  python -m dataset_tools amazon-tasks --raw=raw --data_path=dataset
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument(
        "--raw", type=Path, required=True, help="folder of reviews_X_5.json.gz and meta_X.json.gz"
    )
    parser.add_argument("--tasks", type=name_list, help=f"default: {','.join(amazon_tasks.TASKS)}")
    add_template_option(parser)
    add_problem_options(parser)


def run(**options: Any) -> None:
    """Run the command."""
    made = amazon_tasks.convert_tasks(**options)
    print_converted(made.domains, options["data_path"])
    for task, count in made.overlapped.items():
        print(f"{task}: {count:,} overlapped users")
    if not made.differences:
        print("Every figure is that of the paper's Table 1.")
    for difference in made.differences:
        print(f"differs: {difference}")
