"""The command `text`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools.commands import add_data_path, name_list, plain_name, print_table
from dataset_tools.encode import text
from dataset_tools.encode.text_encoders import POOLINGS
from dataset_tools.feature_store import DTYPES

HELP = """\
Encode the item texts of a domain, or of both domains of a pair, and store them beside the domain.
A command that was killed goes on where it stopped when it is given again.

example:
  python -m dataset_tools text --dataset=demo --data_path=dataset --encoder=minilm
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--dataset", type=plain_name, required=True, help="a domain or a pair")
    parser.add_argument(
        "--encoder",
        help="name or folder that transformers knows; minilm (packaged, offline); lsa (no torch); "
        f"default: {text.DEFAULT_ENCODER}",
    )
    parser.add_argument("--feature_path", type=Path, help="write to FEATURE_PATH/<domain>/ instead")
    parser.add_argument(
        "--pooling",
        help=f"{', '.join(POOLINGS)} of the states of a text's tokens; default: sum",
    )
    parser.add_argument(
        "--fields",
        type=name_list,
        help=f"columns of the .item files; default: {','.join(text.TEXT_FIELDS)}",
    )
    parser.add_argument("--batch_size", type=int, help="texts a step; default: 32")
    parser.add_argument(
        "--max_length", type=int, help="tokens read of a text; default: the encoder's own limit"
    )
    parser.add_argument("--dtype", help=f"{' or '.join(DTYPES)} in the store; default: float32")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one")


def run(**options: Any) -> None:
    """Run the command."""
    rows: list[tuple[str, ...]] = [
        ("domain", "items", "with text", "truncated", "size", "written to")
    ]
    for domain in text.encode_dataset(**options):
        counts = (domain.items, domain.with_text, domain.truncated, domain.dim)
        rows.append((domain.name, *(f"{count:,}" for count in counts), str(domain.folder)))
    print_table(rows)
