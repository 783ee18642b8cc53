"""The errors that a user can cause. Each message says what is wrong, where, and what to do.

The command lines print the message alone and exit with `EXIT_CODE`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_CODE = 2


class UserError(Exception):
    """Base of all errors that the user can put right."""


class ConfigError(UserError):
    """A configuration key or value, a command-line argument, or a checkpoint that does not fit."""


class DataFormatError(UserError):
    """A data set, an atomic file or a feature store that is missing, malformed or does not fit."""


class StageError(UserError):
    """A stage or a prediction that needs another stage to be trained first."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word.

    Args:
        word: What the user wrote.
        known: What would have been right.

    Returns:
        A sentence with a leading blank, or an empty string where nothing is near.

    >>> did_you_mean("lerning_rate", ["learning_rate", "epochs"])
    ' Did you mean `learning_rate`?'
    >>> did_you_mean("zzz", ["learning_rate"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""
