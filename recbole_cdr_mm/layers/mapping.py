"""One mapping function for all users, from the source vectors to the target vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_cdr_mm.layers.initialise import seeded_linear


class MappingFunction(nn.Module):
    """f: u -> u A, or an MLP with one hidden layer of tanh.

    Args:
        embedding_size: k.
        hidden_size: Hidden units of the MLP; None: a linear map without a bias.
        generator: Draws the initial weights.
        start_at_zero: Begin with a map to 0, so that a model which adds the mapped vector to a
            floor starts at the floor.

    Source: EMCDR (Man et al., IJCAI 2017), linear and multi-layer perceptron mapping; the linear
    map without a bias as in PTUPCDR's public code.

    Deviations: none known. The paper itself was not at hand; tanh between the layers is what
    RecBole-CDR has.
    """

    def __init__(
        self,
        embedding_size: int,
        hidden_size: int | None,
        generator: torch.Generator,
        *,
        start_at_zero: bool,
    ) -> None:
        super().__init__()
        self.hidden: nn.Linear | None = None
        if hidden_size is not None:
            self.hidden = seeded_linear(embedding_size, hidden_size, generator)
        self.output = seeded_linear(
            hidden_size or embedding_size, embedding_size, generator, bias=hidden_size is not None
        )
        if start_at_zero:
            for parameter in self.output.parameters():
                nn.init.zeros_(parameter)

    def forward(self, vector: Tensor) -> Tensor:
        """Map vectors, float32 (B, k) to (B, k)."""
        if self.hidden is not None:
            vector = torch.tanh(self.hidden(vector))  # (B, h)
        return self.output(vector)  # (B, k)
