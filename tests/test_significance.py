"""Paired comparisons: against textbook tests, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.significance import (
    compare,
    corrected,
    smallest_wilcoxon,
    wilcoxon,
)
from recbole_cdr_mm.evaluation.user_values import UserValues


def values_of(total: np.ndarray, prefix: str = "") -> UserValues:
    users = np.array([f"{prefix}{n:05d}" for n in range(len(total))])
    return UserValues(users, total.astype(float), np.ones(len(total)), root=False)


def test_one_seed_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(scale=5, size=200)  # what makes a user hard for both
    one, other = hard + rng.normal(size=200), hard + 0.15 + rng.normal(size=200)
    found = compare({1: values_of(one)}, {1: values_of(other)})
    expected = stats.ttest_rel(one, other)
    assert found.difference.mean == pytest.approx((one - other).mean())
    assert found.p_bootstrap == pytest.approx(expected.pvalue, rel=0.15)
    interval = expected.confidence_interval()
    assert (found.difference.low, found.difference.high) == pytest.approx(interval, rel=0.1)
    assert found.p_wilcoxon is None


def test_the_same_model_twice() -> None:
    runs = {seed: values_of(np.random.default_rng(seed).normal(size=50)) for seed in range(3)}
    found = compare(runs, runs)
    assert (found.difference.mean, found.p_bootstrap, found.p_wilcoxon) == (0, 1, 1)


def test_a_difference_without_noise() -> None:
    run = np.random.default_rng(0).normal(size=50)
    found = compare({1: values_of(run)}, {1: values_of(run - 0.25)})
    assert found.difference.mean == pytest.approx(0.25)
    assert found.p_bootstrap < 1e-9


def test_one_user_says_nothing() -> None:
    assert compare({1: values_of(np.ones(1))}, {1: values_of(np.zeros(1))}).p_bootstrap == 1


def test_only_common_seeds_count() -> None:
    rng = np.random.default_rng(0)
    runs = {seed: values_of(rng.normal(size=30)) for seed in range(4)}
    others = {seed: values_of(rng.normal(size=30)) for seed in (1, 3, 5)}
    found = compare(runs, others)
    assert set(found.difference.values) == {1, 3}
    assert found.difference.values[3] == pytest.approx(runs[3].value - others[3].value)


def test_other_users_or_seeds_are_refused() -> None:
    run = values_of(np.ones(5))
    with pytest.raises(ConfigError, match=r"different test users \(seed 1\)"):
        compare({1: run}, {1: values_of(np.ones(5), "x")})
    with pytest.raises(ConfigError, match="without a common seed"):
        compare({1: run}, {2: run})


def test_wilcoxon() -> None:
    differences = [0.3, 0.1, 0.4, 0.2, 0.7, 0.6]
    assert wilcoxon(differences) == pytest.approx(2 / 2**6) == smallest_wilcoxon(6)
    assert smallest_wilcoxon(3) == 0.25
    assert wilcoxon([0.1]) is None
    assert wilcoxon([0.0, 0.0]) == 1


def test_holm() -> None:
    p = [0.01, None, 0.04, 0.03]
    assert corrected(p) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert corrected([None]) == [None]
    assert corrected([]) == []


def test_false_alarms_in_a_simulation() -> None:
    """Two models that are equal, three seeds that share users: 5% of the tests say otherwise."""
    rng = np.random.default_rng(3)
    repetitions, alarms = 400, 0
    for _ in range(repetitions):
        hard = rng.exponential(size=80)
        models: list[dict[int, UserValues]] = [{}, {}]
        for seed in range(3):
            chosen = np.sort(rng.permutation(80)[:40])
            users = np.array([f"{n:05d}" for n in chosen])
            for runs in models:
                total = hard[chosen] * (1 + 0.3 * rng.normal(size=40)) + 0.05 * rng.normal()
                runs[seed] = UserValues(users, total, np.ones(40), root=False)
        alarms += compare(*models).p_bootstrap < 0.05
    assert alarms / repetitions == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / repetitions) ** 0.5)
