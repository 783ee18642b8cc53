"""The command line: `python -m dataset_tools COMMAND --key=value ...`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from dataset_tools.text import POOLINGS, TEXT_FIELDS, encode_dataset
from recbole_cdr_mm.errors import EXIT_CODE, ConfigError, UserError, did_you_mean

TEXT_HELP = """\
Encode the item texts of a domain, or of both domains of a pair, and store them beside the domain.

example:
  python -m dataset_tools text --data_path=dataset --dataset=movie_cd --encoder=minilm
"""


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
    """A parser whose complaints are `ConfigError`s."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # the defaults are those of the functions
            **options,
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See `{self.prog} --help`.")


def _parse(argv: list[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = _Parser(prog="python -m dataset_tools", description=__doc__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    options = {
        name: _add_command(commands, name, *command) for name, command in COMMANDS.items()
    }
    if argv and argv[0] in options:  # before argparse, which would name a missing option first
        for argument in argv[1:]:
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in options[argv[0]]:
                raise ConfigError(
                    f"unknown option `{option}`.{did_you_mean(option, options[argv[0]])}"
                    f" See `{parser.prog} {argv[0]} --help`."
                )
    return parser.parse_args(argv)


def _add_command(
    commands: Any, name: str, text: str, add: Callable[..., None], run: Callable[..., None]
) -> list[str]:
    """Add a command to the parser and return the names of its options."""
    parser = commands.add_parser(name, help=text.partition(".")[0], description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--data_path", type=Path, required=True, help="the folder of the domains")
    add(parser)
    return list(parser._option_string_actions)


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="a domain or a pair")
    parser.add_argument(
        "--encoder",
        required=True,
        help="name or folder that transformers knows; minilm (packaged, offline); lsa (no torch)",
    )
    parser.add_argument("--feature_path", type=Path, help="write to FEATURE_PATH/<domain>/ instead")
    parser.add_argument(
        "--pooling",
        help=f"{', '.join(POOLINGS)}: how tokens become one row; default: sum, over the text's own",
    )
    parser.add_argument(
        "--fields",
        type=lambda value: value.split(","),
        help=f"columns of the .item file; default: {','.join(TEXT_FIELDS)}",
    )
    parser.add_argument("--batch_size", type=int, help="texts a step; default: 32")
    parser.add_argument(
        "--max_length", type=int, help="tokens read of a text; default: the encoder's own limit"
    )
    parser.add_argument("--dtype", help="float16 or float32 (default) in the store")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is one"
    )


def _run_text(**options: Any) -> None:
    started = time.perf_counter()
    summaries = encode_dataset(**options)
    rows = [("domain", "items", "with text", "truncated", "size", "written to")]
    rows += [
        (s.name, f"{s.items:,}", f"{s.with_text:,}", f"{s.truncated:,}", str(s.dim), str(s.folder))
        for s in summaries
    ]
    _print_table(rows)
    print(f"{time.perf_counter() - started:.1f} s")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of them a header: first and last column left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *middle, last in rows:
        cells = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells, last]))


COMMANDS = {
    "text": (TEXT_HELP, _add_text, _run_text),
}
