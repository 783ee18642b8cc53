"""Users as the sum of what is known of their source items."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Scale = Literal["sum", "root", "unit"]

_ITEMS_AT_ONCE = 1 << 16
_PAIRS_AT_ONCE = 1 << 15
_POWER_ITERATIONS = 4
_DIRECTIONS_AT_ONCE = 64


class HistoryProfile(nn.Module):
    """The vectors of a user's source items, added up and scaled.

    With item vectors that are the rows of an identity matrix, or of a basis of the users' rows,
    `sum` is the user's row of the source domain itself, and `root` that row at unit length.

    Args:
        n_items: Source items with the padding row.
        size: p, of an item's vector.
        scale: `sum`: as it is; `root`: divided by the square root of the number of items; `unit`:
            to length 1.
        is_kept: Whether checkpoints hold the items' vectors.
    """

    item_e: Tensor

    def __init__(self, n_items: int, size: int, scale: Scale, *, is_kept: bool = True) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("item_e", torch.zeros(n_items, size), persistent=is_kept)

    def forward(self, item: Tensor, row: Tensor, n_rows: int) -> Tensor:
        """Add up ragged histories.

        Args:
            item: Items of the histories of all users laid end to end, int64 (N,).
            row: Which user of the batch each belongs to, int64 (N,).
            n_rows: Users of the batch, B.

        Returns:
            Profiles (B, p); zeros for empty histories.
        """
        total = self.item_e.new_zeros(n_rows, self.item_e.shape[1])
        for part in torch.arange(len(item), device=item.device).split(_ITEMS_AT_ONCE):
            total.index_add_(0, row[part], self.item_e[item[part]])  # (B, p)
        if self.scale == "sum":
            return total
        if self.scale == "unit":
            return nn.functional.normalize(total)
        count = torch.bincount(row, minlength=n_rows).clamp(min=1)  # (B,)
        return total / count.sqrt().unsqueeze(1)


def row_basis(rows: Tensor, rank: int, seed: int) -> Tensor:
    """An orthonormal basis of the space that sparse rows span, or of its main directions.

    Args:
        rows: Sparse (n, m), float64; they may be none.
        rank: r, the most directions that are kept. With n <= r the basis is exact; else it comes
            from a randomised singular value decomposition.
        seed: Of what that draws.

    Returns:
        Directions as columns, float32 (m, r); columns of zeros where there are fewer directions.

    Source: Halko, Martinsson and Tropp. "Finding Structure with Randomness." SIAM Review, 2011,
    algorithms 4.4 and 5.1.

    Deviations: bases are made orthonormal on the side of the rows alone; the last step does it on
    the side of the directions.
    """
    n, m = rows.shape
    if n <= rank:
        spanning = torch.eye(n, dtype=rows.dtype)
    else:
        drawn = torch.Generator().manual_seed(seed)
        spanning = torch.randn(n, min(rank, m), generator=drawn, dtype=rows.dtype)  # (n, r)
        for _ in range(_POWER_ITERATIONS):
            spanning, _ = torch.linalg.qr(_times_gram(rows, spanning))
    energy, vectors = torch.linalg.eigh(spanning.T @ _times_gram(rows, spanning))
    kept = energy > 1e-9 * energy.sum()
    directions = spanning @ (vectors[:, kept] / energy[kept].sqrt())  # (n, r)
    basis = torch.zeros(m, rank)
    for columns in torch.arange(directions.shape[1]).split(_DIRECTIONS_AT_ONCE):
        basis[:, columns] = (rows.T @ directions[:, columns]).float()
    return basis


def _times_gram(rows: Tensor, spanning: Tensor) -> Tensor:
    """(rows rows^T) spanning, (n, r); what is as long as the items (m) is made in parts."""
    return torch.cat([rows @ (rows.T @ part) for part in spanning.split(_DIRECTIONS_AT_ONCE, 1)], 1)


def score_profiles(profile: Tensor, weight: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """Multiply profiles with the weights of items, by one product of all where that is faster.

    Args:
        profile: Of b users (b, p).
        weight: Of I items (I, p).
        row: Whose profile, int64 (B,).
        item: Which item's weights, int64 (B,).

    Returns:
        (B,).
    """
    if len(row) >= 0.5 * len(profile) * len(weight):
        return (profile @ weight.T)[row, item]
    parts = torch.arange(len(row), device=row.device).split(_PAIRS_AT_ONCE)
    return torch.cat([(profile[row[part]] * weight[item[part]]).sum(1) for part in parts])
