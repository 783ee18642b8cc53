"""BiasTransfer: item biases of the target domain and the user's bias of the source domain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.layers.calibration import ColdFloor
from recbole_cdr_mm.model.floors import cross_fitted, fit_domain_biases, fit_item_base
from recbole_cdr_mm.model.rating_floor import RatingFloor


class BiasTransfer(RatingFloor):
    """mean + b_i + b_u, where a cold-start user's b_u comes from the source domain.

    Both domains' biases are fitted by alternating shrunken means. What a bridge is worth is what it
    adds to this.

    Source: none.

    Deviations: none.
    """

    final_stage = "biases"
    item_part: Tensor
    user_part: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("item_part", torch.zeros(self.n_items))
        self.register_buffer("user_part", torch.zeros(self.n_users))

    def fit(self, dataset: PairDataset, fold: Tensor, n_folds: int) -> ColdFloor:
        """The biases of both domains."""
        pair, config = dataset.pair, self.config
        target = fit_domain_biases(dataset.split.train, pair, config)
        source = fit_domain_biases(pair.source, pair, config)
        self.item_part.copy_(target.mean + target.item)
        self.user_part.copy_(torch.where(self.is_warm.cpu(), target.user, source.user))
        item = cross_fitted(
            dataset, fold, n_folds, lambda rows: fit_item_base(rows, pair, config)
        )  # (F + 1, I)
        return ColdFloor(item, source.user)

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """Mean, item bias and user bias, (B,)."""
        return self.item_part[item] + self.user_part[user]
