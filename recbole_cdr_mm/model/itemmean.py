"""ItemMean: each target item's mean rating, shrunk to the global mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dataset_tools.biases import fit_biases
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.layers.calibration import ColdFloor
from recbole_cdr_mm.model.floors import cross_fitted
from recbole_cdr_mm.model.rating_floor import RatingFloor


class ItemMean(RatingFloor):
    """An item's mean target rating in training; `item_shrinkage` pseudo-ratings at the global mean.

    Source: none.

    Deviations: none.
    """

    final_stage = "means"
    item_mean: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("item_mean", torch.zeros(self.n_items))

    def fit(self, dataset: PairDataset, fold: Tensor, n_folds: int) -> ColdFloor:
        """The items' shrunken means."""

        def means(rows: Ratings) -> Tensor:
            biases = fit_biases(
                rows.user,
                rows.item,
                rows.rating,
                n_users=self.n_users,
                n_items=self.n_items,
                rounds=1,
                item_shrinkage=self.config["item_shrinkage"],
                user_shrinkage=0.0,
            )
            return torch.from_numpy(biases.mean + biases.item)

        item = cross_fitted(dataset, fold, n_folds, means)  # (F + 1, I)
        self.item_mean.copy_(item[-1])
        return ColdFloor(item, torch.zeros(self.n_users, dtype=torch.float64))

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The items' means, (B,)."""
        return self.item_mean[item]
