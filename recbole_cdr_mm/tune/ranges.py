"""Range files, as RecBole's `hyper_test` has them: which keys are tuned, and within what.

A line is a key, the kind of its range, and the range:

    item_features choice ['text', 'both']
    reg_weight uniform 0,0.1
    epochs quniform 5,40,5          # multiples of 5
    learning_rate loguniform -7,-3  # bounds are exponents of e: 0.0009 to 0.05

Kinds and bounds mean what hyperopt makes of them. What follows a `#` is a comment.
"""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from recbole_cdr_mm.errors import ConfigError, did_you_mean
from recbole_cdr_mm.given import Given, fit, parse_literal
from recbole_cdr_mm.schema import Key

# What decides which rows are measured, or how: trials that differ in it cannot be compared.
_MEASURE = frozenset(
    "model dataset source_dataset target_dataset user_link data_path feature_path rating_range"
    " eval_task metrics topk valid_metric metric_decimal_place positive_threshold"
    " test_user_ratio valid_user_ratio split_seed seed few_shot few_shot_pool".split()
)


@dataclass(frozen=True)
class Range(ABC):
    """What a key may be set to.

    Attributes:
        key: The key.
        text: Kind and range, as they were written.
        origin: File and line, for messages.
    """

    key: str
    text: str
    origin: str

    @property
    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""

    @property
    @abstractmethod
    def ends(self) -> list[Any]:
        """The values that must be allowed if all are to be: both ends, or every choice."""

    @abstractmethod
    def value(self, parameter: Any) -> Any:
        """What a run gets for a parameter of Optuna's."""

    @abstractmethod
    def parameter(self, value: Any) -> Any:
        """Optuna's parameter for a value; None where it lies outside of the range."""


@dataclass(frozen=True)
class Choice(Range):
    """One of several values, of any type.

    Attributes:
        values: Each by how Python writes it, since Optuna stores no lists.
    """

    values: Mapping[str, Any]

    @property
    def distribution(self) -> CategoricalDistribution:
        """The values as texts."""
        return CategoricalDistribution(list(self.values))

    @property
    def ends(self) -> list[Any]:
        """All of them."""
        return list(self.values.values())

    def value(self, parameter: str) -> Any:
        """The value that a text stands for."""
        return self.values[parameter]

    def parameter(self, value: Any) -> str | None:
        """The text of a value; 1 and 1.0 are the same, 1 and True are not."""
        for text, choice in self.values.items():
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return text
        return None


@dataclass(frozen=True)
class Numbers(Range):
    """All numbers from a lowest to a highest, or those of a grid."""

    numbers: FloatDistribution | IntDistribution

    @property
    def distribution(self) -> FloatDistribution | IntDistribution:
        """The numbers."""
        return self.numbers

    @property
    def ends(self) -> list[Any]:
        """Lowest and highest."""
        return [self.numbers.low, self.numbers.high]

    def value(self, parameter: float) -> float:
        """The number itself."""
        return parameter

    def parameter(self, value: Any) -> float | None:
        """The number itself, where it is among them."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low, high, step = self.numbers.low, self.numbers.high, self.numbers.step
        steps = (value - low) / step if step else 0.0
        if not low <= value <= high or not math.isclose(steps, round(steps), abs_tol=1e-9):
            return None
        return int(value) if isinstance(self.numbers, IntDistribution) else float(value)


# Reading


def read_ranges(path: Path) -> dict[str, Range]:
    """Read a range file.

    Args:
        path: The file.

    Returns:
        A range for each key, in the order of the file.

    Raises:
        ConfigError: If it cannot be read, holds nothing, or a line is malformed.

    Deviations from RecBole: nothing is evaluated; a malformed line is an error and not skipped;
    `quniform` gives multiples of q that lie within the bounds, and whole numbers where q is one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise ConfigError(
            f"{path}: {reason}. Name a file with lines like `item_shrinkage uniform 0,10`."
        ) from error
    ranges: dict[str, Range] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split(maxsplit=2)
        if not words:
            continue
        found = _parse(words, f"{path.name}, line {number}")
        if found.key in ranges:
            raise ConfigError(f"{found.origin}: `{found.key}` has a range already. Remove one.")
        ranges[found.key] = found
    if not ranges:
        raise ConfigError(f"{path}: holds no range, so that there is nothing to tune.")
    return ranges


def _parse(words: list[str], origin: str) -> Range:
    if len(words) < 3:
        raise ConfigError(
            f"{origin}: `{' '.join(words)}` is not of the form `key kind range`, such as"
            " `item_shrinkage uniform 0,10`."
        )
    key, kind, text = words
    if kind not in _KINDS:
        raise ConfigError(
            f"{origin}: there is no kind of range `{kind}`.{did_you_mean(kind, _KINDS)}"
            f" Take one of {', '.join(_KINDS)}."
        )
    return _KINDS[kind](key, text.strip(), origin)


def _choice(key: str, text: str, origin: str) -> Choice:
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = None
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(
            f"{origin}: `choice {text}` must name the values as a list, such as"
            " `choice [16, 32]` or `choice ['text', 'both']`."
        )
    # RecBole's files have lists as strings: '[64, 32]'.
    by_text = {repr(value): parse_literal(value) for value in values}
    if len(by_text) < len(values):
        raise ConfigError(f"{origin}: `choice {text}` names a value twice. Remove one.")
    return Choice(key, f"choice {text}", origin, by_text)


def _uniform(key: str, text: str, origin: str) -> Numbers:
    low, high = _bounds("uniform", "low,high", text, origin)
    numbers = FloatDistribution(float(low), float(high))
    return Numbers(key, f"uniform {text}", origin, numbers)


def _log_uniform(key: str, text: str, origin: str) -> Numbers:
    low, high = _bounds("loguniform", "low,high", text, origin)
    try:
        numbers = FloatDistribution(math.exp(low), math.exp(high), log=True)
    except (OverflowError, ValueError) as error:  # e to that power is no float, or is 0
        raise ConfigError(
            f"{origin}: the bounds of `loguniform {text}` are exponents of e, and these are out of"
            " reach. For 0.001 to 0.1 write `loguniform -6.9,-2.3`."
        ) from error
    return Numbers(key, f"loguniform {text}", origin, numbers)


def _grid(key: str, text: str, origin: str) -> Numbers:
    low, high, q = _bounds("quniform", "low,high,q", text, origin)
    if q <= 0:
        raise ConfigError(f"{origin}: `quniform {text}`: q, the last number, must be above 0.")
    first = q * (low / q).to_integral_value(ROUND_CEILING)
    last = q * (high / q).to_integral_value(ROUND_FLOOR)
    if first > last:
        raise ConfigError(f"{origin}: `quniform {text}`: no multiple of {q} lies between them.")
    numbers: IntDistribution | FloatDistribution
    if q == q.to_integral_value():
        numbers = IntDistribution(int(first), int(last), step=int(q))
    else:
        numbers = FloatDistribution(float(first), float(last), step=float(q))
    return Numbers(key, f"quniform {text}", origin, numbers)


def _bounds(kind: str, form: str, text: str, origin: str) -> list[Decimal]:
    """Take `low,high` or `low,high,q` apart."""
    parts = text.split(",")
    try:
        numbers = [Decimal(str(float(part))) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != len(form.split(",")) or not all(n.is_finite() for n in numbers):
        raise ConfigError(f"{origin}: `{kind} {text}` is not of the form `{kind} {form}`.")
    if not numbers[0] < numbers[1]:
        raise ConfigError(f"{origin}: `{kind} {text}`: the first bound must be below the second.")
    return numbers


_KINDS: dict[str, Callable[[str, str, str], Range]] = {
    "choice": _choice,
    "uniform": _uniform,
    "quniform": _grid,
    "loguniform": _log_uniform,
}


# Checking


def check_ranges(
    model: str, ranges: Iterable[Range], keys: Mapping[str, Key], fixed: Iterable[str]
) -> None:
    """Refuse ranges that a model cannot be run with.

    Args:
        model: Its name, for messages.
        ranges: What shall be tuned.
        keys: The keys that it has, with types and bounds.
        fixed: Keys that the command line sets.

    Raises:
        ConfigError: If a key is unknown, set already, or no matter of tuning, or if a value at the
            ends of its range is not allowed.
    """
    fixed = set(fixed)
    for found in ranges:
        key = found.key
        if key in _MEASURE:
            raise ConfigError(
                f"{found.origin}: `{key}` decides what is measured, so that trials could not be"
                " compared. Leave it out."
            )
        if key not in keys:
            hint = did_you_mean(key, keys) or " Leave it out."
            raise ConfigError(f"{found.origin}: {model} has no key `{key}`.{hint}")
        if key in fixed:
            raise ConfigError(
                f"{found.origin}: `{key}` is tuned, and --{key} sets it. Leave one of them out."
            )
        for value in found.ends:
            _check_value(found, keys[key], value)


def _check_value(found: Range, key: Key, value: Any) -> None:
    try:
        fit(key, Given(value, found.origin))
    except ConfigError as error:
        whole = isinstance(value, float) and not key.problem_with(max(round(value), 1))
        hint = " For whole numbers write `quniform low,high,1`." if whole else ""
        raise ConfigError(f"{error}{hint}") from error
