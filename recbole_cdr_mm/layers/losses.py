"""Losses on scores, one value a row; the caller takes their mean, weighted or not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(score: Tensor, rating: Tensor) -> Tensor:
    """Squared errors of ratings, (B,) and (B,) to (B,)."""
    return F.mse_loss(score, rating, reduction="none")


def bayesian_personalised_ranking(positive: Tensor, negative: Tensor) -> Tensor:
    """BPR: -log sigmoid(positive - negative), (B,) and (B,) to (B,).

    Source: Rendle et al. "BPR: Bayesian Personalized Ranking from Implicit Feedback." UAI 2009.
    """
    return -F.logsigmoid(positive - negative)


def sampled_softmax(positive: Tensor, negative: Tensor) -> Tensor:
    """Cross-entropy of the positive item among itself and negatives, (B,) and (n, B) to (B,).

    -log(exp(positive) / (exp(positive) + sum_n exp(negative_n))): with one negative this is BPR.

    Source: Wu et al. "On the Effectiveness of Sampled Softmax Loss for Item Recommendation." TOIS
    2024.

    Deviations: scores are used as they are, without a temperature.
    """
    return torch.cat([positive.unsqueeze(0), negative]).logsumexp(0) - positive


def margin_ranking(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Hinge loss: max(0, margin - positive + negative), (B,) and (B,) to (B,).

    With scores that are negative squared distances this is the loss of metric learning.

    Source: Hsieh et al. "Collaborative Metric Learning." WWW 2017, without its weights by rank.

    >>> margin_ranking(torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -4.0]), 1.0)
    tensor([0.5000, 0.0000])
    """
    return torch.relu(margin - positive + negative)
