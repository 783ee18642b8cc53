"""Side features as item vectors: projected texts and images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_cdr_mm.layers.initialise import seeded_linear


class FeatureProjection(nn.Module):
    """Project side features to the embedding size; items without any share one learned vector.

    Args:
        features: Text or image features of all items, float32 (I, d); rows that are not known are
            not read. Held as a buffer that is not saved; on the CPU it is the tensor that is given.
        known: Which items have features, bool (I,).
        embedding_size: k.
        generator: Draws the initial weights.

    Source: MetaMMCDR, Eq. 1 gives the text features.

    Deviations: the paper names no layer between text features of size d and p_u of size k; here it
    is a linear one. Features are divided by their root mean square over the items that have them,
    for a sum over tokens has a scale far from 1.
    """

    features: Tensor
    scale: Tensor
    known: Tensor

    def __init__(
        self, features: Tensor, known: Tensor, embedding_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        lengths = torch.linalg.vector_norm(features, dim=1)[known]  # (n,)
        numbers = known.sum() * features.shape[1]
        scale = torch.linalg.vector_norm(lengths).div(numbers.sqrt()).clamp(min=1e-12)
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("known", known, persistent=False)
        self.linear = seeded_linear(features.shape[1], embedding_size, generator)
        self.missing = nn.Parameter(torch.zeros(embedding_size))

    def forward(self, item: Tensor) -> Tensor:
        """Project the features of items.

        Args:
            item: Item ids, int64 (N,); an id that stands there often is projected once.

        Returns:
            Vectors, float32 (N, k).
        """
        unique, place = torch.unique(item, return_inverse=True)
        weight = self.linear.weight / self.scale  # (k, d), which is smaller than the features
        projected = nn.functional.linear(self.features[unique], weight, self.linear.bias)  # (n, k)
        vectors = torch.where(self.known[unique].unsqueeze(1), projected, self.missing)  # (n, k)
        # Indexing adds gradients up in the order in which threads come by; this does not.
        return vectors.index_select(0, place)  # (N, k)
