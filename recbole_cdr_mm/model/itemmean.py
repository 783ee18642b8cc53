"""ItemMean: each target item's mean rating, shrunk to the global mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dataset_tools.biases import fit_biases
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import Stage


class ItemMean(CrossDomainRecommender):
    """An item's mean target rating in training; `item_shrinkage` pseudo-ratings at the global mean.

    Source: none.

    Deviations: none.
    """

    kind = "floor"
    final_stage = "means"
    item_mean: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("item_mean", torch.zeros(self.n_items))

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage in closed form."""

        def fit() -> None:
            train = dataset.split.train
            biases = fit_biases(
                train.user,
                train.item,
                train.rating,
                n_users=self.n_users,
                n_items=self.n_items,
                rounds=1,
                item_shrinkage=self.config["item_shrinkage"],
                user_shrinkage=0.0,
            )
            self.item_mean.copy_(torch.from_numpy(biases.mean + biases.item))

        return [Stage(self.final_stage, prepare=fit, validate=validate)]

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The items' means, (B,)."""
        return self.item_mean[item]
