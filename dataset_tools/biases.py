"""Regularised user and item biases by alternating means, for the models and for `stats`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Vector = TypeVar("Vector")  # NumPy's arrays here, tensors in the models


@dataclass(frozen=True, eq=False)
class Biases(Generic[Vector]):
    """Global mean, user biases (U,) and item biases (I,), all float64."""

    mean: float
    user: Vector
    item: Vector


def fit_biases(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: NDArray[np.floating],
    *,
    n_users: int,
    n_items: int,
    rounds: int,
    item_shrinkage: float,
    user_shrinkage: float,
) -> Biases[NDArray[np.float64]]:
    """Fit `rating = mean + item bias + user bias` by alternating shrunken means.

    Args:
        user: User ids (N,), below n_users.
        item: Item ids (N,), below n_items.
        rating: Ratings (N,).
        n_users: Length of the user biases.
        n_items: Length of the item biases.
        rounds: Rounds of item biases, then user biases.
        item_shrinkage: Pseudo-ratings without bias added to each item.
        user_shrinkage: The same for users.

    Returns:
        The biases; 0 for users and items without ratings.

    >>> b = fit_biases(np.array([1, 1]), np.array([1, 2]), np.array([3.0, 5.0]),
    ...                n_users=2, n_items=3, rounds=1, item_shrinkage=1.0, user_shrinkage=0.0)
    >>> b.mean, b.item.tolist(), b.user.tolist()
    (4.0, [0.0, -0.5, 0.5], [0.0, 0.0])
    """
    rating = rating.astype(np.float64)
    mean = float(rating.mean())
    rating -= mean
    user_count = np.bincount(user, minlength=n_users)
    item_count = np.bincount(item, minlength=n_items)
    user_bias, item_bias = np.zeros(n_users), np.zeros(n_items)
    for _ in range(rounds):
        item_bias = _shrunken_mean(item, rating - user_bias[user], item_count, item_shrinkage)
        user_bias = _shrunken_mean(user, rating - item_bias[item], user_count, user_shrinkage)
    return Biases(mean, user_bias, item_bias)


def _shrunken_mean(
    group: NDArray[np.int64], value: NDArray[np.float64], count: NDArray[np.int64], shrinkage: float
) -> NDArray[np.float64]:
    """Mean of each group with `shrinkage` zeros added to it; 0 for an empty one."""
    total = np.bincount(group, weights=value, minlength=len(count))
    return total / np.maximum(count + shrinkage, 1e-12)
