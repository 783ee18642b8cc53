"""The errors that a user can cause. Each message says what is wrong, where, and what to do.

The command lines print the message alone and exit with `EXIT_CODE`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

EXIT_CODE = 2
INTERRUPTED = 130  # as shells have it


class UserError(Exception):
    """Base of all errors that the user can put right."""


class ConfigError(UserError):
    """A configuration key or value, a command-line argument, or a checkpoint that does not fit."""


class DataFormatError(UserError):
    """A data set, an atomic file or a feature store that is missing, malformed or does not fit."""


class StageError(UserError):
    """A stage or a prediction that needs another stage to be trained first."""


class ProcessError(UserError):
    """A process of a run of several that has ended before its time."""


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


def exit_code_of(command: Callable[[], int | None], interrupted: str = "Interrupted.") -> int:
    """Run a command; a mistake of the user ends with its message alone.

    Args:
        command: Gives an exit code; None is 0.
        interrupted: What is said where the user interrupts it.

    Returns:
        Its exit code; 2 after a mistake of the user, 130 when interrupted.
    """
    try:
        return command() or 0
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
