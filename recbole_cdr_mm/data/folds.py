"""Simulated cold-start users: folds of overlapped training users, each cold once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_cdr_mm.data.pair import Pair
from recbole_cdr_mm.data.split import ColdStartSplit, overlapped_training_users
from recbole_cdr_mm.errors import ConfigError


def draw_folds(pair: Pair, split: ColdStartSplit, n_folds: int, seed: int) -> Tensor:
    """Assign each overlapped training user to a fold.

    Args:
        pair: The pair.
        split: Its split; test and validation users are in no fold.
        n_folds: Number of folds.
        seed: Draws the folds.

    Returns:
        Fold of each user, int64 (U,): 0 .. n_folds - 1, and n_folds for users that are in none.

    Raises:
        ConfigError: If there are fewer such users than folds.
    """
    users = overlapped_training_users(pair, split)
    if len(users) < n_folds:
        raise ConfigError(
            f"simulation_folds {n_folds} needs as many overlapped training users; there are"
            f" {len(users)}. Lower it, or the ratios of test and validation users, or raise"
            " overlap_ratio."
        )
    fold = np.full(pair.n_users, n_folds)
    order = np.random.default_rng([seed, n_folds]).permutation(users)
    fold[order] = np.arange(len(users)) % n_folds
    return torch.from_numpy(fold)


@dataclass(frozen=True, eq=False)
class SimulatedUsers:
    """Folds of simulated cold-start users, and whether training meets them as such.

    Attributes:
        fold: Fold of each user, int64 (U,); n_folds for users in none.
        n_folds: F.
        is_met: Whether a user is scored in training without the fold's target ratings; else with
            all, as users are who are really cold.
    """

    fold: Tensor
    n_folds: int
    is_met: bool

    @property
    def met(self) -> Tensor:
        """Which row of F + 1, the last of them with all ratings, a user meets, int64 (U,)."""
        return self.fold if self.is_met else torch.full_like(self.fold, self.n_folds)
