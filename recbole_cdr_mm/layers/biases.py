"""Regularised user and item biases by alternating means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Biases:
    """Global mean (scalar), user biases (U,) and item biases (I,), all float64."""

    mean: Tensor
    user: Tensor
    item: Tensor


def fit_biases(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    *,
    n_users: int,
    n_items: int,
    rounds: int,
    item_shrinkage: float,
    user_shrinkage: float,
) -> Biases:
    """Fit `rating = mean + item bias + user bias` by alternating shrunken means.

    Args:
        user: User ids, int64 (N,), below n_users.
        item: Item ids, int64 (N,), below n_items.
        rating: Ratings (N,).
        n_users: Length of the user biases.
        n_items: Length of the item biases.
        rounds: Rounds of item biases, then user biases.
        item_shrinkage: Pseudo-ratings without bias added to each item.
        user_shrinkage: The same for users.

    Returns:
        The biases; 0 for users and items without ratings.

    >>> b = fit_biases(torch.tensor([1, 1]), torch.tensor([1, 2]), torch.tensor([3.0, 5.0]),
    ...                n_users=2, n_items=3, rounds=1, item_shrinkage=1.0, user_shrinkage=0.0)
    >>> b.mean.item(), b.item.tolist(), b.user.tolist()
    (4.0, [0.0, -0.5, 0.5], [0.0, 0.0])
    """
    rating = rating.double()
    mean = rating.mean()
    user_count = torch.bincount(user, minlength=n_users).double()
    item_count = torch.bincount(item, minlength=n_items).double()
    user_bias = torch.zeros(n_users, dtype=torch.float64, device=rating.device)
    item_bias = torch.zeros(n_items, dtype=torch.float64, device=rating.device)
    for _ in range(rounds):
        rest = rating - mean - user_bias[user]
        item_bias = _shrunken_mean(item, rest, item_count, item_shrinkage)
        rest = rating - mean - item_bias[item]
        user_bias = _shrunken_mean(user, rest, user_count, user_shrinkage)
    return Biases(mean, user_bias, item_bias)


def _shrunken_mean(group: Tensor, value: Tensor, count: Tensor, shrinkage: float) -> Tensor:
    total = torch.bincount(group, weights=value, minlength=len(count))
    return total / (count + shrinkage).clamp(min=1e-12)
