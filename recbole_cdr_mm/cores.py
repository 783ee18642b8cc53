"""How many cores there are for a run."""

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
