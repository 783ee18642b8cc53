"""What the processes of tests/test_ranks.py do. They import nothing that needs RecBole."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch._dynamo  # before there is a group, as in `ranks.joined`
import torch.distributed as dist
from torch import nn

from recbole_cdr_mm import ranks

WORLD = 3
MET = [[[1, 4, 4], []], [[], [2]], [[1, 5], [0, 2]]]  # rows of two tables, by rank


def _gradients(rank: int) -> tuple[dict[str, np.ndarray | None], dict[str, np.ndarray]]:
    """Own gradients of two tables and two dense weights, before and after the exchange."""
    tables = [nn.Embedding(6, 2, sparse=True) for _ in range(2)]
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    parameters = [*(table.weight for table in tables), *weights]
    for number, (table, rows) in enumerate(zip(tables, MET[rank], strict=True)):
        if rows:
            ((rank + number + 1) * table(torch.tensor(rows))).sum().backward()
    weights[0].grad = torch.full((3,), float(rank))
    if rank == 1:
        weights[1].grad = torch.eye(2)

    def dense() -> dict[str, Any]:
        names = ("table 0", "table 1", "weight 0", "weight 1")
        return {
            name: None if p.grad is None else p.grad.to_dense().numpy().copy()
            for name, p in zip(names, parameters, strict=True)
        }

    before = dense()
    ranks.exchange_gradients(torch.optim.SGD(parameters, lr=0.1))
    assert parameters[0].grad is not None
    assert parameters[0].grad.is_sparse
    return before, dense()


def in_rank(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    model = nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, rank)
    model.register_buffer("seen", torch.tensor(rank))
    ranks.take_over(model)
    loader = torch.utils.data.DataLoader(list(range(11)), batch_size=4)
    found = {
        "rank": (ranks.rank(), ranks.world_size(), ranks.is_first()),
        "gathered": ranks.gathered(f"of {rank}"),
        "of_first": ranks.of_first(rank),
        "share": ranks.share(torch.arange(7)).tolist(),
        "batches": [batch.tolist() for batch in ranks.share_of_batches(loader)],
        "all batches": [batch.tolist() for batch in loader],
        "model": (model.weight.tolist(), model.seen.item()),
        "gradients": _gradients(rank),
    }
    ranks.wait()
    dist.destroy_process_group()
    torch.save(found, f"{folder}/{rank}.pt")
