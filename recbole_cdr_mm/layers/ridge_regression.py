"""Ridge regressions of many columns on the same features, and what they say of left-out rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RidgeRegression:
    """Features of training rows, centred and rotated so that their columns are orthogonal.

    One decomposition serves all penalties and all columns to explain. With intercept m and penalty
    l, in units of a row's mean squared length t, the weights of the rotated features f are
    (F' F + l t)^-1 F' Y, where F' F is diagonal.

    Attributes:
        centre: Mean of the features (p,).
        rotation: (p, r).
        features: F, of the training rows (n, r).
        energy: Squared lengths of F's columns (r,).

    Source: Hastie, Tibshirani and Friedman. "The Elements of Statistical Learning", 3.4.1 (ridge
    regression by singular values) and 7.10 (leaving one row out in closed form).
    """

    centre: Tensor
    rotation: Tensor
    features: Tensor
    energy: Tensor

    def shrinkage(self, penalty: float) -> Tensor:
        """What each column of F' Y is multiplied with, 1 / (energy + l t), (r,)."""
        mean_energy = self.energy.sum() / len(self.features)
        return 1 / (self.energy + penalty * mean_energy).clamp(min=1e-12)

    def leverages(self, penalty: float) -> Tensor:
        """What a row's own values weigh in its prediction, (n,).

        A row's prediction without that row is (prediction - leverage * value) / (1 - leverage).
        """
        own = self.features.square() @ self.shrinkage(penalty)  # (n,)
        return 1 / len(self.features) + own


def decompose(features: Tensor) -> RidgeRegression:
    """Prepare regressions on features.

    Args:
        features: Of the training rows, (n, p); computed with in float64.

    >>> x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    >>> ridge = decompose(x)
    >>> weights = ridge.shrinkage(1.0).unsqueeze(1) * (ridge.features.T @ y.double())
    >>> y.mean(0) + (torch.tensor([[2.0]]) - ridge.centre) @ ridge.rotation @ weights
    tensor([[4.3333]], dtype=torch.float64)
    """
    features = features.double()
    centre = features.mean(0)
    centred = features - centre  # (n, p)
    energy, rotation = torch.linalg.eigh(centred.T @ centred)  # (p,), (p, p)
    return RidgeRegression(centre, rotation, centred @ rotation, energy.clamp(min=0))
