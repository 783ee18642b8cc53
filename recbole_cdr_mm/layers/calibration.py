"""Floors of cold-start users, and one whose weights are fitted on simulated ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ColdFloor:
    """What a floor says of cold-start users: an item's part and a user's part, added up.

    Attributes:
        item: Items' parts, float64 (F + 1, I): row f is fitted without the target ratings of fold
            f's users, the last row on all training ratings.
        user: Users' parts, float64 (U,).
    """

    item: Tensor
    user: Tensor


@dataclass(frozen=True)
class CalibratedFloor(ColdFloor):
    """a + b (mean + item bias) as items' parts, c (user's source bias) as users' parts.

    Attributes:
        weights: a, b and c.
    """

    weights: tuple[float, float, float]


def fit_calibrated_floor(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    *,
    fold: Tensor,
    base: Tensor,
    source_bias: Tensor,
) -> CalibratedFloor:
    """Fit a, b and c by least squares on users that are cold in the statistics they are rated with.

    Args:
        user: Users of the target training rows, int64 (N,).
        item: Their items, int64 (N,).
        rating: Their ratings (N,).
        fold: Fold of each user, int64 (U,); F for users in none.
        base: mean + item bias, float64 (F + 1, I), fitted as `ColdFloor` has it.
        source_bias: Biases of all users in the source domain (U,).
    """
    fold_of_row = fold[user]  # (N,)
    rows = fold_of_row < len(base) - 1
    seen = base[fold_of_row[rows], item[rows]]  # (M,)
    design = torch.stack([torch.ones_like(seen), seen, source_bias[user[rows]]], dim=1)  # (M, 3)
    solution = torch.linalg.lstsq(design, rating[rows].double().unsqueeze(1)).solution
    a, b, c = solution.squeeze(1).tolist()
    return CalibratedFloor(a + b * base, c * source_bias, (a, b, c))
