"""What the characteristic encoder reads of an item: its id vector, its text, or both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_cdr_mm.layers.initialise import seeded_linear


class TextProjection(nn.Module):
    """Project text features to the embedding size; items without text share one learned vector.

    Args:
        features: Text features of all items, float32 (I, d). Held as a buffer that is not saved.
        known: Which items have a text, bool (I,).
        embedding_size: k.
        generator: Draws the initial weights.

    Source: MetaMMCDR, Eq. 1 gives the features.

    Deviations: the paper names no layer between text features of size d and p_u of size k; here it
    is a linear one. Features are divided by their root mean square over the items with text, for a
    sum over tokens has a scale far from 1.
    """

    features: Tensor
    known: Tensor

    def __init__(
        self, features: Tensor, known: Tensor, embedding_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        scale = features[known].square().mean().sqrt().clamp(min=1e-12)
        self.register_buffer("features", features / scale, persistent=False)
        self.register_buffer("known", known, persistent=False)
        self.linear = seeded_linear(features.shape[1], embedding_size, generator)
        self.no_text = nn.Parameter(torch.zeros(embedding_size))

    def forward(self, item: Tensor) -> Tensor:
        """Project the texts of items.

        Args:
            item: Item ids, int64 (N,).

        Returns:
            Vectors, float32 (N, k).
        """
        projected = self.linear(self.features[item])  # (N, k)
        return torch.where(self.known[item].unsqueeze(1), projected, self.no_text)  # (N, k)
