"""Losses on scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def squared_error(score: Tensor, rating: Tensor) -> Tensor:
    """Mean squared error of ratings, (B,) and (B,) to a scalar."""
    return F.mse_loss(score, rating)


def bayesian_personalised_ranking(positive: Tensor, negative: Tensor) -> Tensor:
    """BPR: mean of -log sigmoid(positive - negative), (B,) and (B,) to a scalar.

    Source: Rendle et al. "BPR: Bayesian Personalized Ranking from Implicit Feedback." UAI 2009.
    """
    return -F.logsigmoid(positive - negative).mean()
