"""BiasTransfer: item biases of the target domain and the user's bias of the source domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.model.floors import fit_domain_biases
from recbole_cdr_mm.stage import Stage


class BiasTransfer(CrossDomainRecommender):
    """mean + b_i + b_u, where a cold-start user's b_u comes from the source domain.

    Both domains' biases are fitted by alternating shrunken means. What a bridge is worth is what it
    adds to this.

    Source: none.

    Deviations: none.
    """

    kind = "floor"
    final_stage = "biases"
    item_part: Tensor
    user_part: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("item_part", torch.zeros(self.n_items))
        self.register_buffer("user_part", torch.zeros(self.n_users))

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage in closed form."""

        def fit() -> None:
            target = fit_domain_biases(dataset.split.train, dataset.pair, self.config)
            source = fit_domain_biases(dataset.pair.source, dataset.pair, self.config)
            self.item_part.copy_(target.mean + target.item)
            self.user_part.copy_(torch.where(self.is_warm.cpu(), target.user, source.user))

        return [Stage(self.final_stage, prepare=fit, validate=validate)]

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """Mean, item bias and user bias, (B,)."""
        return self.item_part[item] + self.user_part[user]
