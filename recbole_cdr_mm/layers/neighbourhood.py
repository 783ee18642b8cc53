"""Vectors of users and items averaged over their neighbours in a domain's ratings."""

from __future__ import annotations

import torch
from torch import Tensor


def average_over_neighbours(
    user_e: Tensor, item_e: Tensor, user: Tensor, item: Tensor, *, hops: int
) -> Tensor:
    """Replace each vector by the mean of itself and of its neighbours', so many times.

    Args:
        user_e: Vectors of users (U, k).
        item_e: Vectors of items (I, k).
        user: User of each rating, int64 (N,).
        item: Item of each rating, int64 (N,).
        hops: How often; 0 leaves the vectors as they are.

    Returns:
        Vectors of users (U, k).

    >>> users, items = torch.tensor([[0.0], [4.0]]), torch.tensor([[2.0], [6.0]])
    >>> average_over_neighbours(users, items, torch.tensor([0, 1]), torch.tensor([0, 0]), hops=1)
    tensor([[1.],
            [3.]])
    """
    for hop in range(hops):
        averaged = _mean_with_neighbours(user_e, item_e, user, item)  # (U, k)
        if hop < hops - 1:
            item_e = _mean_with_neighbours(item_e, user_e, item, user)  # (I, k)
        user_e = averaged
    return user_e


def _mean_with_neighbours(own_e: Tensor, other_e: Tensor, own: Tensor, other: Tensor) -> Tensor:
    total = own_e.index_add(0, own, other_e[other])  # (U, k)
    count = 1 + torch.bincount(own, minlength=len(own_e))  # (U,)
    return total / count.unsqueeze(1)
