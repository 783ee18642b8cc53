"""The characteristic encoder: attention over a source history (MetaMMCDR, Eq. 2-3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_cdr_mm.layers.initialise import seeded_linear


class CharacteristicEncoder(nn.Module):
    """Pool the items of each user's source history into the characteristic p_u.

    p_u = sum_j a_j v_j, with a = softmax(h(v_j)) over the user's own history, and h a two-layer
    feed-forward net.

    Args:
        embedding_size: k, of the items' vectors and of p_u.
        generator: Draws the initial weights.

    Source: MetaMMCDR, Eq. 2-3.

    Deviations: an empty history gives p_u = 0; the paper is silent.
    """

    def __init__(self, embedding_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = seeded_linear(embedding_size, embedding_size, generator)
        self.logit = seeded_linear(embedding_size, 1, generator, bias=False)

    def forward(self, item_e: Tensor, row: Tensor, n_rows: int) -> Tensor:
        """Pool ragged histories.

        Args:
            item_e: Vectors of the history items of all users laid end to end, float32 (N, k).
            row: Which user of the batch each belongs to, int64 (N,).
            n_rows: Users of the batch, B.

        Returns:
            The characteristics p_u, float32 (B, k).
        """
        logit = self.logit(torch.relu(self.hidden(item_e))).squeeze(1)  # (N,)
        weight = ragged_softmax(logit, row, n_rows)  # (N,)
        weighted = weight.unsqueeze(1) * item_e  # (N, k)
        return weighted.new_zeros(n_rows, item_e.shape[1]).index_add(0, row, weighted)  # (B, k)


def ragged_softmax(logit: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Softmax within each group of rows.

    Args:
        logit: (N,).
        row: Group of each, int64 (N,), below n_rows.
        n_rows: Number of groups.

    Returns:
        Weights (N,) that sum to 1 within each group.

    >>> ragged_softmax(torch.tensor([7.0, 0.0, 0.0]), torch.tensor([0, 2, 2]), 3)
    tensor([1.0000, 0.5000, 0.5000])
    """
    highest = torch.full((n_rows,), -torch.inf, dtype=logit.dtype, device=logit.device)
    highest = highest.scatter_reduce(0, row, logit.detach(), "amax")  # (B,)
    weight = torch.exp(logit - highest[row])  # (N,)
    total = weight.new_zeros(n_rows).index_add(0, row, weight)  # (B,); exp may be in float32
    return weight / total.index_select(0, row)
