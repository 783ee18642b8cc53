"""What the benchmarks measure with: memory's bandwidth, and the most memory that was held."""

from __future__ import annotations

import resource
from time import perf_counter

import torch

_BLOCK = 1 << 27  # numbers; half a gigabyte


def bandwidth() -> float:
    """Bytes a second that copying half a gigabyte reads and writes."""
    block = torch.ones(_BLOCK)
    copy = torch.empty_like(block)
    times = []
    for _ in range(5):
        start = perf_counter()
        copy.copy_(block)
        times.append(perf_counter() - start)
    return 2 * 4 * _BLOCK / min(times)


def peak_gb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
