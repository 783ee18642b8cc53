"""CalibratedTransfer: BiasTransfer with weights fitted on simulated cold-start users."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import draw_folds
from recbole_cdr_mm.layers.calibration import ColdFloor
from recbole_cdr_mm.model.floors import fit_domain_biases, fit_floor
from recbole_cdr_mm.model.rating_floor import RatingFloor


class CalibratedTransfer(RatingFloor):
    """a + b (mean + b_i) + c b_u for cold-start users, with b_u of the source domain.

    a, b and c are fitted on overlapped training users cut into folds: for each fold the target
    statistics are computed without its users' target ratings (cross-fitting), so that the rows
    fitted on look like those of users who are really new. For users with target ratings in
    training it is mean + b_i + b_u, all of the target domain.

    Source: none.

    Deviations: none.
    """

    final_stage = "calibration"
    item_part: Tensor
    user_part: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        # Row 0 for cold-start users, row 1 for users with target ratings in training.
        self.register_buffer("item_part", torch.zeros(2, self.n_items))
        self.register_buffer("user_part", torch.zeros(self.n_users))

    def draw_folds(self, dataset: PairDataset) -> tuple[Tensor, int]:
        """Folds of simulated cold-start users (U,), and their number, which the floor itself needs.

        Raises:
            ConfigError: If there are fewer such users than folds.
        """
        n_folds = self.config["simulation_folds"]
        return draw_folds(dataset.pair, dataset.split, n_folds, self.config["seed"]), n_folds

    def fit(self, dataset: PairDataset, fold: Tensor, n_folds: int) -> ColdFloor:
        """The biases of both domains, and the weights."""
        floor = fit_floor(dataset, fold, n_folds, self.config)
        self.logger.info("CalibratedTransfer: a %.4f, b %.4f, c %.4f", *floor.weights)
        target = fit_domain_biases(dataset.split.train, dataset.pair, self.config)
        self.item_part.copy_(torch.stack([floor.item[-1], target.mean + target.item]))
        self.user_part.copy_(torch.where(self.is_warm.cpu(), target.user, floor.user))
        return floor

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """Item part and user part, (B,)."""
        return self.item_part[self.is_warm[user].long(), item] + self.user_part[user]
