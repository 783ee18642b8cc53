"""Stacked regression: how much to believe each of several predictions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

_AT_ONCE = 1 << 14  # values, in float64
_RIDGE = 1e-6  # of the mean energy of the predictions; keeps weights defined where two are equal


def stack(parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Fit non-negative weights by least squares on predictions of rows that were left out.

    Args:
        parts: Predictions (M, ...) and true values (...), in parts of the rows.

    Returns:
        Weights, float64 (M,).

    Source: Breiman. "Stacked Regressions." Machine Learning, 1996.

    >>> stack([(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([3.0, -2.0]))])
    tensor([3.0000, 0.0000], dtype=torch.float64)
    """
    sums = [torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    for predictions, values in parts:
        flat = predictions.flatten(1)  # (M, N)
        of_parts = zip(flat.split(_AT_ONCE, dim=1), values.flatten().split(_AT_ONCE), strict=True)
        for some, truth in of_parts:
            exact = some.double()
            sums[0] = sums[0] + exact @ exact.T
            sums[1] = sums[1] + exact @ truth.double()
    gram, moment = sums  # (M, M), (M,)
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    factor = torch.linalg.cholesky(gram).numpy()  # |L' w - L^-1 c|^2 has the same minimum
    weights, _ = nnls(factor.T, np.linalg.solve(factor, moment.numpy()))
    return torch.from_numpy(weights)
