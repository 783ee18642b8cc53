"""Make the data that recbole-cdr-mm runs on: `python -m dataset_tools COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from recbole_cdr_mm import __version__
from recbole_cdr_mm.errors import ConfigError, did_you_mean, exit_code_of

PROGRAM = "python -m dataset_tools"

COMMANDS = {  # each is a module of `dataset_tools.commands`
    "download": "Amazon's raw files from their servers",
    "amazon": "Amazon's files of 2014, 2018 or 2023 to a domain",
    "amazon-tasks": "the domains of the paper's three tasks, checked against its Table 1",
    "csv": "any other file of ratings, delimited or parquet, to a domain",
    "synthetic": "a made-up pair of domains",
    "text": "item texts to text features",
    "image": "image files, or Amazon's image features of 2014, to those of a domain",
    "pair": "two domains to a pair",
    "sample": "a large pair to a smaller one like it",
    "check": "everything that is wrong with a domain, a pair or their features",
    "stats": "what a domain or a pair holds, and whether the pair is worth it",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; a mistake of the user ends with its message and exit code 2.

    Args:
        argv: Arguments; by default those of the process.
    """

    def run() -> None:
        arguments = vars(_parse(sys.argv[1:] if argv is None else list(argv)))
        arguments.pop("run")(**arguments)

    code = exit_code_of(run)
    if code:
        sys.exit(code)


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


def _parse(argv: list[str]) -> argparse.Namespace:
    """Read the arguments; only the module of the command that is run is imported."""
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"{name:{width}}{summary}" for name, summary in COMMANDS.items())
    parser = _Parser(
        prog=PROGRAM,
        description="Make the data that recbole-cdr-mm runs on. Give options as --key=value; "
        f"COMMAND --help explains them.\n\n{lines}",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    if not argv:
        raise ConfigError(f"give a command: {', '.join(COMMANDS)}. See `{PROGRAM} --help`.")
    if argv and argv[0] in COMMANDS:
        command = _module(argv[0])
        options = commands.add_parser(argv[0], description=command.HELP)
        command.add_options(options)
        options.set_defaults(run=command.run)
        _check_options(argv[1:], options)
    elif argv and not argv[0].startswith("-"):
        raise ConfigError(
            f"unknown command `{argv[0]}`; there are {', '.join(COMMANDS)}."
            f"{did_you_mean(argv[0], COMMANDS)}"
        )
    return parser.parse_args(argv)


def _module(name: str) -> ModuleType:
    """The module of a command."""
    return import_module(f"dataset_tools.commands.{name.replace('-', '_')}")


def _check_options(arguments: list[str], parser: argparse.ArgumentParser) -> None:
    """Refuse a misspelt option; argparse would name the one that is missing instead."""
    known = sorted(option for action in parser._actions for option in action.option_strings)
    for option in (argument.partition("=")[0] for argument in arguments):
        if option.startswith("-") and option not in known:
            raise ConfigError(
                f"unknown option `{option}`.{did_you_mean(option, known)} "
                f"See `{parser.prog} --help`."
            )
