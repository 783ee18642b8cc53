"""Vectors by ridge regression on fixed ones: half a step of alternating least squares."""

from __future__ import annotations

import torch
from torch import Tensor

_NUMBERS_AT_ONCE = 1 << 27  # half a gigabyte in float32


def solve_vectors(
    other_e: Tensor, group: Tensor, residual: Tensor, *, n_groups: int, reg_weight: float
) -> Tensor:
    """Fit a vector for each group of rows, so that its dot products explain the rows' residuals.

    With `other_e` the vectors of users and groups by item this fits items' vectors, and the other
    way round.

    Args:
        other_e: Fixed vector of each row, (N, k).
        group: Whose vector each row helps to fit, int64 (N,), below n_groups.
        residual: What the dot product of the two has to explain, (N,).
        n_groups: Rows of the result.
        reg_weight: Ridge penalty, in rows: a vector is shrunk as if so many unit-length rows with
            residual 0 were in its group.

    Returns:
        Vectors (n_groups, k), in the precision of other_e; zeros for groups without rows.

    >>> u = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> item, residual = torch.tensor([1, 1]), torch.tensor([2.0, 4.0])
    >>> solve_vectors(u, item, residual, n_groups=2, reg_weight=1.0)
    tensor([[0., 0.],
            [1., 2.]])
    """
    k = other_e.shape[1]
    gram = other_e.new_zeros(n_groups, k, k)  # (G, k, k)
    moment = other_e.new_zeros(n_groups, k)  # (G, k)
    at_once = max(1, _NUMBERS_AT_ONCE // k**2)
    for rows in torch.arange(len(group), device=group.device).split(at_once):
        e = other_e[rows]  # (n, k)
        gram.index_add_(0, group[rows], e.unsqueeze(2) * e.unsqueeze(1))
        moment.index_add_(0, group[rows], residual[rows].unsqueeze(1).to(e.dtype) * e)
    gram.diagonal(dim1=1, dim2=2).add_(reg_weight)
    return torch.linalg.solve(gram, moment)
