"""Intervals against textbook formulas, and their coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recbole_cdr_mm.evaluation import intervals
from recbole_cdr_mm.evaluation.intervals import Sample, estimate, of_values
from recbole_cdr_mm.evaluation.user_values import UserValues


def values_of(
    total: np.ndarray, weight: np.ndarray | None = None, *, root: bool = False, users: object = None
) -> UserValues:
    tokens = np.array([f"{n:05d}" for n in range(len(total))]) if users is None else users
    ones = np.ones(len(total))
    return UserValues(tokens, total.astype(float), ones if weight is None else weight, root)  # type: ignore[arg-type]


class TestOneSeed:
    def test_a_mean_over_users_has_the_textbook_interval(self) -> None:
        total = np.random.default_rng(0).exponential(size=300)
        found = estimate({1: values_of(total)})
        error = total.std(ddof=1) / np.sqrt(300)
        assert found.mean == pytest.approx(total.mean())
        assert found.error == pytest.approx(error, rel=0.05)
        half = stats.t.ppf(0.975, found.freedom) * error
        assert 60 < found.freedom < 299  # exponential values have a kurtosis of 6
        assert (found.low, found.high) == pytest.approx(
            (total.mean() - half, total.mean() + half), rel=0.01
        )
        assert (found.n_users, dict(found.values)) == (300, {1: pytest.approx(total.mean())})

    def test_a_root_of_a_ratio_has_that_of_the_delta_method(self) -> None:
        rng = np.random.default_rng(1)
        weight = 1.0 + rng.poisson(9, 400)
        total = weight * rng.exponential(size=400)
        found = estimate({1: values_of(total, weight, root=True)})
        mean = total.sum() / weight.sum()
        influence = (total - mean * weight) / weight.sum() / (2 * np.sqrt(mean))
        assert found.mean == pytest.approx(np.sqrt(mean))
        assert found.error == pytest.approx(np.sqrt((influence**2).sum()), rel=0.06)

    def test_seeds_of_one_user_each_have_no_interval(self) -> None:
        runs = {s: values_of(np.ones(1) * s, users=np.array([f"{s}"])) for s in range(10)}
        found = estimate(runs)
        assert found.mean == 4.5
        assert np.isnan([found.low, found.high]).all()

    def test_one_user_has_no_interval(self) -> None:
        found = estimate({1: values_of(np.ones(1))})
        assert found.mean == 1
        assert np.isnan([found.low, found.high]).all()


class TestSeveralSeeds:
    def test_the_same_seed_twice_says_nothing_more(self) -> None:
        run = values_of(np.random.default_rng(0).normal(size=100))
        one, two = estimate({1: run}), estimate({1: run, 2: run})
        assert two.error == pytest.approx(one.error)
        assert two.freedom == pytest.approx(one.freedom)

    def test_other_users_halve_the_variance(self) -> None:
        rng = np.random.default_rng(0)
        users = np.array([f"{n:05d}" for n in range(400)])
        total = rng.normal(size=400)
        total[200:] = total[:200]  # so that the seeds do not differ beside their users
        runs = {
            s: values_of(total[part], users=users[part])
            for s, part in enumerate((slice(200), slice(200, 400)))
        }
        assert estimate(runs).error == pytest.approx(total.std() / np.sqrt(400), rel=0.05)
        assert estimate(runs).n_users == 400

    def test_what_seeds_add_is_added(self) -> None:
        """Each seed's effect is far larger than the users' noise: Student's over the seeds."""
        rng = np.random.default_rng(0)
        effects = np.array([1.0, 3.0, 8.0, 4.0])
        noise = rng.normal(scale=1e-6, size=50)
        runs = {seed: values_of(effect + noise) for seed, effect in enumerate(effects)}
        found = estimate(runs)
        assert found.error == pytest.approx(effects.std(ddof=1) / 2, rel=1e-4)
        assert found.freedom == pytest.approx(3, rel=1e-4)

    def test_variance_against_plain_numpy(self) -> None:
        rng = np.random.default_rng(5)
        replicates = rng.multivariate_normal([0, 0, 0], [[2, 1, 0], [1, 2, 0], [0, 0, 1]], 4000)
        values = {1: 0.0, 2: 6.0, 3: 3.0}
        influence = rng.normal(size=101) ** 3
        found = Sample(replicates, influence).estimate(values)
        c = np.cov(replicates.T) * 101 / 100
        between = np.var([0, 6, 3], ddof=1)
        off = (c.sum() - np.trace(c)) / 6
        seeds = max(between - np.trace(c) / 3 + off, 0)
        assert found.error == pytest.approx(np.sqrt(c.sum() / 9 + seeds / 3))
        centred = influence - influence.mean()
        kurtosis = (centred**4).mean() / (centred**2).mean() ** 2 - 3
        of_users = 2 / (kurtosis / 101 + 2 / 100)
        assert of_users < 50  # far fewer than 100: a few users decide
        freedom = found.error**4 / ((c.sum() / 9) ** 2 / of_users + (between / 3) ** 2 / 2)
        assert found.freedom == pytest.approx(freedom)

    def test_the_order_of_users_and_seeds_does_not_matter(self) -> None:
        rng = np.random.default_rng(0)
        users = np.array([f"{n:05d}" for n in range(60)])
        runs = {}
        for seed in range(3):
            chosen = np.sort(rng.permutation(60)[:40])
            runs[seed] = values_of(rng.normal(size=40), users=users[chosen])
        backwards = {seed: runs[seed] for seed in reversed(runs)}
        first, second = estimate(runs), estimate(backwards)
        assert first.error == pytest.approx(second.error)
        assert estimate(runs) == first

    def test_many_users_are_put_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        total = np.random.default_rng(0).exponential(size=6000)
        whole = estimate({1: values_of(total)})
        monkeypatch.setattr(intervals, "_GROUPS", 1000)
        grouped = estimate({1: values_of(total)})
        assert grouped.error == pytest.approx(whole.error, rel=0.1)
        assert grouped.n_users == 6000


class TestWithoutUsers:
    def test_students_over_seeds(self) -> None:
        numbers = [0.2, 0.5, 0.3]
        found = of_values(dict(enumerate(numbers)))
        expected = stats.t.interval(0.95, 2, np.mean(numbers), stats.sem(numbers))
        assert (found.low, found.high) == pytest.approx(expected)
        assert found.half_width == pytest.approx((expected[1] - expected[0]) / 2)

    def test_one_seed_has_no_interval(self) -> None:
        found = of_values({7: 0.25})
        assert found.mean == 0.25
        assert np.isnan(found.half_width)


def test_coverage_in_a_simulation() -> None:
    """Three seeds that share users, each with an effect of its own; 95% intervals hold 0."""
    rng = np.random.default_rng(0)
    users = np.array([f"{n:05d}" for n in range(100)])
    held = naive = 0
    repetitions = 400
    for _ in range(repetitions):
        own = rng.normal(size=100)
        runs = {}
        for seed in range(3):
            chosen = np.sort(rng.permutation(100)[:60])
            total = own[chosen] + rng.normal(scale=0.5, size=60) + rng.normal(scale=0.1)
            runs[seed] = values_of(total, users=users[chosen])
        found = estimate(runs)
        held += found.low <= 0 <= found.high
        over_seeds = of_values(found.values)
        naive += over_seeds.low <= 0 <= over_seeds.high
    # Three standard errors of a share of 95% over so many repetitions.
    assert held / repetitions == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / repetitions) ** 0.5)
    assert naive / repetitions < 0.92  # what the users' part is there for
