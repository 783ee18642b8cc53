"""The command `synthetic`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools import synthetic
from dataset_tools.commands import add_data_path, plain_name, print_table
from dataset_tools.convert.amazon_tasks import TASKS
from dataset_tools.full_size import make_task
from recbole_cdr_mm.errors import ConfigError

HELP = """\
Make up a pair of domains in which it is known what one says about the other.

example:
  python -m dataset_tools synthetic --dataset=demo --data_path=dataset

of the sizes of one of the paper's tasks:
  python -m dataset_tools synthetic --dataset=big --data_path=dataset --task=book_movie
"""

_HEAD = ("domain", "items", "users", "ratings", "written to")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument(
        "--dataset",
        type=plain_name,
        required=True,
        help="the pair; domains get _movie and _cd added, or what those of the task are",
    )
    parser.add_argument(
        "--task",
        help=f"{', '.join(TASKS)}: exactly the sizes of that task of the paper, with text features;"
        " of the options below only --seed goes with it",
    )
    parser.add_argument("--users", type=int, help="users in all; default: 2400")
    parser.add_argument("--items", type=int, help="items of each domain; default: 800")
    parser.add_argument("--overlap", type=float, help="share of users in both; default: 0.625")
    parser.add_argument("--ratings_per_user", type=int, help="in each domain; default: 14")
    parser.add_argument(
        "--structure", help=f"what is planted: {', '.join(synthetic.WORLDS)}; default: demo"
    )
    parser.add_argument("--seed", type=int, help="default: 0")


def run(**options: Any) -> None:
    """Run the command."""
    if "task" in options:
        _make_task(**options)
        return
    pair = synthetic.make_dataset(**options)
    rows = [_HEAD]
    for name, inter, items in zip(
        synthetic.domain_names(options["dataset"]),
        (pair.source_inter, pair.target_inter),
        (pair.source_items, pair.target_items),
        strict=True,
    ):
        users = inter["user_id"].nunique()
        folder = options["data_path"] / name
        rows.append((name, f"{len(items):,}", f"{users:,}", f"{len(inter):,}", str(folder)))
    print_table(rows)
    print(
        f"{pair.n_overlapped:,} overlapped users; noise alone gives a target RMSE of "
        f"{pair.noise_floor:.4f}"
    )


def _make_task(*, data_path: Path, dataset: str, task: str, seed: int = 0, **others: Any) -> None:
    if others:
        raise ConfigError(
            f"--task={task} has the sizes of the paper's task: leave out"
            f" {', '.join(f'--{name}' for name in others)}."
        )
    pair = make_task(data_path, dataset, task=task, seed=seed)
    rows = [_HEAD]
    for name, of in pair.counts.items():
        items, users, ratings = (f"{of[kind]:,}" for kind in ("items", "users", "ratings"))
        rows.append((name, items, users, ratings, str(data_path / name)))
    print_table(rows)
    *_, floor = pair.noise_floor.values()
    print(f"{pair.n_overlapped:,} overlapped users; noise alone gives a target RMSE of {floor:.4f}")
