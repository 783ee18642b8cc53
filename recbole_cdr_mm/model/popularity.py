"""Popularity: the number of an item's target ratings in training. The floor of ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import Stage


class Popularity(CrossDomainRecommender):
    """The most rated target items first, the same for everybody.

    With `eval_task: ranking` only positives are in training, so these are counted.

    Source: none.

    Deviations from RecBole's Pop, which counts items of training batches, sampled negatives among
    them: this counts ratings, once each.
    """

    eval_tasks: ClassVar[tuple[str, ...]] = ("ranking",)
    kind = "floor"
    final_stage = "count"
    count: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("count", torch.zeros(self.n_items))

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage in closed form."""

        def fit() -> None:
            item = torch.from_numpy(dataset.split.train.item)
            self.count.copy_(torch.bincount(item, minlength=self.n_items))

        return [Stage(self.final_stage, prepare=fit, validate=validate)]

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The items' counts, (B,)."""
        return self.count[item]
