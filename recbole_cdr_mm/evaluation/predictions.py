"""What a run predicted for its test rows, as `save_predictions` writes it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.pair import Ratings

Columns = dict[str, NDArray]
_CELLS_AT_ONCE = 1 << 22


def prediction_columns(dataset: PairDataset, measured: Mapping[str, NDArray]) -> Columns:
    """Name what was measured by its tokens, and describe its items and users.

    Args:
        dataset: The pair, loaded with `save_predictions`.
        measured: What the trainer measured last. Rating: `user`, `item`, `rating`, `prediction`
            and, with a distribution, the estimates (N,), which are kept. Ranking: `user` (n,) and
            `recommended` (n, K), the ids of the first K items.

    Returns:
        For each of the N test ratings (ranking: positives) `user`, `item`, `rating`,
        `item_ratings` (of the item in training) and `prediction`, in stars (ranking: `rank`, 1 to
        K, or 0 for an item that is not among the first K). For each of the n test users that have
        such rows `users`, `history_length`, `generosity` and `mainstream` (see `UserProfiles`),
        and in ranking `recommended` (n, K). Users and items are tokens.
    """
    users, first = np.unique(measured["user"], return_index=True)
    if "recommended" in measured:
        rows = _once(dataset.split.test)
        recommended = measured["recommended"][first]  # (n, K)
        place = np.searchsorted(users, rows.user)  # (N,)
        columns: Columns = {"user": rows.user, "item": rows.item, "rating": rows.rating}
        columns["rank"] = _ranks(recommended, place, rows.item)
    else:
        columns = dict(measured)
        recommended = None
    counts = np.bincount(dataset.split.train.item, minlength=dataset.pair.n_items)
    columns["item_ratings"] = counts[columns["item"]]
    user_token, item_token = _texts(dataset.pair.user_tokens), _texts(dataset.pair.item_tokens)
    columns["user"], columns["item"] = user_token[columns["user"]], item_token[columns["item"]]
    columns["users"] = user_token[users]
    profiles = dataset.profiles
    columns["history_length"] = profiles.history_length[users]
    columns["generosity"] = profiles.generosity[users]
    columns["mainstream"] = profiles.mainstream[users]
    if recommended is not None:
        columns["recommended"] = item_token[recommended]
    return columns


def _once(positives: Ratings) -> Ratings:
    """Each user's items once, as rankings are measured."""
    pairs = np.column_stack([positives.user, positives.item])
    _, first = np.unique(pairs, axis=0, return_index=True)
    return positives.in_order(np.sort(first))


def _texts(tokens: NDArray) -> NDArray[np.str_]:
    """Tokens as NumPy's own strings, which a file holds without pickling."""
    return tokens.astype(str)


def _ranks(
    recommended: NDArray[np.int64], place: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Places, from 1, of items (N,) in the lists (n, K) that `place` (N,) names; 0 if absent."""
    ranks = np.zeros(len(item), dtype=np.int64)
    at_once = max(1, _CELLS_AT_ONCE // recommended.shape[1])
    for start in range(0, len(item), at_once):
        rows = slice(start, start + at_once)
        is_here = recommended[place[rows]] == item[rows, None]  # (b, K)
        ranks[rows] = np.where(is_here.any(1), is_here.argmax(1) + 1, 0)
    return ranks
