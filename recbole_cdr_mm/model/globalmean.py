"""GlobalMean: the mean of all target ratings in training. The floor of floors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import Stage


class GlobalMean(CrossDomainRecommender):
    """One rating for all: the mean target rating. On Amazon's skewed stars it is a serious number.

    Source: none.

    Deviations: none.
    """

    kind = "floor"
    final_stage = "mean"
    mean: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("mean", torch.tensor(0.0))

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage in closed form."""

        def fit() -> None:
            self.mean.fill_(dataset.split.train.rating.mean(dtype=float))

        return [Stage(self.final_stage, prepare=fit, validate=validate)]

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The mean for every pair, (B,)."""
        return self.mean.expand(len(user))
