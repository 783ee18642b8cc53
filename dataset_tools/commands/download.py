"""The command `download`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools.commands import name_list, print_table
from dataset_tools.fetch import download, url_table
from recbole_cdr_mm.errors import ConfigError

HELP = """\
Fetch Amazon's raw files from the servers of their authors. A download that broke off goes on where
it ended when the command is run again. Proxies are taken from the environment (https_proxy).

Kinds of file: reviews (5-core, of 2014 and 2018; all of 2023), meta (titles and texts), ratings
(without texts); of 2014 and 2018 reviews_all; of 2014 images; of 2023 ratings_5core.

example:
  python -m dataset_tools download --release=2014 --category=CDs_and_Vinyl,Movies_and_TV \\
      --raw=raw
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    parser.add_argument("--release", required=True, help=", ".join(url_table.RELEASES))
    parser.add_argument(
        "--category",
        type=name_list,
        help="one or more, as CDs_and_Vinyl,Books; needed but for --list",
    )
    parser.add_argument("--raw", type=Path, help="the folder to write to; needed but for --list")
    parser.add_argument(
        "--kind", type=name_list, help=f"kinds of file; default: {','.join(url_table.KINDS)}"
    )
    parser.add_argument("--list", action="store_true", help="fetch nothing, show what there is")
    parser.add_argument("--force", action="store_true", help="fetch again what is there already")
    parser.add_argument(
        "--retries",
        type=int,
        help=f"tries after one that failed, for each file; default: {download.RETRIES}",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        help=f"seconds to wait for the next byte; default: {download.TIMEOUT:g}",
    )
    parser.add_argument(
        "--urls", type=Path, help="another table of URLs, as dataset_tools/fetch/urls.yaml"
    )


def run(**options: Any) -> None:
    """Run the command."""
    if options.pop("list", False):
        _list(
            **{
                key: options[key]
                for key in ("release", "category", "kind", "urls")
                if key in options
            }
        )
        return
    missing = [f"--{key}" for key in ("category", "raw") if key not in options]
    if missing:
        raise ConfigError(
            f"the following arguments are required: {', '.join(missing)}. "
            "--list shows what there is."
        )
    rows: list[tuple[str, ...]] = [("file", "bytes", "fetched now", "status", "written to")]
    for file in download.download(**options):
        sizes = (f"{file.bytes:,}", f"{file.received:,}")
        rows.append((file.name, *sizes, file.status, str(file.path)))
    print_table(rows)


def _list(**options: Any) -> None:
    """Print what would be fetched."""
    rows: list[tuple[str, ...]] = [("file", "kind", "bytes", "hash", "URL")]
    for file in url_table.plan(**options):
        size = "unknown" if file.bytes is None else f"{file.bytes:,}"
        known = "unknown" if file.sha256 is None else "known"
        rows.append((file.name, file.kind, size, known, file.url))
    print_table(rows)
