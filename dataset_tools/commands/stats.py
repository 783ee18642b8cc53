"""The command `stats`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools import stats
from dataset_tools.commands import add_data_path, add_range_option, plain_name, print_table

HELP = """\
Say what a domain or a pair holds, and draw its histograms. For a pair, measure too what the floors
reach on users who are new in the target domain, and say whether the pair is worth it.

example:
  python -m dataset_tools stats --dataset=movie_cd --data_path=dataset --out=figures
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--dataset", type=plain_name, required=True, help="a domain or a pair")
    parser.add_argument(
        "--out", type=Path, help="folder of the histograms; default: DATA_PATH/DATASET"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    add_range_option(parser)


def run(**options: Any) -> None:
    """Run the command."""
    found = stats.make_stats(**options)
    header = ("domain", "items", "users", "ratings", "density", "ratings/user", "ratings/item")
    rows: list[tuple[str, ...]] = [(*header, "mean rating", "years", "items with text")]
    for domain in found.domains:
        years = (domain.first_year, domain.last_year)
        text = domain.items_with_text
        rows.append(
            (
                domain.domain,
                *(f"{count:,}" for count in (domain.items, domain.users, domain.ratings)),
                f"{domain.density:.4%}",
                f"{domain.ratings_per_user:.2f}",
                f"{domain.ratings_per_item:.2f}",
                f"{domain.mean_rating:.3f}",
                "-" if None in years else "{}-{}".format(*years),
                "-" if text is None else f"{text:,} ({text / domain.items:.1%})",
            )
        )
    print_table(rows)
    if found.floors is not None:
        print("\ncold-start users, by folds of the overlapped users")
        rows = [("floor", "MAE", "RMSE")]
        for name, mae in found.floors.mae.items():
            rows.append((name, str(mae), str(found.floors.rmse[name])))
        print_table(rows)
    print("\n".join(["", *found.verdict, f"histograms: {found.histograms}"]))
