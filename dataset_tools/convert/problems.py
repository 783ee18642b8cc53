"""What is wrong with raw data: the first fault ends the command, or is counted and passed over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import ConfigError, DataFormatError

ON_ERROR = ("stop", "skip")
MAX_ERRORS = 1000
LONGEST = 400  # characters of what is said of a fault


def printable(text: str) -> str:
    r"""The beginning of a text, fit for a message of one line.

    >>> printable("a\tb")
    'a?b'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST])


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line.

    Attributes:
        kind: What sort of fault it is, in words that are the same for all of this sort.
        what: What is wrong, without a full stop.
        advice: What to do, likewise.
    """

    kind: str
    what: str
    advice: str = "Correct the file or get it again"


class Problems:
    """The faults of a command's inputs.

    Args:
        on_error: `stop` raises at the first fault; `skip` leaves the line out and goes on.
        max_errors: With `skip`, how many faults are passed over before the command ends anyway;
            by default `MAX_ERRORS`.

    Attributes:
        counts: How often each kind of fault was passed over.
        first: Where each kind was met first, and what it was.

    Raises:
        ConfigError: If an argument cannot be.
    """

    def __init__(self, on_error: str = "stop", max_errors: int | None = None) -> None:
        check_choice("on_error", on_error, ON_ERROR)
        if on_error == "stop" and max_errors is not None:
            raise ConfigError("max_errors counts with --on_error=skip alone. Add that.")
        max_errors = MAX_ERRORS if max_errors is None else max_errors
        if max_errors < 0:
            raise ConfigError(f"max_errors must be 0 or more, not {max_errors}.")
        self.skip = on_error == "skip"
        self.max_errors = max_errors
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def report(self, where: str, fault: Fault) -> None:
        """Take note of a fault.

        Args:
            where: File, line and byte.
            fault: What is wrong there.

        Raises:
            DataFormatError: With `stop`, and with `skip` once there are more than `max_errors`.
        """
        what = fault.what
        short = what if len(what) <= LONGEST else f"{what[:LONGEST]}..."
        message = f"{where}: {short}."
        if not self.skip:
            raise DataFormatError(
                f"{message} {fault.advice}. With --on_error=skip such lines are left out."
            )
        self.counts[fault.kind] += 1
        self.first.setdefault(fault.kind, message)
        if self.counts.total() > self.max_errors:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in self.counts.most_common())
            raise DataFormatError(
                f"{message} That is one fault more than --max_errors={self.max_errors}: {kinds}. "
                f"{fault.advice}, or allow more."
            )

    def lines(self) -> list[str]:
        """Describe what was passed over, a line for each kind, the most frequent first."""
        return [
            f"left out {count:,} x {kind}; the first: {self.first[kind]}"
            for kind, count in self.counts.most_common()
        ]
