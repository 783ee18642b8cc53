"""The command `image`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools import image
from dataset_tools.commands import add_data_path, plain_name, print_table
from dataset_tools.feature_store import DTYPES

HELP = """\
Store the image features of a domain's items beside the domain. They come from Amazon's 2014
release: image_features_X.b, packed by gzip or not, one file for each category and so for each
domain. The store takes 16 KB an item, 8 KB with --dtype=float16, and twice that while it is made.

example:
  python -m dataset_tools image --features=image_features_CDs_and_Vinyl.b --dataset=amazon-cd \\
      --data_path=dataset --dtype=float16
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--features", type=Path, required=True, help="the file of the features")
    parser.add_argument("--dataset", type=plain_name, required=True, help="a domain")
    parser.add_argument("--feature_path", type=Path, help="write to FEATURE_PATH/<domain>/ instead")
    parser.add_argument("--dtype", help=f"{' or '.join(DTYPES)} in the store; default: float32")


def run(**options: Any) -> None:
    """Run the command."""
    stored = image.store_images(**options)
    print_table(
        [
            ("domain", "items", "with image", "records read", "size", "written to"),
            (
                options["dataset"],
                f"{stored.items:,}",
                f"{stored.with_image:,}",
                f"{stored.records:,}",
                f"{image.DIM:,}",
                str(stored.folder),
            ),
        ]
    )
