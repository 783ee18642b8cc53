"""GlobalMean: the mean of all target ratings in training. The floor of floors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.layers.calibration import ColdFloor
from recbole_cdr_mm.model.floors import cross_fitted
from recbole_cdr_mm.model.rating_floor import RatingFloor


class GlobalMean(RatingFloor):
    """One rating for all: the mean target rating. On Amazon's skewed stars it is a serious number.

    Source: none.

    Deviations: none.
    """

    final_stage = "mean"
    mean: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.register_buffer("mean", torch.tensor(0.0))

    def fit(self, dataset: PairDataset, fold: Tensor, n_folds: int) -> ColdFloor:
        """The mean, for every item."""

        def means(rows: Ratings) -> Tensor:
            mean = rows.rating.mean(dtype=float)
            return torch.full((self.n_items,), mean, dtype=torch.float64)

        item = cross_fitted(dataset, fold, n_folds, means)  # (F + 1, I)
        self.mean.copy_(item[-1, 0])
        return ColdFloor(item, torch.zeros(self.n_users, dtype=torch.float64))

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The mean for every pair, (B,)."""
        return self.mean.expand(len(user))
