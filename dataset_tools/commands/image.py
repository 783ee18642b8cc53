"""The command `image`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataset_tools.commands import add_data_path, plain_name, print_table
from dataset_tools.convert.problems import ON_ERROR
from dataset_tools.encode import image, image_files
from dataset_tools.encode.image_encoder import POOLINGS
from dataset_tools.feature_store import DTYPES
from recbole_cdr_mm.errors import ConfigError

HELP = """\
Store the image features of a domain's items beside the domain. They come from one of two:

--images=DIR, a folder of files <item>.jpg (or .jpeg, .png, .webp, .gif, .bmp), which an encoder
turns into features. A command that was killed goes on where it stopped when it is given again.

--features=FILE, Amazon's features of the 2014 release: image_features_X.b, packed by gzip or not,
one file for each category and so for each domain. The store takes 16 KB an item, 8 KB with
--dtype=float16, and twice that while it is made.

example:
  python -m dataset_tools image --images=covers --dataset=amazon-cd --data_path=dataset
"""

OF_IMAGES = ("encoder", "pooling", "batch_size", "device", "on_error")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command can be told."""
    add_data_path(parser)
    parser.add_argument("--images", type=Path, help="the folder of the image files")
    parser.add_argument("--features", type=Path, help="the file of Amazon's features")
    parser.add_argument("--dataset", type=plain_name, required=True, help="a domain")
    parser.add_argument("--feature_path", type=Path, help="write to FEATURE_PATH/<domain>/ instead")
    parser.add_argument("--dtype", help=f"{' or '.join(DTYPES)} in the store; default: float32")
    of_images = parser.add_argument_group("options of --images")
    of_images.add_argument(
        "--encoder",
        help="name or folder of a vision encoder that transformers knows; "
        f"default: {image_files.DEFAULT_ENCODER}",
    )
    of_images.add_argument(
        "--pooling",
        help=f"{', '.join(POOLINGS)}: class token, mean of all states, pooler; default: cls",
    )
    of_images.add_argument("--batch_size", type=int, help="images a step; default: 32")
    of_images.add_argument("--device", help="cpu or cuda; default: cuda where there is one")
    of_images.add_argument(
        "--on_error",
        help=f"{' or '.join(ON_ERROR)}: what to do at a broken image; default: stop",
    )


def run(**options: Any) -> None:
    """Run the command."""
    if ("images" in options) == ("features" in options):
        raise ConfigError(
            "image: give one of --images=DIR, a folder of image files, and --features=FILE, "
            "Amazon's image_features_X.b."
        )
    if "images" in options:
        _run_on_files(options)
    else:
        _run_on_features(options)


def _run_on_files(options: dict[str, Any]) -> None:
    stored = image_files.encode_images(**options)
    counts = (stored.items, stored.with_image, len(stored.broken), stored.dim)
    print_table(
        [
            ("domain", "items", "with image", "broken", "size", "written to"),
            (options["dataset"], *(f"{count:,}" for count in counts), str(stored.folder)),
        ]
    )
    if stored.broken:
        print(f"left out {len(stored.broken):,} broken images; the first: {stored.broken[0]}")


def _run_on_features(options: dict[str, Any]) -> None:
    for option in OF_IMAGES:
        if option in options:
            raise ConfigError(f"--{option} goes with --images, not with --features. Leave it out.")
    stored = image.store_images(**options)
    counts = (stored.items, stored.with_image, stored.records, image.DIM)
    print_table(
        [
            ("domain", "items", "with image", "records read", "size", "written to"),
            (options["dataset"], *(f"{count:,}" for count in counts), str(stored.folder)),
        ]
    )
