"""Initial weights drawn from a generator that is handed in, never from global state."""

from __future__ import annotations

import torch
from torch import nn


def xavier_linear(
    n_in: int, n_out: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """A linear layer with Xavier-uniform weights and a bias of zero."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def normal_embedding(
    n_rows: int, embedding_size: int, std: float, generator: torch.Generator
) -> nn.Embedding:
    """An embedding table drawn from N(0, std), with row 0 as zero padding."""
    table = nn.Embedding(n_rows, embedding_size, padding_idx=0)
    with torch.no_grad():
        table.weight.normal_(0.0, std, generator=generator)
        table.weight[0] = 0.0
    return table
