"""BiasTransfer against plain loops."""

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
    naive_biases,
    naive_distribution,
    pairs_of_both_kinds,
)

from recbole_cdr_mm.data.pair import Ratings


class TestBiasTransfer(DistributionChecks, FloorChecks, ModelChecks):
    config: ClassVar = {"model": "BiasTransfer"}
    expected_to_fail = ("one_linear_map", "two_groups")

    @pytest.mark.parametrize(
        "values",
        [
            {"bias_rounds": 10, "item_shrinkage": 3.0, "user_shrinkage": 5.0},
            {"bias_rounds": 2, "item_shrinkage": 0.5, "user_shrinkage": 7.0},
        ],
    )
    def test_adds_the_bias_of_the_source_domain(
        self, data_path: Path, values: dict[str, float]
    ) -> None:
        run = self.build(data_path, **values).fit()
        split = run.dataset.split
        shrinkage = {key: values[key] for key in ("item_shrinkage", "user_shrinkage")}
        fits = {
            name: naive_biases(rows, rounds=values["bias_rounds"], **shrinkage)
            for name, rows in (("source", run.dataset.pair.source), ("target", split.train))
        }
        user, item = pairs_of_both_kinds(run)
        mean, target_users, items = fits["target"]
        source_users = fits["source"][1]
        own = [target_users.get(u, source_users.get(u, 0.0)) for u in user]
        expected = [mean + items.get(i, 0.0) + b for i, b in zip(item, own, strict=True)]
        np.testing.assert_allclose(run.scores(user, item), expected, rtol=1e-6)

    def test_warm_users_have_their_target_bias(self, data_path: Path) -> None:
        run = self.build(data_path).fit()
        user = run.dataset.split.train.user
        overlapped = int(user[user <= run.dataset.pair.n_overlapped][0])
        _, source, _ = naive_biases(run.dataset.pair.source)
        _, target, _ = naive_biases(run.dataset.split.train)
        assert abs(source[overlapped] - target[overlapped]) > 1e-2
        assert run.model.user_part[overlapped].item() == pytest.approx(target[overlapped])

    def test_distribution_is_that_of_simulated_cold_users(self, trained: Run) -> None:
        _, source, _ = naive_biases(trained.dataset.pair.source)

        def fit(rows: Ratings) -> Callable[[int, int], float]:
            mean, _, items = naive_biases(rows)
            return lambda user, item: mean + items.get(item, 0.0) + source[user]

        assert_same_distribution(trained.model.distribution, naive_distribution(trained, fit))
