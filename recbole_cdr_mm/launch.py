"""Starting the processes of one run, by torch's launcher."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from recbole_cdr_mm import ranks
from recbole_cdr_mm.cores import threads_of_each
from recbole_cdr_mm.errors import ProcessError, UserError

_PATIENCE = 5.0  # seconds


def is_wanted(config: Any) -> bool:
    """Whether a run is to be started as several processes, and this is none of them."""
    return not ranks.is_launched() and (config["nproc"] > 1 or config["world_size"] > 1)


def launch(config: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in each process of a run.

    Args:
        config: Gives nproc, world_size, ip, port and group_offset.
        function: What each process runs, found by its name; it takes part in the run by itself.
        arguments: What it is given.

    Returns:
        What the first process of this machine returns.

    Raises:
        UserError: If a process ends before its time; the others are ended too.
    """
    n_here = config["nproc"]
    n_machines = max(1, config["world_size"] // n_here)
    is_alone = n_machines == 1
    settings = LaunchConfig(
        min_nodes=n_machines,
        max_nodes=n_machines,
        nproc_per_node=n_here,
        run_id=str(uuid4()) if is_alone else "recbole_cdr_mm",
        rdzv_backend="c10d" if is_alone else "static",
        # Alone it takes a port that is free.
        rdzv_endpoint="localhost:0" if is_alone else f"{config['ip']}:{config['port']}",
        rdzv_configs={} if is_alone else {"rank": config["group_offset"] // n_here},
        max_restarts=0,
        monitor_interval=1.0,
    )
    threads = threads_of_each(n_here)
    chatter = logging.getLogger("torch.distributed.elastic")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)  # what failed is said once, below
    try:
        results = elastic_launch(settings, _in_rank)(threads, function, arguments)
    except ChildFailedError as failed:
        raise _what_happened(failed) from None
    finally:
        chatter.setLevel(level)
    return results[min(results)]


def _in_rank(threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(threads)
    try:
        return function(*arguments)
    except UserError:
        raise
    except Exception:
        # Most likely another process is gone, and this one has lost its connection. The launcher
        # shall find that one first.
        time.sleep(_PATIENCE)
        raise


def _what_happened(failed: ChildFailedError) -> Exception:
    """The error of the process that failed first, as it would be in a run of one process."""
    rank, failure = failed.get_first_failure()
    if failure.exitcode < 0:
        return ProcessError(
            f"Process {rank} of the run was ended by {failure.signal_name()}, so the run ends. The"
            " same command with --resume=True goes on from the last epoch. If nobody ended it, the"
            " machine had too little memory: give a lower --nproc."
        )
    message = failure.error_file_data["message"]
    said = message["message"] if isinstance(message, dict) else message
    kind, _, text = said.partition(": ")
    for error in UserError.__subclasses__():
        if error.__name__ == kind:
            return error(text)
    return failed
