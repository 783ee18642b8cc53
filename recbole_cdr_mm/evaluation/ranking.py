"""Full sort over the target items, without favour for low ids."""

from __future__ import annotations

import torch
from torch import Tensor

_RELATIVE = 1e-9  # far below the spacing of float32, 6e-8 of a number
_ABSOLUTE = 1e-46  # below the smallest positive float32, 1.4e-45: parts zeros alone


def target_items_only(scores: Tensor, first_target_item: int) -> Tensor:
    """Take padding and source items out of the ranking.

    Args:
        scores: Scores of all items, (B, I).
        first_target_item: Lowest id of a target item; those from it on are the candidates.

    Returns:
        The scores, -inf for what is no candidate, (B, I).
    """
    scores[:, :first_target_item] = -torch.inf
    return scores


def break_ties(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Order equal scores at random, and leave the order of different ones.

    Args:
        scores: float32 (B, I); may hold -inf.
        generator: Draws the order of ties.

    Returns:
        float64 (B, I), in the order of `scores`: the noise is smaller than the difference of any
        two float32 numbers.
    """
    noise = torch.rand(scores.shape, generator=generator, dtype=torch.float64).to(scores.device)
    scores = scores.float().double()
    return torch.where(scores.isinf(), scores, scores * (1 + _RELATIVE * noise) + _ABSOLUTE * noise)
