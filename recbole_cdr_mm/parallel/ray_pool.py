"""Workers of a Ray cluster."""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import pickle
import socket
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from time import perf_counter
from types import ModuleType, TracebackType
from typing import Any

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.parallel.local import PRELOADED, call, limit_threads, write_to
from recbole_cdr_mm.parallel.tasks import Failure, Outcome, Task, no_answer


class RayPool:
    """One Ray task for each task, each in a process of its own, wherever the cluster has CPUs.

    A task whose process or node dies is an outcome with an error; Ray does not try it again. All
    nodes need this package, and the working directory and the data under the same paths as here:
    tasks run in this process's working directory and write their logs where they would here.

    Args:
        address: `auto` for the cluster that runs on this machine, `HOST:PORT` of its head, or
            `local` to start one here that ends with the pool. Where this process is connected to a
            cluster already, that one is taken, and left running.
        n_workers: Tasks at a time; None: as many as the cluster has CPUs for, also when it grows.
        n_threads: CPUs, and threads, of each.
        use_gpu: Whether to divide the cluster's GPUs, where it has some, among the workers.

    Raises:
        ConfigError: If Ray is not installed, or cannot be reached.
    """

    def __init__(
        self,
        address: str,
        n_workers: int | None = None,
        n_threads: int = 1,
        use_gpu: bool = False,
    ) -> None:
        self._ray = _import_ray()
        self._limit, self._n_threads, self._use_gpu = n_workers, n_threads, use_gpu
        self._connected = not self._ray.is_initialized()
        if self._connected:
            try:
                _check_head(address)
                self._ray.init(address=address, log_to_driver=False)
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error).strip().partition("\n")[0].rstrip(".")
                raise ConfigError(
                    f"--ray_address={address}: {reason}. Start a cluster with `ray start --head`,"
                    " or give --ray_address=local."
                ) from error

    def __enter__(self) -> RayPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connected:
            self._ray.shutdown()

    @property
    def n_workers(self) -> int:
        """How many tasks are worked on at the same time."""
        room = max(1, int(self._ray.cluster_resources().get("CPU", 0) // self._n_threads))
        return min(self._limit or room, room)

    def run(
        self, tasks: Iterable[Task], on_report: Callable[[Task, Any], Any] = no_answer
    ) -> Generator[Outcome]:
        """Work on tasks; see `Pool.run`. Closing the generator ends the processes."""
        ray = self._ray
        waiting = enumerate(tasks)
        running: dict[Any, tuple[int, Task, float]] = {}  # by what Ray will hold the outcome in
        mailbox = self._make_mailbox()
        question = mailbox.take.remote()
        try:
            while True:
                while len(running) < self.n_workers and (found := next(waiting, None)):
                    number, task = found
                    running[self._start(mailbox, number, task)] = (number, task, perf_counter())
                if not running:
                    return
                (ready,), _ = ray.wait([question, *running])
                if ready == question:
                    number, place, payload = ray.get(question)
                    asking = [task for n, task, _ in running.values() if n == number]
                    answer = on_report(asking[0], payload) if asking else None  # it died meanwhile
                    mailbox.answer.remote(place, answer)
                    question = mailbox.take.remote()
                else:
                    _, task, start = running.pop(ready)
                    yield self._outcome(ready, task, start)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            ray.kill(mailbox)

    def _make_mailbox(self) -> Any:
        """An actor on the node of this process, so that no other node takes it down."""
        here = self._ray.get_runtime_context().get_node_id()
        on_this_node = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            here, soft=False
        )
        actor = self._ray.remote(num_cpus=0, scheduling_strategy=on_this_node)(_Mailbox)
        return actor.remote()

    def _start(self, mailbox: Any, number: int, task: Task) -> Any:
        worker = self._ray.remote(
            num_cpus=self._n_threads,
            num_gpus=self._gpu_share(),
            max_calls=1,  # a process for each task
            max_retries=0,
        )(_work)
        folder = os.getcwd()
        return worker.remote(pickle.dumps(task), task.log, number, mailbox, self._n_threads, folder)

    def _gpu_share(self) -> float:
        gpus = self._ray.cluster_resources().get("GPU", 0) if self._use_gpu else 0
        return min(1.0, math.floor(1e4 * gpus / self.n_workers) / 1e4)  # Ray takes four decimals

    def _outcome(self, reference: Any, task: Task, start: float) -> Outcome:
        try:
            content, seconds = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the task could not be read there
            content, seconds = Failure.of(error.cause), perf_counter() - start
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            content = Failure("ProcessDied", f"{reason} See {task.log}.")
            seconds = perf_counter() - start
        if isinstance(content, Failure):
            return Outcome(task, None, content, seconds)
        return Outcome(task, content, None, seconds)


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ConfigError(
            "--ray_address needs Ray. Install it with: pip install ray, or give --processes alone."
        ) from error
    return ray


def _check_head(address: str) -> None:
    """Find out in seconds that nobody listens at HOST:PORT; Ray tries for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


class _Mailbox:
    """Where tasks leave what they report, and wait for the answer."""

    def __init__(self) -> None:
        self._questions: asyncio.Queue[tuple[int, int, Any]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._n_asked = 0

    async def ask(self, number: int, payload: Any) -> Any:
        """A task's report; gives the answer."""
        place = self._n_asked
        self._n_asked += 1
        self._answers[place] = asyncio.get_running_loop().create_future()
        await self._questions.put((number, place, payload))
        return await self._answers[place]

    async def take(self) -> tuple[int, int, Any]:
        """The next report: number of the task, place of the answer, and what was reported."""
        return await self._questions.get()

    async def answer(self, place: int, answer: Any) -> None:
        """Answer a report."""
        self._answers.pop(place).set_result(answer)


def _work(
    pickled: bytes, log: Path, number: int, mailbox: Any, n_threads: int, folder: str
) -> tuple[Any, float]:
    """What runs on a worker: gives the task's value or its failure, and how long it took.

    Args:
        pickled: The task; what it imports may need RecBole, which has to be patched before.
        log: Where the task's output goes.
        number: The task's number, for its reports.
        mailbox: Where its reports go.
        n_threads: Threads that it may use.
        folder: The working directory.
    """
    import ray

    try:
        os.chdir(folder)
        write_to(log)
    except OSError as error:
        node = ray.util.get_node_ip_address()
        message = f"node {node}: {error}. The nodes of a cluster need a shared working directory."
        return Failure("ConfigError", message), 0.0
    importlib.import_module(PRELOADED[0])
    limit_threads(n_threads)
    # Of this package's own pool, over Ray, which hands all arguments over as pickles itself.
    task: Task = pickle.loads(pickled)

    def report(payload: Any) -> Any:
        return ray.get(mailbox.ask.remote(number, payload))

    start = perf_counter()
    _, content = call(task, report)
    return content, perf_counter() - start
