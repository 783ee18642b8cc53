"""Make the data that recbole-cdr-mm runs on. Give options as --key=value.

amazon     raw files of Amazon's 2014 release to a domain
synthetic  a made-up pair of domains
text       item texts to text features
image      Amazon's image features of the 2014 release to those of a domain
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dataset_tools import amazon, image, synthetic, text
from dataset_tools.feature_store import DTYPES
from recbole_cdr_mm.errors import EXIT_CODE, ConfigError, UserError, did_you_mean

PROGRAM = "python -m dataset_tools"


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user ends with its message and exit code 2.

    Args:
        argv: Arguments; by default those of the process.
    """
    try:
        arguments = vars(_parse(sys.argv[1:] if argv is None else list(argv)))
        arguments.pop("run")(**arguments)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are `ConfigError`s, and whose defaults are those of functions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See `{self.prog} --help`.")


@dataclass(frozen=True)
class _Command:
    """A command: what it says of itself, its options and what it does with them."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., None]


def _parse(argv: list[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = _Parser(prog=PROGRAM, description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        options = commands.add_parser(name, description=command.help)
        options.add_argument("--data_path", type=Path, required=True, help="folder of the domains")
        command.add_options(options)
        options.set_defaults(run=command.run)
        if argv[:1] == [name]:
            _check_options(argv[1:], options)
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise ConfigError(
            f"unknown command `{argv[0]}`; there are {', '.join(COMMANDS)}."
            f"{did_you_mean(argv[0], COMMANDS)}"
        )
    return parser.parse_args(argv)


def _check_options(arguments: list[str], parser: argparse.ArgumentParser) -> None:
    """Refuse a misspelt option; argparse would name the one that is missing instead."""
    known = sorted(option for action in parser._actions for option in action.option_strings)
    for option in (argument.partition("=")[0] for argument in arguments):
        if option.startswith("-") and option not in known:
            raise ConfigError(
                f"unknown option `{option}`.{did_you_mean(option, known)} "
                f"See `{parser.prog} --help`."
            )


def _name(value: str) -> str:
    """Refuse a name that is more than the name of a folder."""
    if value in ("", ".", "..") or Path(value).name != value:
        raise ConfigError(
            f"dataset `{value}` must be a plain name; give its folder as --data_path."
        )
    return value


def _add_amazon(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reviews", type=Path, required=True, help="the file of the ratings")
    parser.add_argument("--meta", type=Path, help="the file of the products; none: no item texts")
    parser.add_argument("--dataset", type=_name, required=True, help="the domain to be")


def _run_amazon(**options: Any) -> None:
    converted = amazon.convert(**options)
    _print_table(
        [
            ("domain", "users", "items", "ratings", "repeated", "with text", "written to"),
            (
                options["dataset"],
                f"{converted.users:,}",
                f"{converted.items:,}",
                f"{converted.ratings:,}",
                f"{converted.repeated:,}",
                f"{converted.with_text:,}",
                str(options["data_path"] / options["dataset"]),
            ),
        ]
    )


def _add_synthetic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset", type=_name, required=True, help="the pair; domains get _movie and _cd added"
    )
    parser.add_argument("--users", type=int, help="users in all; default: 2400")
    parser.add_argument("--items", type=int, help="items of each domain; default: 800")
    parser.add_argument("--overlap", type=float, help="share of users in both; default: 0.625")
    parser.add_argument("--ratings_per_user", type=int, help="in each domain; default: 14")
    parser.add_argument(
        "--structure", help=f"what is planted: {', '.join(synthetic.WORLDS)}; default: demo"
    )
    parser.add_argument("--seed", type=int, help="default: 0")


def _run_synthetic(**options: Any) -> None:
    pair = synthetic.make_dataset(**options)
    rows = [("domain", "users", "items", "ratings", "written to")]
    for name, inter, items in zip(
        synthetic.domain_names(options["dataset"]),
        (pair.source_inter, pair.target_inter),
        (pair.source_items, pair.target_items),
        strict=True,
    ):
        users = inter["user_id"].nunique()
        folder = options["data_path"] / name
        rows.append((name, f"{users:,}", f"{len(items):,}", f"{len(inter):,}", str(folder)))
    _print_table(rows)
    print(
        f"{pair.n_overlapped:,} overlapped users; noise alone gives a target RMSE of "
        f"{pair.noise_floor:.4f}"
    )


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=_name, required=True, help="a domain or a pair")
    parser.add_argument(
        "--encoder",
        required=True,
        help="name or folder that transformers knows; minilm (packaged, offline); lsa (no torch)",
    )
    parser.add_argument("--feature_path", type=Path, help="write to FEATURE_PATH/<domain>/ instead")
    parser.add_argument(
        "--pooling",
        help=f"{', '.join(text.POOLINGS)} of the states of a text's tokens; default: sum",
    )
    parser.add_argument(
        "--fields",
        type=lambda value: value.split(","),
        help=f"columns of the .item files; default: {','.join(text.TEXT_FIELDS)}",
    )
    parser.add_argument("--batch_size", type=int, help="texts a step; default: 32")
    parser.add_argument(
        "--max_length", type=int, help="tokens read of a text; default: the encoder's own limit"
    )
    parser.add_argument("--dtype", help=f"{' or '.join(DTYPES)} in the store; default: float32")
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one")


def _run_text(**options: Any) -> None:
    rows: list[tuple[str, ...]] = [
        ("domain", "items", "with text", "truncated", "size", "written to")
    ]
    for domain in text.encode_dataset(**options):
        counts = (domain.items, domain.with_text, domain.truncated, domain.dim)
        rows.append((domain.name, *(f"{count:,}" for count in counts), str(domain.folder)))
    _print_table(rows)


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", type=Path, required=True, help="the file of the features")
    parser.add_argument("--dataset", type=_name, required=True, help="a domain")
    parser.add_argument("--feature_path", type=Path, help="write to FEATURE_PATH/<domain>/ instead")
    parser.add_argument("--dtype", help=f"{' or '.join(DTYPES)} in the store; default: float32")


def _run_image(**options: Any) -> None:
    stored = image.store_images(**options)
    _print_table(
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


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of them a header: first and last column left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers, last in rows:
        cells = (cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
        print("  ".join([first.ljust(widths[0]), *cells, last]))


COMMANDS = {
    "amazon": _Command(
        """\
Convert raw files of Amazon's 2014 release to a domain: reviews_X_5.json.gz or ratings_X.csv, and
meta_X.json.gz for titles and texts. Other releases are not converted yet.

example:
  python -m dataset_tools amazon --reviews=reviews_CDs_and_Vinyl_5.json.gz \\
      --meta=meta_CDs_and_Vinyl.json.gz --dataset=amazon-cd --data_path=dataset
""",
        _add_amazon,
        _run_amazon,
    ),
    "synthetic": _Command(
        """\
Make up a pair of domains in which it is known what one says about the other.

example:
  python -m dataset_tools synthetic --dataset=demo --data_path=dataset
""",
        _add_synthetic,
        _run_synthetic,
    ),
    "text": _Command(
        """\
Encode the item texts of a domain, or of both domains of a pair, and store them beside the domain.

example:
  python -m dataset_tools text --dataset=demo --data_path=dataset --encoder=minilm
""",
        _add_text,
        _run_text,
    ),
    "image": _Command(
        """\
Store the image features of a domain's items beside the domain. They come from Amazon's 2014
release: image_features_X.b, packed by gzip or not, one file for each category and so for each
domain. The store takes 16 KB an item, 8 KB with --dtype=float16, and twice that while it is made.

example:
  python -m dataset_tools image --features=image_features_CDs_and_Vinyl.b --dataset=amazon-cd \\
      --data_path=dataset --dtype=float16
""",
        _add_image,
        _run_image,
    ),
}
