"""Functions that worker processes call in tests: they must be importable by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_cdr_mm.errors import ConfigError

Report = Callable[[Any], Any]


def double(number: int, report: Report) -> int:
    print(f"doubling {number}")
    return 2 * number


def ask(number: int, report: Report) -> list[Any]:
    return [report(number), report(number + 1)]


def threads(report: Report) -> tuple[int, set[int]]:
    import numpy as np
    import threadpoolctl
    import torch

    np.linalg.inv(np.eye(2))  # loads BLAS
    blas = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return torch.get_num_threads(), blas


def mistake(report: Report) -> None:
    raise ConfigError("`epochs: 0` must be more. Give more.")


def bug(report: Report) -> None:
    raise ZeroDivisionError("of our own making")


def die(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(report: Report) -> None:
    os._exit(7)


def note_and_wait(folder: str, report: Report) -> None:
    """Leave a file with the process's number, and work on until somebody ends it."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def overlap(folder: str, report: Report) -> int:
    """How many of these calls there are at the same time, this one among them."""
    mine = Path(folder, str(os.getpid()))
    mine.touch()
    time.sleep(0.3)
    there = len(list(Path(folder).iterdir()))
    mine.unlink()
    return there


def main() -> None:
    """Start two tasks that never end, for a test that kills this process."""
    from recbole_cdr_mm.parallel.local import LocalPool
    from recbole_cdr_mm.parallel.tasks import Task

    folder = sys.argv[1]
    tasks = [
        Task(str(n), note_and_wait, {"folder": folder}, Path(folder).parent / f"{n}.log")
        for n in range(2)
    ]
    for _ in LocalPool(2, 1).run(tasks):
        pass


if __name__ == "__main__":
    main()
