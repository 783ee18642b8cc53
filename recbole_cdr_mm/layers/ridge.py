"""Item vectors by ridge regression on fixed user vectors: half a step of ALS."""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS_AT_ONCE = 1 << 17


def solve_item_vectors(
    user_e: Tensor, item: Tensor, residual: Tensor, *, n_items: int, reg_weight: float
) -> Tensor:
    """Fit each item's vector to the residuals of its raters.

    Args:
        user_e: Vector of each row's user, (N, k).
        item: Item ids, int64 (N,), below n_items.
        residual: What the dot product of the two has to explain, (N,).
        n_items: Rows of the result.
        reg_weight: Ridge penalty, in ratings: the vector is shrunk as if so many unit-length users
            with residual 0 had rated the item.

    Returns:
        Item vectors (n_items, k); zeros for items without rows.

    >>> u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> item, residual = torch.tensor([1, 1]), torch.tensor([2.0, 4.0])
    >>> solve_item_vectors(u, item, residual, n_items=2, reg_weight=1.0)
    tensor([[0., 0.],
            [1., 2.]])
    """
    k = user_e.shape[1]
    gram = torch.zeros(n_items, k, k, device=user_e.device)  # (I, k, k)
    moment = torch.zeros(n_items, k, device=user_e.device)  # (I, k)
    for rows in torch.arange(len(item), device=item.device).split(_ROWS_AT_ONCE):
        e = user_e[rows]  # (n, k)
        gram.index_add_(0, item[rows], e.unsqueeze(2) * e.unsqueeze(1))
        moment.index_add_(0, item[rows], residual[rows].unsqueeze(1).to(e.dtype) * e)
    gram.diagonal(dim1=1, dim2=2).add_(reg_weight)
    return torch.linalg.solve(gram, moment)
