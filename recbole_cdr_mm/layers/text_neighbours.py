"""Items that nobody has rated, as a mean of rated ones with similar texts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_ITEMS_AT_ONCE = 1024


def centred_texts(features: Tensor, known: Tensor) -> Tensor:
    """Text features at unit length, centred over the items that have any, and at unit length again.

    Args:
        features: (I, d).
        known: Which items have texts, bool (I,).

    Returns:
        (I, d); zeros for items without texts.
    """
    texts = normalize(features)
    texts = normalize(texts - texts[known].mean(0))
    return torch.where(known.unsqueeze(1), texts, 0.0)


def mean_of_neighbours(
    query: Tensor, texts: Tensor, values: Tensor, *, n_neighbours: int
) -> Tensor:
    """Average values over the items whose texts are nearest.

    Args:
        query: Texts of the items to fill in, unit length or zero, (Q, d).
        texts: Texts of the items with values, unit length or zero, (N, d).
        values: (N, p).
        n_neighbours: How many neighbours count, with the cube of their cosine (0 if negative).

    Returns:
        (Q, p); the mean over all items where no text is similar.

    >>> t = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> mean_of_neighbours(t[:1], t, torch.tensor([[2.0], [4.0]]), n_neighbours=2)
    tensor([[2.]])
    """
    filled = values.mean(0).repeat(len(query), 1)  # (Q, p)
    for rows in torch.arange(len(query), device=query.device).split(_ITEMS_AT_ONCE):
        nearest = (query[rows] @ texts.T).topk(min(n_neighbours, len(texts)))  # (b, n)
        weight = nearest.values.clamp(min=0) ** 3  # (b, n)
        total = weight.sum(1, keepdim=True)  # (b, 1)
        mean = torch.einsum("bn,bnp->bp", weight, values[nearest.indices]) / total
        filled[rows] = torch.where(total > 0, mean, filled[rows])
    return filled
