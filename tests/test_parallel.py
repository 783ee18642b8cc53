"""Worker processes: what they return, how they fail, and that none outlives its parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pool_tasks
import psutil
import pytest

from recbole_cdr_mm.cores import usable_cores
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.parallel.local import LocalPool
from recbole_cdr_mm.parallel.tasks import Failure, Task

needs_two_cores = pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., Task]:
    def make(function: Callable[..., Any], name: str = "task", **arguments: Any) -> Task:
        return Task(name, function, arguments, tmp_path / "logs" / f"{name}.log")

    return make


def test_values_and_logs(task: Callable[..., Task], tmp_path: Path) -> None:
    tasks = [task(pool_tasks.double, str(n), number=n) for n in range(3)]
    outcomes = list(LocalPool(1).run(tasks))
    assert [(o.task.name, o.value, o.error) for o in outcomes] == [
        ("0", 0, None),
        ("1", 2, None),
        ("2", 4, None),
    ]
    assert (tmp_path / "logs" / "2.log").read_text() == "doubling 2\n"


def test_tasks_are_asked_for_when_a_worker_is_free(task: Callable[..., Task]) -> None:
    asked = []

    def tasks() -> Iterator[Task]:
        for number in range(3):
            asked.append(number)
            yield task(pool_tasks.double, number=number)

    outcomes = LocalPool(1, 1).run(tasks())
    for number in range(3):
        assert next(outcomes).value == 2 * number
        assert asked == list(range(number + 1))


def test_reports_are_answered(task: Callable[..., Task]) -> None:
    heard = []

    def answer(task: Task, payload: int) -> str:
        heard.append((task.name, payload))
        return f"{payload}!"

    (outcome,) = LocalPool(1).run([task(pool_tasks.ask, number=4)], answer)
    assert outcome.value == ["4!", "5!"]
    assert heard == [("task", 4), ("task", 5)]


def test_cores_are_divided(task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = usable_cores()
    (outcome,) = LocalPool(1).run([task(pool_tasks.threads)])
    torch_threads, blas_threads = outcome.value
    assert torch_threads == cores
    assert max(blas_threads) <= cores
    (outcome,) = LocalPool(1, n_threads=1).run([task(pool_tasks.threads)])
    assert outcome.value == (1, {1})
    assert LocalPool(cores).n_threads == 1


@pytest.mark.parametrize(
    ("variable", "threads"),
    [("1", 1), ("1000", usable_cores()), ("0", 1), ("4,3", usable_cores()), ("", usable_cores())],
)
def test_no_more_threads_than_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, variable: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert LocalPool(1).n_threads == threads


@needs_two_cores
def test_as_many_at_a_time_as_there_are_workers(task: Callable[..., Task], tmp_path: Path) -> None:
    folder = tmp_path / "running"
    folder.mkdir()
    tasks = [task(pool_tasks.overlap, str(n), folder=str(folder)) for n in range(4)]
    assert max(outcome.value for outcome in LocalPool(2, 1).run(tasks)) == 2


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Give at most --processes=\d+\."):
        LocalPool(usable_cores() + 1)


@pytest.mark.parametrize(
    ("function", "failure", "logged"),
    [
        (
            pool_tasks.mistake,
            Failure("ConfigError", "`epochs: 0` must be more. Give more."),
            "ConfigError: `epochs: 0` must be more. Give more.\n",
        ),
        (
            pool_tasks.bug,
            Failure("ZeroDivisionError", "of our own making"),
            "Traceback (most recent call last)",
        ),
    ],
)
def test_a_failure_says_why_and_the_others_go_on(
    task: Callable[..., Task], tmp_path: Path, function: Any, failure: Failure, logged: str
) -> None:
    tasks = [task(function, "bad"), task(pool_tasks.double, "good", number=1)]
    bad, good = LocalPool(1).run(tasks)
    assert (bad.value, bad.error) == (None, failure)
    assert good.value == 2
    assert (tmp_path / "logs" / "bad.log").read_text().startswith(logged)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (pool_tasks.die, r"was ended by signal 9 \(out of memory\?\)\. See .*task\.log\."),
        (pool_tasks.leave, r"ended with 7\. See .*task\.log\."),
    ],
)
def test_a_process_that_dies_is_a_failure(
    task: Callable[..., Task], function: Any, how: str
) -> None:
    tasks = [task(function), task(pool_tasks.double, number=1)]
    dead, alive = LocalPool(1).run(tasks)
    assert dead.error is not None
    assert dead.error.type == "ProcessDied"
    assert alive.value == 2
    assert re.search(how, dead.error.message)


def waiting_processes(folder: Path, wanted: int) -> list[int]:
    """The numbers of processes that have begun, once there are so many."""
    end = time.monotonic() + 120
    while len(list(folder.iterdir())) < wanted and time.monotonic() < end:
        time.sleep(0.05)
    return [int(file.name) for file in folder.iterdir()]


def all_gone(processes: list[int]) -> bool:
    end = time.monotonic() + 30
    while any(map(psutil.pid_exists, processes)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(psutil.pid_exists, processes))


@needs_two_cores
def test_closing_ends_the_processes(task: Callable[..., Task], tmp_path: Path) -> None:
    folder = tmp_path / "running"
    folder.mkdir()
    tasks = [
        task(pool_tasks.note_and_wait, folder=str(folder)),
        task(pool_tasks.double, "quick", number=1),
    ]
    outcomes = LocalPool(2, 1).run(tasks)
    assert next(outcomes).task.name == "quick"
    processes = waiting_processes(folder, 1)
    outcomes.close()  # type: ignore[attr-defined]
    assert all_gone(processes)


@needs_two_cores
def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    folder = tmp_path / "running"
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, pool_tasks.__file__, str(folder)])
    processes = waiting_processes(folder, 2)
    assert len(processes) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert all_gone(processes)
