"""Whether two models differ: paired over test users and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.intervals import Estimate, resample
from recbole_cdr_mm.evaluation.user_values import UserValues


@dataclass(frozen=True)
class Comparison:
    """One model against another.

    Attributes:
        difference: The metric of the first less that of the second, with its interval.
        p_bootstrap: Two-sided p of the paired bootstrap over test users and seeds.
        p_wilcoxon: Two-sided p of Wilcoxon's signed-rank test over seeds; None with one seed.
    """

    difference: Estimate
    p_bootstrap: float
    p_wilcoxon: float | None


def compare(first: Mapping[int, UserValues], second: Mapping[int, UserValues]) -> Comparison:
    """Compare two models by what was measured on the same test users under the same seeds.

    Test users are drawn again, the same for both models, so that what makes a user hard for both
    falls out. p is that of the difference's t statistic, whose variance has the users' and the
    seeds' part of `intervals.Sample.estimate`.

    Args:
        first: A model's runs by seed.
        second: The other one's. Seeds that only one of them has are left out.

    Raises:
        ConfigError: If they share no seed, or were measured on different users.
    """
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        raise ConfigError("Two models without a common seed cannot be compared. Run more seeds.")
    for seed in seeds:
        if not np.array_equal(first[seed].user, second[seed].user):
            raise ConfigError(
                f"Two models were measured on different test users (seed {seed}), so they cannot be"
                " compared. Run both on the same data and split."
            )
    one, other = ({seed: runs[seed] for seed in seeds} for runs in (first, second))
    of_one, of_other = resample([one, other])
    values = {seed: one[seed].value - other[seed].value for seed in seeds}
    difference = (of_one - of_other).estimate(values)
    return Comparison(difference, _p_value(difference), wilcoxon(list(values.values())))


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; None for fewer than two differences."""
    if len(differences) < 2:
        return None
    known = [difference for difference in differences if difference]  # zeros say nothing
    return float(stats.wilcoxon(known).pvalue) if known else 1.0


def smallest_wilcoxon(n: int) -> float:
    """The smallest p that Wilcoxon's test can have over n differences: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - n))


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values of one table for there being many of them.

    Source: Holm. "A simple sequentially rejective multiple test procedure." Scandinavian Journal of
    Statistics, 1979.

    Args:
        p_values: None stays None and does not count.
    """
    known = np.array([p for p in p_values if p is not None])
    order = np.argsort(known)
    raised = (len(known) - np.arange(len(known))) * known[order]
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1)
    found = iter(adjusted.tolist())
    return [None if p is None else next(found) for p in p_values]


def _p_value(difference: Estimate) -> float:
    if np.isnan(difference.error):
        return 1.0  # too few users to say anything
    if difference.error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.mean / difference.error), difference.freedom))
