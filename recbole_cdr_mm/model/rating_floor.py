"""The skeleton of the floors of ratings: fitted in closed form, with a rating distribution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import draw_folds
from recbole_cdr_mm.data.split import overlapped_training_users
from recbole_cdr_mm.layers.calibration import ColdFloor
from recbole_cdr_mm.layers.rating_distribution import RatingDistribution
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import Stage


class RatingFloor(CrossDomainRecommender):
    """A floor whose scores are ratings, and the distribution of a rating given such a score.

    A model says how it is fitted (`fit`) and how it scores (`rate`). The distribution is fitted on
    simulated cold-start users: overlapped training users are cut into folds, and each is scored by
    the floor fitted without the fold's target ratings. With fewer such users than folds there are
    as many folds as users; with fewer than two, all training ratings are scored by the floor that
    is fitted on them, and the distribution is too narrow. Users with target ratings in training
    have the distribution of cold-start users with the same score.

    The mean estimate is the score itself, not the mean of the distribution.
    """

    kind = "floor"
    shared_properties: ClassVar[tuple[str, ...]] = ("rating_distribution", "simulated_users")

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        values = self.distinct_ratings(dataset)
        self.distribution = None if values is None else RatingDistribution(values)

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage in closed form."""

        def fit() -> None:
            fold, n_folds = self.draw_folds(dataset)
            floor = self.fit(dataset, fold, n_folds)
            if self.distribution is not None:
                self.distribution.fit(*_simulated(dataset, fold, n_folds, floor))

        return [Stage(self.final_stage, prepare=fit, validate=validate)]

    @abstractmethod
    def fit(self, dataset: PairDataset, fold: Tensor, n_folds: int) -> ColdFloor:
        """Fit the floor, and say what it would be without the target ratings of each fold.

        Args:
            dataset: The pair; only its training part is read.
            fold: Fold of each user, int64 (U,); n_folds for users in none.
            n_folds: Number of folds; 0 where nothing is simulated.
        """

    def draw_folds(self, dataset: PairDataset) -> tuple[Tensor, int]:
        """Folds of simulated cold-start users (U,), and their number; 0 where none are needed."""
        pair, split = dataset.pair, dataset.split
        n_users = len(overlapped_training_users(pair, split))
        if self.distribution is None or n_users < 2:
            return torch.zeros(pair.n_users, dtype=torch.int64), 0
        n_folds = min(self.config["simulation_folds"], n_users)
        return draw_folds(pair, split, n_folds, self.config["seed"]), n_folds

    @property
    def rating_values(self) -> Tensor | None:
        """The distinct target ratings in training (V,); see `distinct_ratings`."""
        return None if self.distribution is None else self.distribution.values

    def rating_probabilities(self, user: Tensor, item: Tensor) -> Tensor:
        """Probabilities of the rating values, given the score, (B, V)."""
        assert self.distribution is not None  # asked of models with `rating_values` alone
        return self.distribution.probabilities(self.rate(user, item))


def _simulated(
    dataset: PairDataset, fold: Tensor, n_folds: int, floor: ColdFloor
) -> tuple[Tensor, Tensor]:
    """Scores and ratings of the folds' users (n,); of all training rows where there are none."""
    train = dataset.split.train
    user, item = torch.from_numpy(train.user), torch.from_numpy(train.item)
    view = fold[user]  # (N,)
    rows = view < max(n_folds, 1)
    score = floor.item[view[rows], item[rows]] + floor.user[user[rows]]  # (n,)
    return score, torch.from_numpy(train.rating)[rows]
