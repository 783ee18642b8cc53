"""CalibratedTransfer against explicit folds and NumPy's least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from model_checks import (
    DistributionChecks,
    FloorChecks,
    ModelChecks,
    Run,
    assert_same_distribution,
    naive_biases,
    naive_calibration,
    naive_distribution,
    pairs_of_both_kinds,
)

from recbole_cdr_mm.data.folds import draw_folds
from recbole_cdr_mm.data.pair import Ratings


class TestCalibratedTransfer(DistributionChecks, FloorChecks, ModelChecks):
    config: ClassVar = {"model": "CalibratedTransfer"}
    expected_to_fail = ("one_linear_map", "two_groups")

    def test_weights_of_cold_start_users(self, trained: Run) -> None:
        a, b, c, _ = naive_calibration(trained)
        split = trained.dataset.split
        mean, _, item_bias = naive_biases(split.train)
        _, source_bias, _ = naive_biases(trained.dataset.pair.source)
        expected = [
            a + b * (mean + item_bias.get(i, 0.0)) + c * source_bias[u]
            for u, i in zip(split.test.user, split.test.item, strict=True)
        ]
        scores = trained.scores(split.test.user, split.test.item)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)

    def test_warm_users_have_their_target_bias(self, trained: Run) -> None:
        rows = trained.dataset.split.train
        mean, user_bias, item_bias = naive_biases(rows)
        expected = [
            mean + item_bias[i] + user_bias[u] for u, i in zip(rows.user, rows.item, strict=True)
        ]
        np.testing.assert_allclose(trained.scores(rows.user, rows.item), expected, rtol=1e-5)

    def test_distribution_is_that_of_simulated_cold_users(self, trained: Run) -> None:
        a, b, c, _ = naive_calibration(trained)
        _, source, _ = naive_biases(trained.dataset.pair.source)

        def fit(rows: Ratings) -> Callable[[int, int], float]:
            mean, _, items = naive_biases(rows)
            return lambda user, item: a + b * (mean + items.get(item, 0.0)) + c * source[user]

        assert_same_distribution(trained.model.distribution, naive_distribution(trained, fit))

    def test_each_overlapped_training_user_is_cold_once(self, trained: Run) -> None:
        dataset = trained.dataset
        fold = draw_folds(dataset.pair, dataset.split, 5, trained.config["seed"]).numpy()
        in_folds = np.flatnonzero(fold < 5)
        overlapped = np.intersect1d(dataset.pair.overlapped_users, dataset.split.train.user)
        assert in_folds.tolist() == overlapped.tolist()
        sizes = np.bincount(fold[in_folds])
        assert sizes.max() - sizes.min() <= 1
        user, _ = pairs_of_both_kinds(trained)
        assert (fold[user[user > dataset.pair.n_overlapped]] == 5).all()
