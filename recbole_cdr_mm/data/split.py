"""The cold-start split: whole users, whose target ratings are all hidden from training."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        unseen_items: Ids of the target items whose ratings are all left out of training, sorted;
            none without `unseen_item_ratio`.
        candidates: Ids of the items that are measured, and ranked in a ranking, sorted: the unseen
            items where there are any, else all target items.
        train: Target ratings of all other users, but for those of unseen items.
        valid: Target ratings of candidates by the validation users; few-shot: those behind their
            pool.
        test: Target ratings of candidates by the test users; likewise.
        aside: First target ratings of test and validation users that few-shot sets aside, neither
            trained on before the initialisation stage nor measured; none without few-shot.
        revealed: Those of them that the initialisation stage may read.
    """

    test_users: NDArray[np.int64]
    valid_users: NDArray[np.int64]
    unseen_items: NDArray[np.int64]
    candidates: NDArray[np.int64]
    train: Ratings
    valid: Ratings
    test: Ratings
    aside: Ratings
    revealed: Ratings

    @property
    def unseen_test_items(self) -> int:
        """Items of test ratings without a single target rating in training."""
        return len(np.setdiff1d(self.test.item, self.train.item))

    def at_least(self, threshold: float) -> ColdStartSplit:
        """The same users, with only the ratings of `threshold` or more."""
        names = ("train", "valid", "test", "revealed")  # what is set aside stays so, liked or not
        return replace(self, **{n: getattr(self, n).at_least(threshold) for n in names})


def overlapped_training_users(pair: Pair, split: ColdStartSplit) -> NDArray[np.int64]:
    """Ids of the users with ratings in both domains who are trained on, sorted, (n,)."""
    return np.intersect1d(pair.overlapped_users, split.train.user)


@dataclass(frozen=True)
class FewShot:
    """How many target ratings of a cold-start user are revealed, and how many are never tested.

    Attributes:
        revealed: Ratings of each user that the initialisation stage may read.
        pool: Ratings of each user that are set aside, those revealed among them. What is tested is
            what lies behind the pool, so it is the same for every number revealed.

    Raises:
        ConfigError: If more are revealed than are set aside.
    """

    revealed: int
    pool: int

    def __post_init__(self) -> None:
        if self.revealed > self.pool:
            raise ConfigError(
                f"`few_shot: {self.revealed}` reveals more ratings of a user than `few_shot_pool:"
                f" {self.pool}` sets aside. Give --few_shot_pool={self.revealed} or more."
            )


def split_cold_start(
    pair: Pair,
    *,
    test_user_ratio: float,
    valid_user_ratio: float,
    split_seed: int,
    few_shot: FewShot | None = None,
    unseen_item_ratio: float = 0.0,
) -> ColdStartSplit:
    """Choose test users, then validation users among the remaining overlapped users.

    With `unseen_item_ratio` the items that are measured are as new as the users: nobody's ratings
    of them are in training, and validation and test hold no others.

    Args:
        pair: The pair to split; nothing of it is changed.
        test_user_ratio: Share of the overlapped users, in (0, 1).
        valid_user_ratio: Share of the overlapped users that are not test users, in [0, 1).
        split_seed: Draws the users and, in streams of their own, whatever else is drawn. The draw
            depends on nothing else of a run.
        few_shot: Sets the first target ratings of each test and validation user aside, by time, or
            in an order drawn by split_seed where the target domain has no timestamps. Not together
            with unseen items.
        unseen_item_ratio: Share of the target items that are unseen, in [0, 1). Those of one ratio
            are among those of any higher one.

    Raises:
        ConfigError: If a ratio leaves nobody or nothing to test, to validate on or to train on, or
            no test or validation user has more ratings than few_shot sets aside.
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
    place = _place_of_rows(pair, split_seed)
    few_shot = few_shot or FewShot(0, 0)
    behind_pool = place >= few_shot.pool
    if few_shot.pool:
        key = pair.target.user * pair.n_items + pair.target.item
        behind_pool &= ~np.isin(key, key[~behind_pool])  # an item of the pool that is rated again
        for kind, rows in {"test": is_test, "validation": is_valid}.items():
            if rows.any() and not (rows & behind_pool).any():
                most = place[rows].max() + 1
                raise ConfigError(
                    f"`few_shot_pool: {few_shot.pool}` leaves no rating to measure: no {kind} user"
                    f" has more than {most} target ratings. Give --few_shot_pool below that, or"
                    " leave `few_shot` out."
                )
    is_measured = np.isin(pair.target.user, pair.target.user[behind_pool])
    aside = (is_test | is_valid) & is_measured & ~behind_pool
    items = pair.items("target")
    target_items = np.arange(items.start, items.stop)
    unseen_items = _draw_unseen_items(target_items, unseen_item_ratio, split_seed)
    candidates = unseen_items if len(unseen_items) else target_items
    is_unseen = np.isin(pair.target.item, unseen_items)
    is_tested = behind_pool & np.isin(pair.target.item, candidates)
    split = ColdStartSplit(
        test_users,
        valid_users,
        unseen_items,
        candidates,
        train=pair.target.where(~is_test & ~is_valid & ~is_unseen),
        valid=pair.target.where(is_valid & is_tested),
        test=pair.target.where(is_test & is_tested),
        aside=pair.target.where(aside),
        revealed=pair.target.where(aside & (place < few_shot.revealed)),
    )
    _check_unseen_items(split, unseen_item_ratio)
    return split


def _draw_unseen_items(
    items: NDArray[np.int64], ratio: float, split_seed: int
) -> NDArray[np.int64]:
    """Ids of the unseen ones among the target items, sorted, (n,)."""
    n_unseen = round(ratio * len(items))
    if ratio and not 0 < n_unseen < len(items):
        what = "to train on" if n_unseen else "unseen"
        raise ConfigError(
            f"unseen_item_ratio {ratio} leaves no item {what} of {len(items)} target items. Change"
            " it, or take a pair with more target items."
        )
    return np.sort(np.random.default_rng([split_seed, 2]).permutation(items)[:n_unseen])


def _check_unseen_items(split: ColdStartSplit, ratio: float) -> None:
    n_unseen = len(split.unseen_items)
    if not n_unseen:
        return
    if not len(split.train):
        raise ConfigError(
            f"unseen_item_ratio {ratio} leaves no rating to train on: all training users' target"
            f" ratings are of the {n_unseen} unseen items. Lower it."
        )
    measured = {"test": (split.test_users, split.test)}
    measured["validation"] = (split.valid_users, split.valid)
    for kind, (users, ratings) in measured.items():
        if len(users) and not len(ratings):
            raise ConfigError(
                f"unseen_item_ratio {ratio} leaves no rating to measure: none of {len(users)}"
                f" {kind} users has rated one of the {n_unseen} unseen items. Raise it, take more"
                f" {kind} users, or another split_seed."
            )


def _place_of_rows(pair: Pair, split_seed: int) -> NDArray[np.int64]:
    """Place of each target row among its user's, int64 (N,): 0 is the first one revealed."""
    user = pair.target.user
    order = np.arange(len(user))  # rows are ordered by user and time
    if "target" not in pair.timestamped:
        # By item and rating, whatever the order of the file.
        by_item = np.lexsort((pair.target.rating, pair.target.item, user))
        drawn = np.random.default_rng([split_seed, 1]).random(len(user))
        order = by_item[np.lexsort((drawn, user[by_item]))]
    first = np.searchsorted(user, user)
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - first
    return place
