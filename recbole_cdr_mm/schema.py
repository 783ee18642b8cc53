"""The property files are the schema: a key's type and bounds stand in the comment behind it.

RecBole's own property files are written the same way, so its keys are checked too. The grammar:
`# (TYPE) meaning`, where TYPE is one of

    int | float | bool | str | list | dict | list of TYPE     a type
    int > 0,  0 < float < 1                                   with bounds
    default | paper                                           choices
    TYPE or TYPE,  TYPE or null                               alternatives

A comment of another form explains a key without restricting it.
"""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

_LINE = re.compile(r"^(?P<key>\w+):[^#]*#\s*\((?P<type>[^()]*)\)\s*(?P<meaning>.*)$")
_BOUNDED = re.compile(
    r"^(?:(?P<low>-?[\d.]+)\s*(?P<low_op><=?)\s*)?(?P<type>int|float)"
    r"(?:\s*(?P<op>[<>]=?)\s*(?P<bound>-?[\d.]+))?$"
)
_NULLS = {"null", "none", "None", "optional"}


class PropertyLoader(yaml.SafeLoader):
    """YAML as RecBole reads it (`1e-3` is a float), but safe."""


PropertyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+"
        r"|\.[\d_]+(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Key:
    """One key of a property file: its name, the text of its type, its meaning and its default."""

    name: str
    type_text: str
    meaning: str
    default: object

    def problem_with(self, value: object) -> str | None:
        """Say what is wrong with a value, or None where nothing is."""
        if value is None and self.default is None:
            return None
        if _accepts(self.type_text, value):
            return None
        return f"must be ({self.type_text})"


def read_properties(path: Path) -> tuple[dict[str, object], dict[str, Key]]:
    """Read a property file.

    Args:
        path: A YAML file of this package or of RecBole.

    Returns:
        Its values, and the schema of its keys. A key without a readable comment accepts anything.
    """
    values, keys = _parsed(path.read_text(encoding="utf-8"))
    return copy.deepcopy(values), dict(keys)


@functools.cache
def _parsed(text: str) -> tuple[dict[str, object], dict[str, Key]]:
    """The same of a file's text; a process that begins many runs reads the same ones again."""
    values: Mapping[str, object] = yaml.load(text, Loader=PropertyLoader) or {}
    comments = {m["key"]: m for m in map(_LINE.match, text.splitlines()) if m}
    keys = {}
    for name, default in values.items():
        comment = comments.get(name)
        type_text, meaning = (comment["type"], comment["meaning"]) if comment else ("", "")
        key = Key(name, type_text, meaning, default)
        if key.problem_with(default):  # a slip in RecBole's comment: the default itself is right
            key = Key(name, "", meaning, default)
        keys[name] = key
    return dict(values), keys


def _accepts(type_text: str, value: object) -> bool:
    """Whether a value is of a type; a text that is no type of the grammar accepts anything.

    >>> _accepts("int > 0", 3), _accepts("int > 0", 0), _accepts("0 <= float < 1", 0.5)
    (True, False, True)
    >>> _accepts("default | paper", "papr"), _accepts("list of int", [1, "2"])
    (False, False)
    >>> _accepts("int or null", None), _accepts("bool", 1), _accepts("whatever this is", 1)
    (True, False, True)
    """
    alternatives = re.split(r"\s+or\s+|,\s+|\s+\|\s+", type_text.strip())
    if len(alternatives) > 1:
        return any(_accepts_one(a, value, is_choice=True) for a in alternatives)
    return _accepts_one(type_text.strip(), value, is_choice=False)


def _accepts_one(type_text: str, value: object, *, is_choice: bool) -> bool:
    if type_text in _NULLS:
        return value is None
    if type_text.startswith("list of "):
        return isinstance(value, list | tuple) and all(
            _accepts_one(type_text.removeprefix("list of "), v, is_choice=is_choice) for v in value
        )
    if type_text in _TYPES:
        return _TYPES[type_text](value)
    bounded = _BOUNDED.match(type_text)
    if bounded:
        return _TYPES[bounded["type"]](value) and _within(bounded, value)
    return value == type_text if is_choice else True


def _within(bounded: re.Match[str], value: object) -> bool:
    compare: dict[str, Callable[[float, float], bool]] = {
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
    }
    assert isinstance(value, int | float)
    if bounded["low"] and not compare[bounded["low_op"]](float(bounded["low"]), value):
        return False
    return not bounded["op"] or compare[bounded["op"]](value, float(bounded["bound"]))


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value)


_TYPES: dict[str, Callable[[object], bool]] = {
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "float": _is_number,
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "string": lambda v: isinstance(v, str),
    "list": lambda v: isinstance(v, list | tuple),
    "dict": lambda v: isinstance(v, dict),
}
