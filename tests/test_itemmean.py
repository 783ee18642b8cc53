"""ItemMean against plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from model_checks import (
    DistributionChecks,
    FloorChecks,
    ModelChecks,
    Run,
    assert_same_distribution,
    naive_distribution,
    pairs_of_both_kinds,
)

from recbole_cdr_mm.data.pair import Ratings


class TestItemMean(DistributionChecks, FloorChecks, ModelChecks):
    config: ClassVar = {"model": "ItemMean"}
    expected_to_fail = ("one_linear_map", "two_groups")

    @pytest.mark.parametrize("shrinkage", [0.0, 3.0])
    def test_is_each_items_shrunken_mean(self, data_path: Path, shrinkage: float) -> None:
        run = self.build(data_path, item_shrinkage=shrinkage).fit()
        train = run.dataset.split.train
        mean = train.rating.mean(dtype=float)
        user, item = pairs_of_both_kinds(run)
        expected = []
        for i in item:
            own = [float(r) for r, j in zip(train.rating, train.item, strict=True) if i == j]
            n_pseudo = shrinkage if own else 1.0  # an item without ratings has the mean
            expected.append((sum(own) + n_pseudo * mean) / (len(own) + n_pseudo))
        assert not np.isin(item, train.item).all()
        np.testing.assert_allclose(run.scores(user, item), expected, rtol=1e-6)

    def test_distribution_is_that_of_simulated_cold_users(self, trained: Run) -> None:
        def fit(rows: Ratings) -> Callable[[int, int], float]:
            mean = rows.rating.mean(dtype=float)

            def score(user: int, item: int) -> float:
                own = rows.rating[rows.item == item]
                return (own.sum(dtype=float) + 3 * mean) / (len(own) + 3)

            return score

        expected = naive_distribution(trained, fit)
        assert_same_distribution(trained.model.distribution, expected)
