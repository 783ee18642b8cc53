"""Floors in closed form, for the models that are floors and for those that start from one."""

from __future__ import annotations

from collections.abc import Mapping
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
        n_folds=n_folds,
        source_bias=fit_domain_biases(pair.source, pair, config).user,
        fit_target=lambda rows: fit_domain_biases(train.where(rows.numpy()), pair, config),
    )
