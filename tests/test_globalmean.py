"""GlobalMean against plain NumPy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from model_checks import (
    DistributionChecks,
    FloorChecks,
    ModelChecks,
    Run,
    assert_same_distribution,
    naive_distribution,
    pairs_of_both_kinds,
)


class TestGlobalMean(DistributionChecks, FloorChecks, ModelChecks):
    config: ClassVar = {"model": "GlobalMean"}
    expected_to_fail = ("one_linear_map", "two_groups")

    def test_is_the_mean_of_training(self, trained: Run) -> None:
        ratings = [float(rating) for rating in trained.dataset.split.train.rating]
        scores = trained.scores(*pairs_of_both_kinds(trained))
        np.testing.assert_allclose(scores, sum(ratings) / len(ratings), rtol=1e-6)

    def test_distribution_is_that_of_simulated_cold_users(self, trained: Run) -> None:
        expected = naive_distribution(trained, lambda rows: lambda u, i: rows.rating.mean())
        assert_same_distribution(trained.model.distribution, expected)
