"""A distribution over the rating values given a score, and what is read off a distribution."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

_PENALTY = 1e-3  # on the squared slope, in log-likelihood; the scores have variance 1
_LEAST_SPREAD = 1e-3  # scores with a smaller standard deviation say nothing
_ROUNDING = 1e-6  # of cumulative probabilities


class RatingDistribution(nn.Module):
    """The proportional-odds model of a rating given a score.

    P(rating <= value_j) = sigmoid(cut_j - slope * score), and 1 for the highest value. Before it is
    fitted all values are equally probable.

    Args:
        values: The distinct rating values, ascending (V,).

    Source: McCullagh. "Regression Models for Ordinal Data." Journal of the Royal Statistical
    Society B, 1980.

    Deviations: the slope is never negative; a score whose higher values come with lower ratings
    says nothing. One more rating, spread evenly over the values at the mean score, and a slight
    penalty on the slope keep the fit finite where a value is absent or the scores tell the ratings
    apart.
    """

    values: Tensor
    cuts: Tensor
    slope: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("cuts", torch.logit(torch.arange(1, len(values)) / len(values)))
        self.register_buffer("slope", torch.tensor(0.0))

    def fit(self, score: Tensor, rating: Tensor) -> None:
        """Fit cuts and slope by maximum likelihood, on the CPU, where sums are the same each time.

        Args:
            score: Scores (N,).
            rating: Their ratings (N,), each one of the values.
        """
        index = torch.searchsorted(self.values.cpu(), rating.cpu().to(self.values.dtype))  # (N,)
        score = score.cpu().double()
        centre, spread = score.mean(), score.std(correction=0).clamp_min(_LEAST_SPREAD)
        cuts, slope = _most_probable((score - centre) / spread, index, len(self.values))
        self.slope.copy_(slope / spread)
        self.cuts.copy_(cuts + slope * centre / spread)

    def probabilities(self, score: Tensor) -> Tensor:
        """Probabilities of the values, (B,) to (B, V)."""
        below = torch.sigmoid(self.cuts - self.slope * score.unsqueeze(1))  # (B, V - 1)
        return pad(pad(below, (1, 0)), (0, 1), value=1.0).diff(dim=1)


def _most_probable(score: Tensor, index: Tensor, n_values: int) -> tuple[Tensor, Tensor]:
    """Cuts (V - 1,) and slope () of scores with mean 0 and places of their ratings, (N,) each."""
    counts = torch.bincount(index, minlength=n_values).double() + 1 / n_values  # (V,)
    without_score = torch.logit(counts.cumsum(0)[:-1] / counts.sum())  # best for a slope of 0
    first = without_score[:1].clone().requires_grad_()
    log_gaps = without_score.diff().log().requires_grad_()  # (V - 2,), so that cuts ascend
    slope = torch.zeros_like(score[0], requires_grad=True)
    everywhere = torch.arange(n_values)
    optimiser = torch.optim.LBFGS(
        [first, log_gaps, slope],
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def cuts() -> Tensor:
        return torch.cat([first, log_gaps.exp()]).cumsum(0)  # (V - 1,)

    def loss() -> Tensor:
        optimiser.zero_grad()
        of_rows = log_likelihoods(cuts(), slope * score, index).sum()
        of_one_more = log_likelihoods(cuts(), torch.zeros_like(everywhere), everywhere).mean()
        value = (_PENALTY * slope.square() - of_rows - of_one_more) / len(index)
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    if slope <= 0:  # the likelihood is concave: this is its maximum without negative slopes
        return without_score, torch.zeros_like(slope)
    return cuts().detach(), slope.detach()


def log_likelihoods(cuts: Tensor, location: Tensor, index: Tensor) -> Tensor:
    """Logarithms of the probabilities of observed values in the proportional-odds model.

    sigmoid(b) - sigmoid(a) is sigmoid(b) sigmoid(-a) (1 - exp(a - b)), of which no factor cancels.

    Args:
        cuts: Ascending (V - 1,).
        location: Slope times score (N,).
        index: Places of the observed values among all, int64 (N,).

    Returns:
        (N,).

    >>> log_likelihoods(torch.zeros(1), torch.zeros(2), torch.tensor([0, 1])).exp()
    tensor([0.5000, 0.5000])
    """
    bounds = pad(pad(cuts, (1, 0), value=-torch.inf), (0, 1), value=torch.inf)  # (V + 1,)
    of_gaps = torch.log(-torch.expm1(-bounds.diff()))  # (V,)
    upper = bounds.index_select(0, index + 1) - location  # (N,)
    lower = bounds.index_select(0, index) - location  # (N,)
    return logsigmoid(upper) + logsigmoid(-lower) + of_gaps.index_select(0, index)


# What is read off probabilities


def mean(probabilities: Tensor, values: Tensor) -> Tensor:
    """The expected rating, the best answer for squared errors.

    Args:
        probabilities: Of each value (B, V).
        values: Ascending (V,).

    Returns:
        (B,).

    >>> mean(torch.tensor([[0.25, 0.25, 0.5]]), torch.tensor([1.0, 3.0, 5.0]))
    tensor([3.5000])
    """
    return probabilities @ values


def median(probabilities: Tensor, values: Tensor) -> Tensor:
    """The smallest value whose cumulative probability reaches 1/2, the best for absolute errors.

    Args:
        probabilities: Of each value (B, V).
        values: Ascending (V,).

    Returns:
        (B,), each one of the values.

    >>> median(torch.tensor([[0.25, 0.25, 0.5], [0.25, 0.1, 0.65]]), torch.tensor([1.0, 3.0, 5.0]))
    tensor([3., 5.])
    """
    reached = probabilities.cumsum(1) >= 0.5 - _ROUNDING  # (B, V)
    return values[reached.int().argmax(1)]


class Interval(NamedTuple):
    """Lowest and highest value of each interval, and the probability that it holds, (B,) each."""

    low: Tensor
    high: Tensor
    probability: Tensor


def shortest_interval(probabilities: Tensor, values: Tensor, level: float) -> Interval:
    """The fewest consecutive values that hold at least `level`.

    Of equally many the more probable ones. Values are discrete, so that an interval holds more
    than `level`, by less than the probability of one value: whether intervals are honest shows when
    their coverage is compared with the probability that they hold.

    Args:
        probabilities: Of each value (B, V).
        values: Ascending (V,).
        level: Between 0 and 1.

    >>> shortest_interval(torch.tensor([[0.1, 0.2, 0.4, 0.3]]), torch.tensor([1., 2., 3., 4.]), 0.6)
    Interval(low=tensor([3.]), high=tensor([4.]), probability=tensor([0.7000]))
    """
    cumulative = pad(probabilities.cumsum(1), (1, 0))  # (B, V + 1)
    before = cumulative[:, :-1].contiguous()  # (B, V), of each value with which one may begin
    end = torch.searchsorted(cumulative, before + (level - _ROUNDING))  # (B, V); V + 1: never
    n_values = len(values)
    held = cumulative.gather(1, end.clamp_max(n_values)) - before  # (B, V)
    length = end - torch.arange(n_values, device=end.device)  # (B, V)
    # Half a probability is less than one value, so it decides among equal lengths alone.
    order = torch.where(end <= n_values, length - held / 2, torch.inf)  # (B, V)
    first = order.argmin(1, keepdim=True)  # (B, 1)
    last = end.gather(1, first) - 1  # (B, 1)
    parts = values[first], values[last], held.gather(1, first)
    return Interval(*(part.squeeze(1) for part in parts))
