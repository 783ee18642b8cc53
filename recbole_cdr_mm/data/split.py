"""The cold-start split: whole users, whose target ratings are all hidden from training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_cdr_mm.data.pair import Pair, Ratings
from recbole_cdr_mm.errors import ConfigError


@dataclass(frozen=True, eq=False)
class ColdStartSplit:
    """The target ratings of a pair, split by users.

    Attributes:
        test_users: Ids of the test users, sorted.
        valid_users: Ids of the validation users, sorted.
        train: Target ratings of all other users.
        valid: Target ratings of the validation users.
        test: Target ratings of the test users.
    """

    test_users: NDArray[np.int64]
    valid_users: NDArray[np.int64]
    train: Ratings
    valid: Ratings
    test: Ratings

    @property
    def unseen_test_items(self) -> int:
        """Items of test ratings without a single target rating in training."""
        return len(np.setdiff1d(self.test.item, self.train.item))

    def at_least(self, threshold: float) -> ColdStartSplit:
        """The same users, with only the ratings of `threshold` or more."""
        parts = (part.at_least(threshold) for part in (self.train, self.valid, self.test))
        return ColdStartSplit(self.test_users, self.valid_users, *parts)


def split_cold_start(
    pair: Pair, *, test_user_ratio: float, valid_user_ratio: float, split_seed: int
) -> ColdStartSplit:
    """Choose test users, then validation users among the remaining overlapped users.

    Args:
        pair: The pair to split; nothing of it is changed.
        test_user_ratio: Share of the overlapped users, in (0, 1).
        valid_user_ratio: Share of the overlapped users that are not test users, in [0, 1).
        split_seed: Draws the users. The draw depends on nothing else of a run.

    Raises:
        ConfigError: If a ratio leaves nobody to test, to validate on or to train on.
    """
    users = np.random.default_rng(split_seed).permutation(pair.overlapped_users)
    n_test = round(test_user_ratio * len(users))
    n_valid = round(valid_user_ratio * (len(users) - n_test))
    too_few = {
        "test": n_test < 1,
        "validation": valid_user_ratio > 0 and n_valid < 1,
        "training": n_test + n_valid >= len(users),
    }
    for kind, empty in too_few.items():
        if empty:
            raise ConfigError(
                f"test_user_ratio {test_user_ratio} and valid_user_ratio {valid_user_ratio} leave"
                f" no {kind} user of {len(users)} overlapped users. Change the ratios, or take a"
                " pair with more overlapped users."
            )
    test_users = np.sort(users[:n_test])
    valid_users = np.sort(users[n_test : n_test + n_valid])
    is_test = np.isin(pair.target.user, test_users)
    is_valid = np.isin(pair.target.user, valid_users)
    return ColdStartSplit(
        test_users,
        valid_users,
        train=pair.target.where(~is_test & ~is_valid),
        valid=pair.target.where(is_valid),
        test=pair.target.where(is_test),
    )
