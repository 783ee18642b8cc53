"""Floors in closed form, for the models that are floors and for those that start from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dataset_tools.biases import Biases, fit_biases
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.pair import Pair, Ratings
from recbole_cdr_mm.layers.calibration import CalibratedFloor, fit_calibrated_floor


def fit_domain_biases(ratings: Ratings, pair: Pair, config: Mapping[str, Any]) -> Biases[Tensor]:
    """Fit one domain's regularised biases.

    Args:
        ratings: The domain's training ratings.
        pair: Gives the lengths of the biases, (U,) and (I,).
        config: Gives bias_rounds, item_shrinkage and user_shrinkage.
    """
    biases = fit_biases(
        ratings.user,
        ratings.item,
        ratings.rating,
        n_users=pair.n_users,
        n_items=pair.n_items,
        rounds=config["bias_rounds"],
        item_shrinkage=config["item_shrinkage"],
        user_shrinkage=config["user_shrinkage"],
    )
    return Biases(biases.mean, torch.from_numpy(biases.user), torch.from_numpy(biases.item))


def cross_fitted(
    dataset: PairDataset, fold: Tensor, n_folds: int, fit: Callable[[Ratings], Tensor]
) -> Tensor:
    """Fit items' parts of a floor without the target ratings of each fold's users, and on all.

    Args:
        dataset: The pair; only its training part is read.
        fold: Fold of each user, int64 (U,); n_folds for users in none.
        n_folds: Number of folds.
        fit: Gives items' parts (I,) of a floor fitted on target ratings.

    Returns:
        Items' parts, (n_folds + 1, I), as `ColdFloor` has them.
    """
    train = dataset.split.train
    fold_of_row = fold.numpy()[train.user]  # (N,)
    without = [fit(train.where(fold_of_row != f)) for f in range(n_folds)]
    return torch.stack([*without, fit(train)])


def fit_item_base(ratings: Ratings, pair: Pair, config: Mapping[str, Any]) -> Tensor:
    """Mean and item biases of one domain, float64 (I,); see `fit_domain_biases`."""
    biases = fit_domain_biases(ratings, pair, config)
    return biases.mean + biases.item


def fit_floor(
    dataset: PairDataset, fold: Tensor, n_folds: int, config: Mapping[str, Any]
) -> CalibratedFloor:
    """Fit CalibratedTransfer's floor for cold-start users.

    Args:
        dataset: The pair; only its training part is read.
        fold: Fold of each user, int64 (U,); n_folds for users in none.
        n_folds: Number of folds.
        config: Gives the keys of `fit_domain_biases`.
    """
    pair, train = dataset.pair, dataset.split.train
    return fit_calibrated_floor(
        torch.from_numpy(train.user),
        torch.from_numpy(train.item),
        torch.from_numpy(train.rating),
        fold=fold,
        base=cross_fitted(dataset, fold, n_folds, lambda rows: fit_item_base(rows, pair, config)),
        source_bias=fit_domain_biases(pair.source, pair, config).user,
    )
