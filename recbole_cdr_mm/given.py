"""What the user gives: keys and values of config files, of a dict and of the command line."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.schema import Key, PropertyLoader

_WORDS = {"true": True, "false": False, "null": None, "~": None}  # as YAML has them


@dataclass(frozen=True)
class Given:
    """A value that the user gave: its text where it came from the command line, and its origin."""

    value: Any
    origin: str
    text: str | None = None


def read_config_file(path: Path, option: str = "--config_files") -> dict[str, Given]:
    """Read a YAML file of keys and values, with the line of each.

    Args:
        path: The file.
        option: What it was given with, for messages.

    Raises:
        ConfigError: If it cannot be read, is no YAML, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=PropertyLoader)
        values = yaml.load(text, Loader=PropertyLoader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Check {option}.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or no such day
        raise ConfigError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    if node is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines.")
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in lines:
            raise ConfigError(
                f"{path.name}, line {line}: `{key.value}` stands in line {lines[key.value]}"
                " already. Keep one of them."
            )
        lines[key.value] = line
    return {
        str(key): Given(value, f"{path.name}, line {lines.get(str(key), 1)}")
        for key, value in values.items()
    }


def parse_command_line(arguments: Iterable[str]) -> dict[str, Given]:
    """Parse `--key=value` arguments.

    Raises:
        ConfigError: For an argument of another form, or a key given twice with two values.

    >>> parse_command_line(["--topk=[5, 10]"])["topk"].value
    [5, 10]
    """
    given: dict[str, Given] = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals:
            raise ConfigError(f"command line: `{argument}` is not of the form --key=value.")
        if name in given and given[name].text != text:
            raise ConfigError(f"command line: `--{name}` is given twice with different values.")
        given[name] = Given(parse_literal(text), "command line", text)
    return given


def model_name_of(
    model: str | type | None,
    config_file_list: Sequence[str | Path] | None,
    config_dict: Mapping[str, Any] | None,
    command_line: Sequence[str],
) -> str | None:
    """The model that RecBole's Config would take: the argument, else the highest in precedence."""
    if model is not None:
        return model if isinstance(model, str) else model.__name__
    named = [a.removeprefix("--model=") for a in command_line if a.startswith("--model=")]
    named += [config_dict["model"]] if config_dict and "model" in config_dict else []
    for file in reversed(config_file_list or ()):
        given = read_config_file(Path(file))
        named += [given["model"].value] if "model" in given else []
    return named[0] if named else None


def parse_literal(value: Any) -> Any:
    """Give a string the type that it is written in; RecBole would evaluate it as code.

    >>> [parse_literal(s) for s in ("1e-3", "true", "[1, 2]", "None", "null", "movie_cd", "")]
    [0.001, True, [1, 2], None, None, 'movie_cd', '']
    """
    if not isinstance(value, str):
        return value
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def fit(key: Key, given: Given) -> Any:
    """The given value, checked; where a string is wanted, the text as it was written."""
    problem = key.problem_with(given.value)
    if problem is None:
        return given.value
    text = given.text if given.text is not None else given.value
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = str(text)
    if key.problem_with(text) is None:
        return text
    raise ConfigError(
        f"{given.origin}: `{key.name}: {text}` {problem}: {key.meaning or 'see its property file'}"
    )
