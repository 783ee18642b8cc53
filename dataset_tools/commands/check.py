"""The command `check`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools import check
from dataset_tools.commands import add_data_path, add_range_option, plain_name, print_table
from recbole_cdr_mm.errors import DataFormatError

HELP = """\
Read a domain, or a pair with both of its domains, and all feature stores beside them, and report
everything that is wrong, not the first fault alone. Exit code 2 if there is an error.

example:
  python -m dataset_tools check --dataset=movie_cd --data_path=dataset
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--dataset", type=plain_name, required=True, help="a domain or a pair")
    parser.add_argument("--feature_path", type=Path, help="stores are in FEATURE_PATH/<domain>/")
    add_range_option(parser)


def run(**options: Any) -> None:
    """Run the command."""
    findings = check.check_dataset(**options)
    print_table([("severity", "where", "what")])
    for finding in findings:
        print(f"{finding.severity:8}  {finding.where}: {finding.what}")
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        raise DataFormatError(
            f"{options['dataset']}: {errors} kind{'s' * (errors != 1)} of fault, listed above. "
            "Correct the files or make them again."
        )
