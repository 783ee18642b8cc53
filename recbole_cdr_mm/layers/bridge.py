"""Personalised bridges: a meta network makes one matrix a user, to map their source vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_cdr_mm.layers.initialise import seeded_linear


class MetaNetwork(nn.Module):
    """Generate a user's bridge from their characteristic: w_u = g(p_u), reshaped to k x k.

    Args:
        embedding_size: k.
        hidden_size: Hidden units of g, a two-layer feed-forward net.
        generator: Draws the initial weights.
        start_at_zero: Begin with bridges that map everything to 0, so that a model which adds the
            bridged vector to a floor starts at the floor.

    Source: MetaMMCDR, Eq. 4; hidden size and ReLU as in PTUPCDR's public code.
    """

    def __init__(
        self,
        embedding_size: int,
        hidden_size: int,
        generator: torch.Generator,
        *,
        start_at_zero: bool,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.hidden = seeded_linear(embedding_size, hidden_size, generator)
        self.output = seeded_linear(hidden_size, embedding_size * embedding_size, generator)
        if start_at_zero:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, characteristic: Tensor) -> Tensor:
        """Generate bridges.

        Args:
            characteristic: p_u, float32 (B, k).

        Returns:
            Bridges W_u, float32 (B, k, k).
        """
        flat = self.output(torch.relu(self.hidden(characteristic)))  # (B, k * k)
        return flat.view(-1, self.embedding_size, self.embedding_size)  # (B, k, k)


def apply_bridge(user_e: Tensor, bridge: Tensor) -> Tensor:
    """Map users' source vectors over their own bridges: u_hat = u W_u (MetaMMCDR, Eq. 5).

    Args:
        user_e: Source vectors (B, k).
        bridge: Bridges (B, k, k).

    Returns:
        Transformed vectors (B, k).

    >>> apply_bridge(torch.tensor([[1.0, 2.0]]), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    tensor([[2., 1.]])
    """
    return torch.bmm(user_e.unsqueeze(1), bridge).squeeze(1)  # (B, k)
