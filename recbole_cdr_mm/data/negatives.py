"""Negative items for ranking losses: drawn evenly from a domain, never a known positive."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_cdr_mm.data.pair import Ratings

_ROUNDS = 20


class NegativeSampler:
    """Draw items that a user has not rated.

    Args:
        ratings: The domain's training rows: what is never drawn for the same user.
        first_item: Lowest item id of the domain.
        end_item: One past the highest.
        device: Where ids come from and go to.
    """

    def __init__(
        self, ratings: Ratings, first_item: int, end_item: int, device: torch.device
    ) -> None:
        self._first, self._end = first_item, end_item
        keys = self._key(torch.from_numpy(ratings.user), torch.from_numpy(ratings.item))
        self._known = torch.unique(keys).to(device)  # sorted

    def draw(self, user: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one item for each of the users, int64 (B,) to (B,).

        A user who has rated nearly everything may keep a known item after 20 draws.
        """
        item = self._draw(user, generator)
        for _ in range(_ROUNDS):
            known = torch.isin(self._key(user, item), self._known, assume_unique=False)
            if not known.any():
                break
            item = torch.where(known, self._draw(user, generator), item)
        return item

    def _draw(self, user: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(user),)
        return torch.randint(self._first, self._end, shape, generator=generator).to(user.device)

    def _key(self, user: Tensor, item: Tensor) -> Tensor:
        return user * self._end + item
