"""A floor whose weights are fitted on simulated cold-start users, by cross-fitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dataset_tools.biases import Biases


@dataclass(frozen=True)
class CalibratedFloor:
    """a + b (mean + item bias) + c (user's source bias), as an item part and a user part.

    Attributes:
        item: a + b (mean + item bias), float64 (F + 1, I): row f is fitted without the target
            ratings of fold f's users, the last row on all training ratings.
        user: c times the source bias, float64 (U,); 0 for users without source ratings.
        weights: a, b and c.
    """

    item: Tensor
    user: Tensor
    weights: tuple[float, float, float]


def fit_calibrated_floor(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    *,
    fold: Tensor,
    n_folds: int,
    source_bias: Tensor,
    fit_target: Callable[[Tensor], Biases[Tensor]],
) -> CalibratedFloor:
    """Fit a, b and c by least squares on users that are cold in the statistics they are rated with.

    Args:
        user: Users of the target training rows, int64 (N,).
        item: Their items, int64 (N,).
        rating: Their ratings (N,).
        fold: Fold of each user, int64 (U,); n_folds for users in none.
        n_folds: F.
        source_bias: Biases of all users in the source domain (U,).
        fit_target: Fits target biases on the rows of a mask, bool (N,).
    """
    fold_of_row = fold[user]  # (N,)
    everything = torch.ones_like(user, dtype=torch.bool)  # (N,)
    masks = [*(fold_of_row != f for f in range(n_folds)), everything]
    base = torch.stack([_item_base(fit_target(mask)) for mask in masks])  # (F + 1, I)
    rows = fold_of_row < n_folds
    seen = base[fold_of_row[rows], item[rows]]  # (M,)
    design = torch.stack([torch.ones_like(seen), seen, source_bias[user[rows]]], dim=1)  # (M, 3)
    solution = torch.linalg.lstsq(design, rating[rows].double().unsqueeze(1)).solution
    a, b, c = solution.squeeze(1).tolist()
    return CalibratedFloor(a + b * base, c * source_bias, (a, b, c))


def _item_base(biases: Biases[Tensor]) -> Tensor:
    return biases.mean + biases.item
