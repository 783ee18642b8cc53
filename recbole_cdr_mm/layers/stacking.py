"""Stacked regression: how much to believe each of several predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

_AT_ONCE = 1 << 14  # values, in float64
_RIDGE = 1e-6  # of the mean energy of the predictions; keeps weights defined where two are equal


@dataclass(frozen=True, eq=False)
class Products:
    """Of predictions of rows that were left out: all that stacking them needs.

    Attributes:
        gram: Of the predictions with one another, float64 (M, M).
        moment: Of the predictions with the true values, float64 (M,).
    """

    gram: Tensor
    moment: Tensor

    def weights(self, members: Tensor) -> Tensor:
        """Fit non-negative weights by least squares.

        Args:
            members: Which predictions may have a weight, bool (M,).

        Returns:
            Weights, float64 (M,).
        """
        gram = self.gram[members][:, members]  # (m, m)
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
        factor = torch.linalg.cholesky(gram).numpy()  # |L' w - L^-1 c|^2 has the same minimum
        solved, _ = nnls(factor.T, np.linalg.solve(factor, self.moment[members].numpy()))
        weights = torch.zeros_like(self.moment)
        weights[members] = torch.from_numpy(solved)
        return weights


def stack(parts: Iterable[tuple[Tensor, Tensor]]) -> Products:
    """Sum up what a stacked regression needs.

    Args:
        parts: Predictions (M, ...) and true values (...), in parts of the rows.

    Source: Breiman. "Stacked Regressions." Machine Learning, 1996.

    >>> products = stack([(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([3.0, -2.0]))])
    >>> products.weights(torch.tensor([True, True]))
    tensor([3.0000, 0.0000], dtype=torch.float64)
    """
    gram, moment = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for predictions, values in parts:
        flat = predictions.flatten(1)  # (M, N)
        of_parts = zip(flat.split(_AT_ONCE, dim=1), values.flatten().split(_AT_ONCE), strict=True)
        for some, truth in of_parts:
            exact = some.double()
            gram = gram + exact @ exact.T
            moment = moment + exact @ truth.double()
    return Products(gram, moment)
