"""TargetMF: matrix factorisation of the target domain alone.

Reference:
    Koren, Bell and Volinsky. "Matrix Factorization Techniques for Recommender Systems." Computer,
    2009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import Stage


class TargetMF(CrossDomainRecommender):
    """What a target-only model can say of users it has never seen: the baseline without transfer.

    Source: 'TGT' of the PTUPCDR and MetaMMCDR papers.

    Deviations: with `cold_user: mean` (preset `default`) a cold-start user gets the mean vector and
    bias of the trained users. With `cold_user: random` (preset `paper`) they keep their random
    initial vector, as in the public PTUPCDR code; users of the source domain alone have none there
    and get the mean.
    """

    kind = "single-domain"
    final_stage = "target"
    shared_properties = ("base_model",)

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.keeps_random_vector = config["cold_user"] == "random"
        self.target = self.base_model(dataset, "target")
        warm_users = torch.nonzero(self.is_warm).squeeze(1)
        self.register_buffer("warm_users", warm_users, persistent=False)
        self.n_overlapped = dataset.pair.n_overlapped
        self.first_target_only_user = 1 + dataset.pair.n_overlapped + dataset.pair.n_source_only

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage: the target model on the target ratings that the split leaves."""
        items = dataset.pair.items("target")
        if self.config["select_epoch"] == "last":
            validate = None
        return [self.pretraining("target", self.target, dataset.split.train, items, validate)]

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores by the target model, (B,)."""
        return self.target.score(*self._users(user), item)

    def rate_all(self, user: Tensor) -> Tensor:
        """Scores of all target items, (b,) to (b, n)."""
        return self.target.score_all(*self._users(user))

    def _users(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and biases of users, (B,) to (B, k) and (B,)."""
        has_row = (user <= self.n_overlapped) | (user >= self.first_target_only_user)  # (B,)
        own = self.is_warm[user] | (has_row & self.keeps_random_vector)  # (B,)
        user_e, user_bias = self.target.users(torch.where(own, user, 0))  # (B, k), (B,)
        warm_e, warm_bias = self.target.users(self.warm_users)  # (w, k), (w,)
        return (
            torch.where(own.unsqueeze(1), user_e, warm_e.mean(0)),
            torch.where(own, user_bias, warm_bias.mean()),
        )
