"""The commands of `python -m dataset_tools`, one module each.

A module has `HELP` (what `--help` says, with an example), `add_options(parser)` and
`run(**options)`. Options that were not given are not handed on, so that a default stands once, in
the function that does the work.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset_tools.convert.domain_writer import Converted
from dataset_tools.convert.problems import MAX_ERRORS
from dataset_tools.convert.products import FIELDS, TEMPLATE
from dataset_tools.pair import check_range
from recbole_cdr_mm.errors import ConfigError


def plain_name(value: str) -> str:
    """Refuse a name of a data set that is more than the name of a folder."""
    if value in ("", ".", "..") or Path(value).name != value:
        raise ConfigError(
            f"dataset `{value}` must be a plain name; give its folder as --data_path."
        )
    return value


def name_list(value: str) -> list[str]:
    """Take `a,b` apart."""
    return value.split(",")


def add_data_path(parser: argparse.ArgumentParser) -> None:
    """Add the option that nearly all commands have."""
    parser.add_argument("--data_path", type=Path, required=True, help="folder of the domains")


def add_range_option(parser: argparse.ArgumentParser) -> None:
    """Add the range of ratings for commands that read what is converted already."""
    parser.add_argument(
        "--rating_range",
        type=check_range,
        help="lowest and highest; default: what the pair or the domain's manifest says, or 1,5",
    )


def add_rating_options(parser: argparse.ArgumentParser) -> None:
    """Add what commands that read ratings can be told of which of them to keep."""
    parser.add_argument(
        "--k_core",
        type=int,
        help="keep users and items with as many ratings, of one another; default: all",
    )
    parser.add_argument(
        "--duplicates",
        help="which of several ratings of a user for an item counts: last, first, mean, or error "
        "to allow none; default: last",
    )


def add_template_option(parser: argparse.ArgumentParser) -> None:
    """Add how the text of a product is made."""
    parser.add_argument(
        "--template",
        help="parts of the text between |, each left out where a field of it is empty; fields: "
        f"{', '.join(FIELDS)}; default: {TEMPLATE}",
    )


def add_problem_options(parser: argparse.ArgumentParser) -> None:
    """Add what commands that read raw files can be told of faults in them."""
    parser.add_argument(
        "--on_error", help="stop at the first faulty line, or skip such lines; default: stop"
    )
    parser.add_argument(
        "--max_errors",
        type=int,
        help=f"with skip: faulty lines that are passed over; default: {MAX_ERRORS}",
    )


def print_converted(made: Mapping[str, Converted], data_path: Path) -> None:
    """Say what domains were made, and what of the raw files was left out."""
    rows: list[tuple[str, ...]] = [
        ("domain", "items", "users", "ratings", "with text", "written to")
    ]
    for name, domain in made.items():
        counts = (domain.items, domain.users, domain.ratings, domain.with_text)
        rows.append((name, *(f"{count:,}" for count in counts), str(data_path / name)))
    print_table(rows)
    for name, domain in made.items():
        if domain.repeated:
            print(f"{name}: {domain.repeated:,} repeated ratings of a user for an item were merged")
        if domain.outside_core:
            print(f"{name}: {domain.outside_core:,} ratings lay outside the core")
        for note in domain.notes:
            print(f"{name}: {note}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of them a header: first and last column left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers, last in rows:
        cells = (cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
        print("  ".join([first.ljust(widths[0]), *cells, last]))
