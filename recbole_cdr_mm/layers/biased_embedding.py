"""Tables of users or items: a vector and a bias each, side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BiasedEmbedding(nn.Module):
    """Vectors and biases by row: k numbers drawn from N(0, std), and one more that starts at 0.

    One look-up finds both, and so does the optimiser's step, in which half of the time of training
    a base model is spent. Row 0, which no training row has, is all zeros; it is not torch's
    `padding_idx`, which costs a fourth of a training step.

    Args:
        n_rows: Rows with the padding row.
        embedding_size: k; 0 where there are biases alone.
        std: Standard deviation.
        generator: Draws the vectors.
        use_bias: Whether there are biases; without them they are 0.
    """

    def __init__(
        self,
        n_rows: int,
        embedding_size: int,
        std: float,
        generator: torch.Generator,
        *,
        use_bias: bool,
    ) -> None:
        super().__init__()
        self.sizes = embedding_size, int(use_bias)
        self.rows = nn.Embedding(n_rows, sum(self.sizes))
        self.rows.weight.requires_grad_(sum(self.sizes) > 0)
        with torch.no_grad():
            vector, bias = self.rows.weight.split(self.sizes, dim=1)
            vector.copy_(torch.empty(vector.shape).normal_(0.0, std, generator=generator))
            vector[0] = 0.0
            bias.zero_()

    def forward(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Look rows up.

        Args:
            row: Rows of the table, int64 (B,).

        Returns:
            Vectors (B, k) and biases (B,).
        """
        vector, bias = self.rows(row).split(self.sizes, dim=1)
        return vector, bias.sum(1)  # of one number, or of none
