"""A task for a pool of workers, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Failure:
    """Why a task gave no value.

    Attributes:
        type: Name of the exception; `ProcessDied` where the process ended without one.
        message: What it said.
    """

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that an exception means."""
        return cls(type(error).__name__, str(error).strip() or repr(error))

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


@dataclass(frozen=True)
class Task:
    """A call that a worker makes.

    Attributes:
        name: For messages.
        function: Importable by its name. It is called with `arguments` and with `report`, a
            function that hands a value to the main process and returns its answer.
        arguments: Keyword arguments that can be pickled.
        log: The file that gets what the task prints.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: The task.
        value: What its function returned; None where it failed.
        error: Why it failed; None where it did not.
        seconds: Wall time.
    """

    task: Task
    value: Any
    error: Failure | None
    seconds: float


class Pool(Protocol):
    """Workers that take tasks one by one."""

    @property
    def n_workers(self) -> int:
        """How many tasks are worked on at the same time."""

    def run(
        self, tasks: Iterable[Task], on_report: Callable[[Task, Any], Any] = ...
    ) -> Generator[Outcome]:
        """Work on tasks.

        Args:
            tasks: Asked for the next one whenever a worker is free, and not before.
            on_report: Called in this process with what a task reports; its answer goes back.

        Yields:
            Outcomes, as the tasks end.
        """


def no_answer(task: Task, payload: Any) -> None:
    """What a pool does with reports where nobody listens."""
