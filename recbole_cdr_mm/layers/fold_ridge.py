"""A ridge regression whose penalty is chosen by leaving out folds of rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Penalties that are tried, in units of what a column weighs: the mean of its squares over all rows.
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_LEAST = 1e-6  # keeps what no row speaks of at 0


@dataclass(frozen=True, eq=False)
class FoldRidge:
    """A fitted regression.

    Attributes:
        intercept: Not penalised, ().
        weights: Of the features (p,).
        penalty: The penalty chosen, in rows: half of it times the squared weights is added to half
            the squared errors.
        left_out: Predictions of the rows, each without those of its fold, (N,).
    """

    intercept: Tensor
    weights: Tensor
    penalty: float
    left_out: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Predict from features, (B, p) to (B,)."""
        return self.intercept + features @ self.weights


def fit_fold_ridge(
    features: Tensor,
    value: Tensor,
    weight: Tensor,
    fold: Tensor,
    n_folds: int,
    *,
    n_free: int = 0,
) -> FoldRidge:
    """Fit a regression of the penalty with the least squared error on rows that are left out.

    Cost and memory are linear in the rows: a fold is left out by taking its products from their
    sum.

    Args:
        features: Of the rows, float64 (N, p).
        value: What they have to explain, float64 (N,).
        weight: Of the rows' squared errors, float64 (N,).
        fold: Fold of each row, int64 (N,).
        n_folds: F.
        n_free: How many of the features, the first ones, are not penalised.

    >>> x, fold = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]).double(), torch.tensor([0, 1, 0, 1])
    >>> ridge = fit_fold_ridge(x, 3 + 2 * x.squeeze(1), torch.ones(4).double(), fold, 2)
    >>> ridge.penalty, [round(v, 2) for v in ridge(x[:2]).tolist()]
    (0.012, [1.01, 1.01])
    """
    design = torch.cat([torch.ones_like(value).unsqueeze(1), features], dim=1)  # (N, p + 1)
    parts = [design[fold == f] for f in range(n_folds)]
    weighted = [part.T * weight[fold == f] for f, part in enumerate(parts)]  # (p + 1, n) each
    grams = torch.stack([w @ part for w, part in zip(weighted, parts, strict=True)])
    moments = torch.stack([w @ value[fold == f] for f, w in enumerate(weighted)])  # (F, p + 1)
    gram, moment = grams.sum(0), moments.sum(0)  # (p + 1, p + 1), (p + 1,)
    unit = float(gram.diagonal()[1:].mean().clamp_min(_LEAST))
    penalised = torch.ones_like(moment)
    penalised[: 1 + n_free] = 0.0

    def solve(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
        return torch.linalg.solve(gram + torch.diag(penalty * penalised + _LEAST), moment)

    def without_fold(penalty: float) -> Tensor:
        """Predictions of the rows, each without those of its fold, (N,)."""
        rest = (1 - 1 / n_folds) * penalty  # as so many fewer rows need
        weights = solve(gram - grams, moment - moments, rest)  # (F, p + 1)
        predicted = torch.empty_like(value)
        for f, part in enumerate(parts):
            predicted[fold == f] = part @ weights[f]
        return predicted

    def error(predicted: Tensor) -> float:
        return float((weight * (value - predicted).square()).sum())

    tried = [(share * unit, without_fold(share * unit)) for share in _PENALTIES]
    penalty, left_out = min(tried, key=lambda each: error(each[1]))
    intercept, *weights = solve(gram, moment, penalty)
    return FoldRidge(intercept, torch.stack(weights), penalty, left_out)
