"""Worker processes of this machine, among which the cores are divided."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import perf_counter
from typing import Any

from recbole_cdr_mm.cores import threads_of_each, usable_cores
from recbole_cdr_mm.errors import ConfigError, UserError
from recbole_cdr_mm.parallel.tasks import Failure, Outcome, Task, no_answer

PRELOADED = ["recbole_cdr_mm.parallel.preload"]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_REPORT, _VALUE, _ERROR = "report", "value", "error"


@dataclass(frozen=True, eq=False)
class _Worker:
    task: Task
    process: BaseProcess
    connection: Connection
    start: float


class LocalPool:
    """One process for each task, so many at a time, with the cores divided among them.

    A process of its own keeps a task's memory, threads and crashes apart from all others. On
    POSIX systems it is forked from a server that has imported torch and RecBole already, so that
    it starts in milliseconds. It ends itself when this process dies, however it dies.

    Args:
        n_workers: Tasks at a time.
        n_threads: Threads of each; None: as `threads_of_each` has it.

    Raises:
        ConfigError: If there are fewer cores than workers.
    """

    def __init__(self, n_workers: int, n_threads: int | None = None) -> None:
        cores = usable_cores()
        if n_workers > cores:
            raise ConfigError(
                f"{n_workers} processes on {cores} cores would slow each other down. Give at most"
                f" --processes={cores}."
            )
        self.n_workers = n_workers
        self.n_threads = n_threads or threads_of_each(n_workers)

    def run(
        self, tasks: Iterable[Task], on_report: Callable[[Task, Any], Any] = no_answer
    ) -> Generator[Outcome]:
        """Work on tasks; see `Pool.run`. Closing the generator ends the processes."""
        context = _context()
        waiting = iter(tasks)
        workers: dict[Connection, _Worker] = {}
        try:
            while True:
                while len(workers) < self.n_workers and (task := next(waiting, None)):
                    worker = self._start(context, task)
                    workers[worker.connection] = worker
                if not workers:
                    return
                for connection in wait(list(workers)):
                    worker = workers[connection]  # type: ignore[index]
                    outcome = self._listen(worker, on_report)
                    if outcome:
                        del workers[worker.connection]
                        yield outcome
        finally:
            for worker in workers.values():
                worker.process.terminate()
            for worker in workers.values():
                worker.process.join()

    def _start(self, context: BaseContext, task: Task) -> _Worker:
        here, there = context.Pipe()
        process = context.Process(  # type: ignore[attr-defined]
            target=_work, args=(task, there, self.n_threads), name=task.name, daemon=True
        )
        process.start()
        there.close()
        return _Worker(task, process, here, perf_counter())

    def _listen(self, worker: _Worker, on_report: Callable[[Task, Any], Any]) -> Outcome | None:
        """Take one message of a worker; an outcome if it was the last one."""
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            kind, content = _ERROR, _died(worker)
        if kind == _REPORT:
            answer = on_report(worker.task, content)
            with suppress(OSError):  # a worker that died meanwhile is noticed by the next wait
                worker.connection.send(answer)
            return None
        worker.process.join()
        worker.connection.close()
        seconds = perf_counter() - worker.start
        if kind == _ERROR:
            return Outcome(worker.task, None, content, seconds)
        return Outcome(worker.task, content, None, seconds)


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _died(worker: _Worker) -> Failure:
    code = worker.process.exitcode
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with {code}"
    hint = " (out of memory?)" if code == -9 else ""
    return Failure("ProcessDied", f"the process {how}{hint}. See {worker.task.log}.")


# What runs in the process of a task.


def _work(task: Task, connection: Connection, n_threads: int) -> None:
    _end_with_parent()
    write_to(task.log)
    limit_threads(n_threads)

    def report(payload: Any) -> Any:
        connection.send((_REPORT, payload))
        return connection.recv()

    connection.send(call(task, report))
    connection.close()


def call(task: Task, report: Callable[[Any], Any]) -> tuple[str, Any]:
    """Call a task's function, and give its value or its failure."""
    try:
        return _VALUE, task.function(**task.arguments, report=report)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return _ERROR, Failure.of(error)
    except Exception as error:
        traceback.print_exc()
        return _ERROR, Failure.of(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def limit_threads(n_threads: int) -> None:
    """Let torch and the BLAS libraries of this process use so many threads."""
    import threadpoolctl
    import torch

    os.environ.update({variable: str(n_threads) for variable in _THREAD_VARIABLES})
    torch.set_num_threads(n_threads)
    threadpoolctl.threadpool_limits(n_threads)


def _end_with_parent() -> None:
    """End this process as soon as the one that wants its outcome is no more."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_to(log: Path) -> None:
    """Send what this process prints, that of its libraries too, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
