"""Fewer overlapped users: people of whom nobody knows that they are the same in both domains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_cdr_mm.data.pair import Pair, Ratings
from recbole_cdr_mm.data.split import ColdStartSplit
from recbole_cdr_mm.errors import ConfigError


def keep_links(
    pair: Pair, split: ColdStartSplit, ratio: float, split_seed: int
) -> tuple[Pair, ColdStartSplit]:
    """Keep the link of some overlapped training users, and make two users of each of the others.

    One of the two is of the source domain only and has the source ratings, the other is of the
    target domain only and has the target ratings. Both domains keep all their ratings. Test and
    validation users stay as they are.

    Args:
        pair: The pair with all links.
        split: Its split.
        ratio: Share of the overlapped training users whose link is kept, in (0, 1]. Those kept at
            one ratio are among those at any higher one.
        split_seed: Draws them, in a stream of its own.

    Returns:
        The pair with fewer overlapped users, and the same split of it.

    Raises:
        ConfigError: If no link of a training user is kept.
    """
    cold = np.concatenate([split.test_users, split.valid_users])
    training = np.setdiff1d(pair.overlapped_users, cold)
    n_linked = round(ratio * len(training))
    if n_linked < 1:
        raise ConfigError(
            f"overlap_ratio {ratio} keeps the link of none of {len(training)} overlapped training"
            " users, so that nothing tells how to transfer. Raise it, or take a pair with more"
            " overlapped users."
        )
    unlinked = np.random.default_rng([split_seed, 3]).permutation(training)[n_linked:]
    linked = np.setdiff1d(pair.overlapped_users, unlinked)
    end_of_source = 1 + pair.n_overlapped + pair.n_source_only
    source_only = _by_token(pair, unlinked, 1 + pair.n_overlapped, end_of_source)
    target_only = _by_token(pair, unlinked, end_of_source, pair.n_users)
    of_source = np.concatenate([[0], linked, source_only])  # the old ids, by new id
    source_id, target_id = np.zeros((2, pair.n_users), dtype=np.int64)  # the new ids, by old id
    source_id[of_source] = np.arange(len(of_source))
    target_id[linked] = source_id[linked]
    target_id[target_only] = len(of_source) + np.arange(len(target_only))
    names = ("train", "valid", "test", "aside", "revealed")
    parts: dict[str, Any] = {n: _renumbered(getattr(split, n), target_id) for n in names}
    return (
        replace(
            pair,
            source=_renumbered(pair.source, source_id),
            target=_renumbered(pair.target, target_id),
            user_tokens=pair.user_tokens[np.concatenate([of_source, target_only])],
            n_overlapped=len(linked),
            n_source_only=len(source_only),
        ),
        replace(
            split,
            test_users=target_id[split.test_users],
            valid_users=target_id[split.valid_users],
            **parts,
        ),
    )


def _by_token(pair: Pair, unlinked: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """The users of one domain only: ids start .. stop - 1 and the unlinked, ordered by token."""
    users = np.concatenate([unlinked, np.arange(start, stop)])
    return users[np.argsort(pair.user_tokens[users])]


def _renumbered(ratings: Ratings, ids: NDArray[np.int64]) -> Ratings:
    """Rows with other user ids, (U,) by the old ones, ordered by user and then as they were."""
    user = ids[ratings.user]
    return replace(ratings, user=user).in_order(np.argsort(user, kind="stable"))
