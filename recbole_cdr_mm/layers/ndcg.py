"""NDCG of rankings that are held as scores."""

from __future__ import annotations

import torch
from torch import Tensor


def ndcg(scores: Tensor, positive: Tensor, places: int) -> Tensor:
    """Normalised discounted cumulative gain of the first places, as RecBole has it.

    Args:
        scores: Of all items (B, I).
        positive: 1 for a positive, else 0, (B, I); each user has one.
        places: How many places count; all where there are fewer items.

    Returns:
        Of each user (B,).

    Source: Jarvelin and Kekalainen. "Cumulated Gain-Based Evaluation of IR Techniques." TOIS, 2002.

    >>> ndcg(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0]]), 2)
    tensor([0.3869])
    """
    places = min(places, scores.shape[1])
    discount = 1 / torch.arange(2, places + 2, device=scores.device).log2()  # (places,)
    gain = positive.gather(1, scores.topk(places).indices) @ discount  # (B,)
    n_first = positive.sum(1).long().clamp(max=places)  # (B,)
    return gain / discount.cumsum(0)[n_first - 1]
