"""Scores of users with all items of a domain: some users at a time, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_SCORES_AT_ONCE = 1 << 20


def score_all_pairs(
    score: Callable[[Tensor, Tensor], Tensor], user: Tensor, item: Tensor
) -> Tensor:
    """Score each of the users with each of the items, about a million pairs at a time.

    Args:
        score: Scores pairs, int64 (N,) and (N,) to (N,).
        user: User ids, int64 (b,).
        item: Item ids, int64 (n,).

    Returns:
        Scores (b, n).
    """
    parts = []
    for rows in _user_slices(len(user), len(item)):
        users = user[rows]  # (b',)
        pairs = users.repeat_interleave(len(item)), item.repeat(len(users))  # (b' n,), (b' n,)
        parts.append(score(*pairs).view(len(users), -1))
    return torch.cat(parts)


def log_normalisers(scores: Callable[[slice], Tensor], n_users: int, n_items: int) -> Tensor:
    """Logs of a softmax's denominators, sum_i exp(score(u, i)), for each user, (b,).

    Scores are computed again for the gradient, and never kept for more than some of the users.

    Args:
        scores: Scores of a slice of the users with all items, to (b', n).
        n_users: Number of users, b.
        n_items: Number of items, n.
    """

    def part(users: slice) -> Tensor:
        return scores(users).logsumexp(1)

    parts = [
        checkpoint(part, users, use_reentrant=False, preserve_rng_state=False)
        for users in _user_slices(n_users, n_items)
    ]
    return torch.cat(parts)


def _user_slices(n_users: int, n_items: int) -> Iterator[slice]:
    """Slices of the users whose scores fit into memory at once."""
    step = max(1, _SCORES_AT_ONCE // n_items)
    for start in range(0, n_users, step):
        yield slice(start, start + step)
