"""Initial weights drawn from a generator that is handed in, never from global state."""

from __future__ import annotations

import torch
from torch import nn


def seeded_linear(
    n_in: int, n_out: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """A linear layer as torch draws it, U(-b, b) with b = 1 / sqrt(n_in), from a given generator.

    Args:
        n_in: Size of the input.
        n_out: Size of the output.
        generator: Draws weights and bias.
        bias: Whether there is a bias.
    """
    layer = nn.Linear(n_in, n_out, bias=bias)
    bound = n_in**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
