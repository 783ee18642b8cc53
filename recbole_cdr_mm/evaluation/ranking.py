"""Full sort over the target items, without favour for low ids."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_cdr_mm.data.pair import Pair
from recbole_cdr_mm.data.split import ColdStartSplit

_RELATIVE = 1e-9  # far below the spacing of float32, 6e-8 of a number
_ABSOLUTE = 1e-46  # below the smallest positive float32, 1.4e-45: parts zeros alone


class Candidates:
    """The items that are ranked for a user.

    They are the split's candidates: the target items or, where there are any, the unseen ones among
    them; but not those that few-shot sets aside.

    Args:
        pair: The pair.
        split: Its split.
        device: Where scores are.
    """

    def __init__(self, pair: Pair, split: ColdStartSplit, device: torch.device) -> None:
        is_other = torch.ones(pair.n_items, dtype=torch.bool)
        is_other[torch.from_numpy(split.candidates)] = False
        self._is_other = is_other.to(device)  # (I,)
        self._n_users = pair.n_users
        self._aside_user = torch.from_numpy(split.aside.user).to(device)
        self._aside_item = torch.from_numpy(split.aside.item).to(device)

    def only(self, scores: Tensor, user: Tensor) -> Tensor:
        """Take everything else out of the ranking.

        Args:
            scores: Scores of all items, (B, I).
            user: The users, int64 (B,), each once.

        Returns:
            The scores, -inf for what is no candidate, (B, I).
        """
        scores.masked_fill_(self._is_other, -torch.inf)
        row_of = torch.full((self._n_users,), -1, device=scores.device)
        row_of[user] = torch.arange(len(user), device=scores.device)
        row = row_of[self._aside_user]
        scores[row[row >= 0], self._aside_item[row >= 0]] = -torch.inf
        return scores


def break_ties(scores: Tensor, noise: Tensor) -> Tensor:
    """Order equal scores at random, and leave the order of different ones.

    Args:
        scores: float32 (B, I); may hold -inf.
        noise: Even random numbers in [0, 1), which order the ties, float64 (B, I).

    Returns:
        float64 (B, I), in the order of `scores`: the noise is smaller than the difference of any
        two float32 numbers.
    """
    noise = noise.to(scores.device)
    factor = noise.mul(_RELATIVE).add_(1)
    return scores.float().double().mul_(factor).add_(noise, alpha=_ABSOLUTE)
