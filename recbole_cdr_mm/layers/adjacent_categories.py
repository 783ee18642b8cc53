"""The adjacent-categories model of a rating, with a spread of its own for each row, and tilting."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_RANGE = 4.0  # from the lowest to the highest trend, as on stars from 1 to 5
_INTERCEPT_PENALTY = 0.01  # keeps the intercept of a value finite that no row has
_MOST_ITERATIONS = 100
_MARGIN = 0.02  # of the trend: how far from its ends a tilted mean stays
_BISECTIONS = 40  # after which floats differ no more
_SMALLEST = 1e-12  # probability


class AdjacentCategories(nn.Module):
    """Probabilities of rating values whose log-odds between neighbours are linear in features.

    The logit of value j is intercept_j + (x . location) trend_j + (x . spread) curve_j. trend_j is
    the value itself, moved and scaled so that the values reach from -2 to 2; curve_j is its square
    less the mean of the squares. The first moves a rating up, the second away from the middle.
    Trends are values, not places, so that `tilt` leads from one distribution of the model to
    another. With two values the curve is 0, and so is the spread; with one there is nothing to
    learn.

    Before it is fitted all values are equally probable.

    Args:
        values: The distinct rating values, ascending (V,).
        n_features: P.

    Attributes:
        unit: How much of a rating a trend of 1 stands for.

    Source: Agresti. "Categorical Data Analysis", 8.3 (adjacent-categories logits).

    Deviations: trends are values where the book counts steps; the term of the spread; penalties.
    """

    values: Tensor
    trend: Tensor
    curve: Tensor
    intercept: Tensor
    location: Tensor
    spread: Tensor

    def __init__(self, values: Tensor, n_features: int) -> None:
        super().__init__()
        self.unit = _unit(values)
        trend = (values - (values[0] + values[-1]) / 2) / self.unit
        self.register_buffer("values", values)
        self.register_buffer("trend", trend, persistent=False)
        squares = trend.square()
        self.register_buffer("curve", squares - squares.mean(), persistent=False)
        self.register_buffer("intercept", torch.zeros(len(values)))
        self.register_buffer("location", torch.zeros(n_features))
        self.register_buffer("spread", torch.zeros(n_features))

    def fit(
        self,
        features: Tensor,
        rating: Tensor,
        weight: Tensor,
        *,
        penalty: Tensor,
        spread_penalty: float,
    ) -> None:
        """Fit by penalised maximum likelihood, which has one maximum, on the CPU.

        Args:
            features: Of the rows, float64 (N, P).
            rating: Their ratings (N,), each one of the values.
            weight: Of their log-likelihoods, float64 (N,).
            penalty: Of each feature's location, float64 (P,): half of it times the square is taken
                from the log-likelihood.
            spread_penalty: Likewise, of each feature's spread.
        """
        values, trend, curve = (
            column.cpu().double() for column in (self.values, self.trend, self.curve)
        )
        index = torch.searchsorted(values, rating.double()).unsqueeze(1)  # (N, 1)
        shares = torch.bincount(index.squeeze(1), weights=weight, minlength=len(values))
        total = weight.sum()
        intercept = ((shares + 1 / len(values)) / total).log().requires_grad_()
        location = features.new_zeros(features.shape[1], requires_grad=True)
        spread = torch.zeros_like(location, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [intercept, location, spread],
            max_iter=_MOST_ITERATIONS,
            history_size=20,
            tolerance_grad=1e-7,
            tolerance_change=1e-10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            logit = _logits(features, intercept, location, spread, trend, curve)  # (N, V)
            of_rows = weight @ logit.log_softmax(1).gather(1, index).squeeze(1)
            penalties = (
                _INTERCEPT_PENALTY * intercept.square().sum()
                + penalty @ location.square()
                + spread_penalty * spread.square().sum()
            )
            value = (penalties / 2 - of_rows) / total
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)
        for buffer, fitted in (
            (self.intercept, intercept),
            (self.location, location),
            (self.spread, spread),
        ):
            buffer.copy_(fitted.detach())

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities of the values, float32 (B, P) to (B, V)."""
        logit = _logits(
            features, self.intercept, self.location, self.spread, self.trend, self.curve
        )
        return logit.softmax(1)


def _logits(
    features: Tensor,
    intercept: Tensor,
    location: Tensor,
    spread: Tensor,
    trend: Tensor,
    curve: Tensor,
) -> Tensor:
    """Of all values, (B, V)."""
    height = (features @ location).unsqueeze(1)  # (B, 1)
    width = (features @ spread).unsqueeze(1)  # (B, 1)
    return intercept + height * trend + width * curve


def _unit(values: Tensor) -> float:
    """How much of a rating a trend of 1 stands for; of a single value anything."""
    return max(float(values[-1] - values[0]), _SMALLEST) / _RANGE


def tilt(probabilities: Tensor, values: Tensor, mean: Tensor) -> Tensor:
    """The distributions nearest to given ones, in relative entropy, that have given means.

    They are proportional to p_j exp(t value_j), with a t of each row, found by bisection. A mean at
    or beyond an end of the values, or very near to it, is moved inwards: no rating is certain.

    Args:
        probabilities: Of each value (B, V).
        values: Ascending (V,).
        mean: Means that are wanted (B,).

    Returns:
        (B, V).

    Source: Csiszar. "I-Divergence Geometry of Probability Distributions and Minimization
    Problems." Annals of Probability, 1975.

    >>> stars = torch.tensor([1.0, 2.0, 3.0])
    >>> tilt(torch.tensor([[0.25, 0.5, 0.25]]), stars, torch.tensor([2.5]))
    tensor([[0.0625, 0.3750, 0.5625]])
    """
    if len(values) == 1:
        return probabilities
    unit = _unit(values)
    step = (values - values[0]) / unit  # (V,), from 0 to the range
    wanted = ((mean - values[0]) / unit).clamp(_MARGIN, _RANGE - _MARGIN).unsqueeze(1)  # (B, 1)
    logit = probabilities.clamp_min(_SMALLEST).log()  # (B, V)
    # So far that one of the least probable values outweighs its neighbour by more than the margin.
    most = -2 * math.log(_SMALLEST) / float(step.diff().min())
    low, high = torch.full_like(wanted, -most), torch.full_like(wanted, most)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_below = (logit + middle * step).softmax(1) @ step.unsqueeze(1) < wanted  # (B, 1)
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    return (logit + (low + high) / 2 * step).softmax(1)
