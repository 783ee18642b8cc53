"""Histories as ragged arrays: each user's rows laid end to end, never padded to the longest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_cdr_mm.data.pair import Ratings


@dataclass(frozen=True, eq=False)
class Histories:
    """Source histories of all users in CSR form.

    Attributes:
        start: Where each user's rows begin, int64 (U + 1,); those of user u end before
            start[u + 1].
        item: Item ids of all rows, int64 (N,), each user's in the order of time.
        rating: Their ratings, float32 (N,).
    """

    start: Tensor
    item: Tensor
    rating: Tensor

    def of(self, user: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lay the histories of a batch of users end to end.

        Args:
            user: User ids, int64 (B,).

        Returns:
            item: Item ids, int64 (N,).
            rating: Ratings, float32 (N,).
            row: Which of the B users each of the N rows belongs to, int64 (N,), ascending. A user
                with an empty history has none.
        """
        first, length = self.start[user], self.start[user + 1] - self.start[user]  # (B,), (B,)
        row = torch.repeat_interleave(torch.arange(len(user), device=user.device), length)  # (N,)
        offset = torch.cumsum(length, 0) - length  # (B,)
        within = torch.arange(len(row), device=user.device) - offset[row]  # (N,)
        position = first[row] + within  # (N,)
        return self.item[position], self.rating[position], row

    def draw(self, user: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an item of each user's history, int64 (B,) to (B,); 0 where it is empty."""
        if not len(self.item):
            return torch.zeros_like(user)
        length = self.start[user + 1] - self.start[user]  # (B,)
        share = torch.rand(len(user), generator=generator, dtype=torch.float64).to(user.device)
        place = torch.minimum((share * length).long(), length - 1)  # (B,); -1 where it is empty
        drawn = self.item[(self.start[user] + place).clamp(min=0)]  # (B,)
        return torch.where(length > 0, drawn, 0)

    def to(self, device: torch.device) -> Histories:
        """The same histories on another device."""
        return Histories(self.start.to(device), self.item.to(device), self.rating.to(device))


def build_histories(ratings: Ratings, n_users: int, *, last: int | None = None) -> Histories:
    """Group ratings by user.

    Args:
        ratings: Rows ordered by user and time, as `Pair` holds them.
        n_users: Users with the padding row.
        last: Keep only each user's last so many rows; None keeps all.

    Returns:
        The histories; users without ratings have empty ones.
    """
    length = np.bincount(ratings.user, minlength=n_users)
    end = np.cumsum(length)
    if last is not None:
        place_from_end = end[ratings.user] - np.arange(len(ratings))  # 1 is the user's last row
        ratings = ratings.where(place_from_end <= last)
        end = np.cumsum(np.minimum(length, last))
    return Histories(
        start=torch.from_numpy(np.concatenate([[0], end])),
        item=torch.from_numpy(ratings.item),
        rating=torch.from_numpy(ratings.rating),
    )
