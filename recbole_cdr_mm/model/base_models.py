"""Base models: what a bridge transfers between. Each scores pairs of user and item vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_cdr_mm.data.pair import DomainName, Pair
from recbole_cdr_mm.layers.initialise import normal_embedding


class MF(nn.Module):
    """Matrix factorisation of one domain: mean + b_u + b_i + u . v, or u . v without biases.

    Ids are those of the pair; the tables hold only the domain's own users and items.

    Args:
        pair: The pair.
        domain: Which of its domains.
        mean: The global mean of the training ratings; read only with `use_bias`.
        config: Gives embedding_size (k), embedding_std and use_bias.
        generator: Draws the initial vectors.
    """

    mean: Tensor

    def __init__(
        self,
        pair: Pair,
        domain: DomainName,
        *,
        mean: float,
        config: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_overlapped = pair.n_overlapped
        self.n_skipped_users = 0 if domain == "source" else pair.n_source_only
        self.item_offset = pair.items(domain).start - 1
        n_items = pair.items(domain).stop - self.item_offset
        n_users = (
            1 + pair.n_overlapped + pair.n_source_only
            if domain == "source"
            else pair.n_users - pair.n_source_only
        )
        size, std = config["embedding_size"], config["embedding_std"]
        self.user_embedding = normal_embedding(n_users, size, std, generator)
        self.item_embedding = normal_embedding(n_items, size, std, generator)
        # Without biases these stay at 0 and are not among the trained parameters.
        self.user_bias = nn.Embedding(n_users, 1, padding_idx=0)
        self.item_bias = nn.Embedding(n_items, 1, padding_idx=0)
        for bias in (self.user_bias, self.item_bias):
            nn.init.zeros_(bias.weight)
            bias.weight.requires_grad_(config["use_bias"])
        self.register_buffer("mean", torch.tensor(mean if config["use_bias"] else 0.0))

    def user_row(self, user: Tensor) -> Tensor:
        """Rows of the user tables; users of the other domain alone have none."""
        return torch.where(user > self.n_overlapped, user - self.n_skipped_users, user)

    def item_row(self, item: Tensor) -> Tensor:
        """Rows of the item tables."""
        return item - self.item_offset

    def user_e(self, user: Tensor) -> Tensor:
        """User vectors, (B,) to (B, k)."""
        return self.user_embedding(self.user_row(user))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score pairs, (B,) and (B,) to (B,)."""
        return self.score(self.user_e(user), self.user_bias(self.user_row(user)).squeeze(1), item)

    def score(self, user_e: Tensor, user_bias: Tensor, item: Tensor) -> Tensor:
        """Score items for users given by their vectors.

        Args:
            user_e: User vectors (B, k).
            user_bias: User biases (B,).
            item: Item ids (B,).

        Returns:
            Scores (B,).
        """
        item_row = self.item_row(item)  # (B,)
        dot = (user_e * self.item_embedding(item_row)).sum(1)  # (B,)
        return self.mean + user_bias + self.item_bias(item_row).squeeze(1) + dot

    def squared_norm(self, user: Tensor, item: Tensor) -> Tensor:
        """Mean over a batch of the squared norms of its vectors and biases, a scalar."""
        user_row, item_row = self.user_row(user), self.item_row(item)
        tables = (
            (self.user_embedding, user_row),
            (self.user_bias, user_row),
            (self.item_embedding, item_row),
            (self.item_bias, item_row),
        )
        return torch.stack([table(rows).square().sum(1).mean() for table, rows in tables]).sum()

    @property
    def trained(self) -> tuple[nn.Parameter, ...]:
        """The parameters that training moves."""
        return tuple(p for p in self.parameters() if p.requires_grad)
