"""The processes of one run: which of them this is, and what they tell each other.

A run has one process, or as many as `nproc` and `world_size` ask for (see `launch`). Each of them,
its rank among them counted from 0, holds the whole pair and the whole model, and computes a share
of each batch. What is asked here has an answer in a run of one process too: it is rank 0 of 1.
"""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

_NONE, _DENSE, _SPARSE = range(3)  # kinds of gradients


def rank() -> int:
    """Which process this is."""
    return dist.get_rank() if _is_one_of_many() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _is_one_of_many() else 1


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher, `launch` or torchrun, has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launched_size() -> int:
    """How many processes a launcher has started, on all machines; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def launched_here() -> int | None:
    """How many of them are on this machine; None without a launcher."""
    own = os.environ.get("LOCAL_WORLD_SIZE")
    return None if own is None else int(own)


def local_rank() -> int:
    """Which of those on this machine this is."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Take part in the run for which this process was launched.

    Args:
        device: Where the model is: gloo connects CPUs, nccl GPUs.
    """
    if not is_launched():
        yield
        return
    # The first optimiser imports it, and holds a group that is there by then: the threads of such a
    # group outlive it, and now and then abort the process as that ends.
    importlib.import_module("torch._dynamo")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        dist.barrier()  # nobody leaves while others wait for an answer
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes are here."""
    if _is_one_of_many():
        dist.barrier()


def gathered(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if not _is_one_of_many():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def of_first(value: T) -> T:
    """The value that the first process has."""
    return gathered(value)[0]


def share(rows: Tensor) -> Tensor:
    """This process's share of a batch: rows that follow each other, as those of a user may.

    All shares have one size, so that the mean over a batch is the mean of the shares' means; where
    the batch cannot be cut evenly its first rows count twice.

    Args:
        rows: Places of the batch's rows (B,); the same in all processes.

    Returns:
        The rank-th of world_size parts.
    """
    lacking = -len(rows) % world_size()
    if lacking:
        rows = torch.cat([rows, rows.repeat(lacking)[:lacking]])
    return rows.chunk(world_size())[rank()]


def own_rows() -> slice:
    """Which rows of a batch are this process's share, where shares may differ by a row."""
    return slice(rank(), None, world_size())


def share_of_batches(loader: Any) -> Any:
    """A torch DataLoader of this process's share of each of another's batches.

    Args:
        loader: A loader with a batch sampler; it stays as it is.

    Returns:
        The same loader with the `own_rows` of its batches, and without those that have none.
    """
    if not _is_one_of_many():
        return loader
    shares = [list(rows)[own_rows()] for rows in loader.batch_sampler]
    own = copy.copy(loader)
    # Not by setattr: torch wants a loader's batches to stay as they are.
    own.__dict__["batch_sampler"] = [rows for rows in shares if rows]
    return own


def in_turn(shares: Sequence[Tensor]) -> Tensor:
    """Rows in their own order, from the `own_rows` of each process.

    >>> in_turn([torch.tensor([0, 2, 4]), torch.tensor([1, 3])])
    tensor([0, 1, 2, 3, 4])
    """
    rows = shares[0].new_empty(sum(map(len, shares)), *shares[0].shape[1:])
    for number, part in enumerate(shares):
        rows[number :: len(shares)] = part
    return rows


@torch.no_grad()
def take_over(model: nn.Module) -> None:
    """Give a model the parameters and buffers that it has in the first process."""
    if _is_one_of_many():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor, src=0)


def exchange_gradients(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Put the mean over all processes in the place of each gradient.

    A hook before an optimiser's step. Of sparse gradients only the rows that some process has met
    are sent, so that the cost is that of a batch, as is the step's.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    own = []  # kind of gradient, and rows of a sparse one
    for parameter in parameters:
        kind, n_rows = _NONE, 0
        if parameter.grad is not None:
            kind = _SPARSE if parameter.grad.is_sparse else _DENSE
        if kind == _SPARSE:
            parameter.grad = parameter.grad.coalesce()
            n_rows = parameter.grad._nnz()
        own.append((kind, n_rows))
    kinds = _of_all(torch.tensor(own, device=parameters[0].device))  # (W, P, 2)
    dense = []
    for place, parameter in enumerate(parameters):
        kind = int(kinds[:, place, 0].max())
        if kind == _SPARSE:
            parameter.grad = _mean_of_rows(parameter, kinds[:, place, 1].tolist())
        elif kind == _DENSE:
            dense.append(parameter)
    if not dense:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in dense])
    dist.all_reduce(flat)
    parts = (flat / world_size()).split([p.numel() for p in dense])
    for parameter, part in zip(dense, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def _mean_of_rows(table: nn.Parameter, counts: list[int]) -> Tensor:
    """The mean of the processes' sparse gradients of a table; each has so many rows."""
    row = torch.zeros(max(counts), dtype=torch.int64, device=table.device)
    value = torch.zeros(max(counts), *table.shape[1:], device=table.device)
    if table.grad is not None:
        n_own = table.grad._nnz()
        row[:n_own], value[:n_own] = table.grad._indices()[0], table.grad._values()
    rows, values = _of_all(row), _of_all(value / world_size())
    there = torch.cat([r[:n] for r, n in zip(rows, counts, strict=True)])
    what = torch.cat([v[:n] for v, n in zip(values, counts, strict=True)])
    return torch.sparse_coo_tensor(there.unsqueeze(0), what, table.shape, check_invariants=False)


def _of_all(tensor: Tensor) -> Tensor:
    """Tensors of one shape of all processes, (...) to (W, ...)."""
    found = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(found, tensor.contiguous())
    return torch.stack(found)


def _is_one_of_many() -> bool:
    return dist.is_available() and dist.is_initialized()
