"""Negative items for ranking losses: drawn evenly from a domain, never a known positive."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_cdr_mm.data.pair import Ratings


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
        self._first, self._n = first_item, end_item - first_item
        user = torch.from_numpy(ratings.user)
        item = torch.from_numpy(ratings.item) - first_item
        known = torch.unique(user * self._n + item)  # sorted by user, then item
        user, item = known // self._n, known % self._n
        place = torch.arange(len(known)) - torch.searchsorted(user, user)  # 0 for the first item
        # Before its j-th known item a user has item - j unknown ones.
        self._user = user.to(device)
        self._unknown_before = (user * (self._n + 1) + item - place).to(device)

    def draw(self, user: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one item for each of the users, who may be there repeatedly, int64 of any shape.

        A user who has rated all items of the domain gets any of them.
        """
        start = torch.searchsorted(self._user, user)
        unknown = self._n - (torch.searchsorted(self._user, user, right=True) - start)
        choices = torch.where(unknown > 0, unknown, self._n)
        share = torch.rand(user.shape, generator=generator, dtype=torch.float64).to(user.device)
        drawn = torch.minimum((share * choices).long(), choices - 1)  # place among the unknown
        key = user * (self._n + 1) + drawn
        skipped = torch.searchsorted(self._unknown_before, key, right=True) - start
        return self._first + torch.where(unknown > 0, drawn + skipped, drawn)
