"""How far a metric could be from where it was measured: test users and seeds are both drawn.

A benchmark measures a model under several seeds. Each draws its test users anew from the same
overlapped users, so that seeds share users and their values are not independent: a t-interval over
seeds alone is too narrow. Each also draws the training, of which a bootstrap over users knows
nothing. Here both are taken together.

Source: the users' part is a cluster bootstrap (Efron and Tibshirani. "An Introduction to the
Bootstrap." 1993), with a user as a cluster over all seeds. The seeds' part is the moment estimator
of a random effect (DerSimonian and Laird. "Meta-analysis in clinical trials." 1986), for dependent
measurements. Degrees of freedom by Satterthwaite (1946). docs/protocol.md has the coverage that was
measured by `benchmarks/interval_coverage.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recbole_cdr_mm.evaluation.user_values import UserValues

CONFIDENCE = 0.95
REPLICATES = 2000
_GROUPS = 5_000  # more users than these are put together at random, to bound memory
_SEED = 20


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with its interval.

    Attributes:
        mean: Of the seeds' values.
        low: Lower end of the 95% interval; nan where there is none.
        high: Upper end.
        error: Standard error; nan where there is none.
        freedom: Degrees of freedom of its t-distribution.
        n_users: Different test users of all seeds; 0 where the metric is no mean over users.
        values: By seed.
    """

    mean: float
    low: float
    high: float
    error: float
    freedom: float
    n_users: int
    values: Mapping[int, float]

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2


def estimate(runs: Mapping[int, UserValues]) -> Estimate:
    """The mean over seeds of a metric of one model, for fresh users and fresh seeds.

    With one seed the interval knows of the users alone, and not of how much another split or
    another training would change.

    Args:
        runs: What was measured, by seed.
    """
    (sample,) = resample([runs])
    return sample.estimate({seed: run.value for seed, run in runs.items()})


def of_values(values: Mapping[int, float]) -> Estimate:
    """The mean over seeds of a metric that is no mean over users: coverage, the Gini index.

    Its interval is Student's over the seeds. It knows nothing of what seeds share, so it is too
    narrow where they share many test users; with one seed there is none.

    Args:
        values: The metric by seed.
    """
    numbers, count = np.array(list(values.values())), len(values)
    error = float(numbers.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return _with_interval(values, error, max(count - 1, 1), 0)


@dataclass(frozen=True, eq=False)
class Sample:
    """What other test users would have given: of a model, or of the difference of two.

    Attributes:
        replicates: The metric with test users drawn again, for each seed, (B, S).
        influence: How much each user moves the mean over the seeds, (n,).
    """

    replicates: NDArray[np.float64]
    influence: NDArray[np.float64]

    def __sub__(self, other: Sample) -> Sample:
        return Sample(self.replicates - other.replicates, self.influence - other.influence)

    def estimate(self, values: Mapping[int, float]) -> Estimate:
        """The interval of a mean over seeds.

        With C the covariance of the seeds' values by the users, (S, S), and s2 the variance between
        seeds, E s2 = t2 + mean(diag C) - mean(offdiag C), where t2 is what seeds add beside their
        users. The variance of the mean is 1'C1 / S^2 + max(t2, 0) / S. The first part has as many
        degrees of freedom as the variance of n users with the kurtosis of their influences, the
        second one those of s2, and both together Satterthwaite's.

        Args:
            values: What was measured, by seed.
        """
        n_users, n = len(self.influence), len(values)
        if n_users < 2:
            return _with_interval(values, float("nan"), 1, n_users)
        whole = np.isfinite(self.replicates).all(axis=1)  # each seed has some of its users in it
        if whole.sum() < REPLICATES // 10:  # seeds of one user or two
            return _with_interval(values, float("nan"), 1, n_users)
        covariance = np.atleast_2d(np.cov(self.replicates[whole], rowvar=False))  # (S, S)
        covariance *= n_users / (n_users - 1)
        of_users, of_seeds, noise = float(covariance.sum()) / n**2, 0.0, 0.0
        if n > 1:
            between = float(np.var(list(values.values()), ddof=1))
            own = np.trace(covariance) / n
            shared = (covariance.sum() - np.trace(covariance)) / (n * (n - 1))
            of_seeds = max(between - float(own - shared), 0.0) / n
            noise = (between / n) ** 2 / (n - 1) if of_seeds else 0.0
        variance = of_users + of_seeds
        noise += of_users**2 / self._freedom_of_users()
        freedom = variance**2 / noise if noise else float(n_users - 1)
        return _with_interval(values, float(np.sqrt(variance)), freedom, n_users)

    def _freedom_of_users(self) -> float:
        """2 V^2 / Var V of the variance V of n independent values with this kurtosis."""
        n = len(self.influence)
        spread = np.ptp(self.influence)
        kurtosis = max(float(stats.kurtosis(self.influence)), 0.0) if spread else 0.0
        return 2 / (kurtosis / n + 2 / (n - 1))


def resample(models: Sequence[Mapping[int, UserValues]]) -> list[Sample]:
    """Draw test users again, the same for all models and seeds.

    Args:
        models: What was measured of each model, by seed; the same seeds in the same order.
    """
    users = np.unique(np.concatenate([run.user for runs in models for run in runs.values()]))
    n_groups = min(len(users), _GROUPS)
    group = np.arange(len(users))
    if len(users) > n_groups:
        group = np.random.default_rng(_SEED).permutation(len(users)) % n_groups
    drawn = _draws(n_groups)  # (B, g)
    return [
        Sample(
            _replicates(list(runs.values()), users, group, drawn),
            np.mean([_influence(run, users) for run in runs.values()], axis=0),
        )
        for runs in models
    ]


def _with_interval(
    values: Mapping[int, float], error: float, freedom: float, n_users: int
) -> Estimate:
    mean = float(np.mean(list(values.values())))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return Estimate(mean, mean - half, mean + half, error, freedom, n_users, dict(values))


def _replicates(
    runs: Sequence[UserValues],
    users: NDArray[np.str_],
    group: NDArray[np.int64],
    drawn: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The metric in each replicate and run, (B, S); nan where it has none of the run's users."""
    n_groups = drawn.shape[1]
    totals, weights = [], []
    for run in runs:
        place = group[np.searchsorted(users, run.user)]
        totals.append(np.bincount(place, weights=run.total, minlength=n_groups))
        weights.append(np.bincount(place, weights=run.weight, minlength=n_groups))
    sums = drawn @ np.column_stack(totals + weights)  # one pass over the draws, (B, 2 S)
    with np.errstate(invalid="ignore"):
        mean = sums[:, : len(runs)] / sums[:, len(runs) :]
    return np.sqrt(mean) if runs[0].root else mean


def _influence(run: UserValues, users: NDArray[np.str_]) -> NDArray[np.float64]:
    """What each user adds to the metric, to first order, (n,); 0 for users of other seeds."""
    mean = run.total.sum() / run.weight.sum()
    own = (run.total - mean * run.weight) / run.weight.sum()
    if run.root and mean:
        own /= 2 * np.sqrt(mean)
    influence = np.zeros(len(users))
    influence[np.searchsorted(users, run.user)] = own
    return influence


@functools.lru_cache(maxsize=8)
def _draws(n_groups: int) -> NDArray[np.float64]:
    """How often each group is drawn in each replicate, (B, g); the same in each process."""
    drawn = np.random.default_rng(_SEED).integers(n_groups, size=(REPLICATES, n_groups))
    drawn += n_groups * np.arange(REPLICATES)[:, None]  # one count for each replicate and group
    counts = np.bincount(drawn.ravel(), minlength=drawn.size)
    return counts.reshape(drawn.shape).astype(np.float64)
