"""How many cores there are for a run, and how many threads it may have."""

from __future__ import annotations

import os

import psutil


def usable_cores() -> int:
    """Cores that this process may use."""
    return (
        len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else (os.cpu_count() or 1)
    )


def threads_of_each(n_processes: int) -> int:
    """Threads for each of some processes: the cores divided, and no more than OMP_NUM_THREADS."""
    share = max(1, usable_cores() // n_processes)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, max(1, int(wanted))) if wanted.isdecimal() else share
