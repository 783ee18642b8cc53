"""RidgeBridge against the normal equations in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from model_checks import ModelChecks, Run, build_run, pairs_of_both_kinds
from recbole.data.interaction import Interaction

from recbole_cdr_mm.errors import ConfigError

GIVEN = {"row_scale": "raw", "ridge_penalty": 2.0}


def rows_of(run: Run, domain: str, users: np.ndarray) -> np.ndarray:
    """Rows of users, 1 for a positive in training."""
    pair = run.dataset.pair
    ratings = pair.source if domain == "source" else run.dataset.split.train
    rows = np.zeros((pair.n_users, pair.n_items))
    rows[ratings.user, ratings.item] = 1
    return rows[users][:, pair.items(domain)]


def training_users(run: Run) -> np.ndarray:
    """Overlapped users with a positive in training."""
    return np.intersect1d(run.dataset.pair.overlapped_users, run.dataset.split.train.user)


def naive_scores(run: Run, *, unit: bool, penalty: float) -> np.ndarray:
    """Scores of all users and target items, (U, I_t)."""
    everyone = np.arange(run.dataset.pair.n_users)
    rows = rows_of(run, "source", everyone)
    if unit:
        rows = rows / np.sqrt(np.maximum(rows.sum(1, keepdims=True), 1))
    users = training_users(run)
    x, y = rows[users], rows_of(run, "target", users)
    centred = x - x.mean(0)
    size = (centred**2).sum() / len(x)
    gram = centred.T @ centred + penalty * size * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, centred.T @ y)
    return y.mean(0) + (rows - x.mean(0)) @ weight


class TestRidgeBridge(ModelChecks):
    config: ClassVar = {"model": "RidgeBridge"}

    @pytest.mark.parametrize("row_scale", ["raw", "unit"])
    def test_scores_are_those_of_the_normal_equations(
        self, data_path: Path, row_scale: str
    ) -> None:
        run = self.build(data_path, row_scale=row_scale, ridge_penalty=2.0).fit()
        expected = naive_scores(run, unit=row_scale == "unit", penalty=2.0)
        user, item = pairs_of_both_kinds(run)
        first = run.dataset.pair.items("target").start
        np.testing.assert_allclose(
            run.scores(user, item), expected[user, item - first], rtol=1e-4, atol=1e-5
        )

    def test_all_items_of_some_users_at_once(self, data_path: Path) -> None:
        run = self.build(data_path, **GIVEN).fit()
        users = run.dataset.split.test_users
        scores = run.model.full_sort_predict(Interaction({"user_id": torch.from_numpy(users)}))
        first = run.dataset.pair.items("target").start
        found = scores.view(len(users), -1)[:, first:].numpy()
        expected = naive_scores(run, unit=False, penalty=2.0)[users]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_what_is_not_given_is_chosen_on_validation_users(self, data_path: Path) -> None:
        chosen = self.build(data_path, metric_decimal_place=9).fit()
        of_all = {}
        for row_scale in ("raw", "unit"):
            for penalty in (0.3, 1.0, 3.0, 10.0, 30.0):
                given = {"row_scale": row_scale, "ridge_penalty": penalty}
                run = self.build(data_path, **given, metric_decimal_place=9).fit()
                of_all[row_scale, penalty] = run.evaluate("valid")["ndcg@10"]
        assert len(set(of_all.values())) > 3
        assert chosen.evaluate("valid")["ndcg@10"] == max(of_all.values())
        scale, penalty = max(of_all, key=lambda given: of_all[given])
        expected = naive_scores(chosen, unit=scale == "unit", penalty=penalty)
        user, item = pairs_of_both_kinds(chosen)
        first = chosen.dataset.pair.items("target").start
        np.testing.assert_allclose(
            chosen.scores(user, item), expected[user, item - first], rtol=1e-4, atol=1e-5
        )

    def test_without_validation_users_it_is_raw_rows_and_a_penalty_of_3(
        self, data_path: Path
    ) -> None:
        run = self.build(data_path, valid_user_ratio=0.0).fit()
        expected = naive_scores(run, unit=False, penalty=3.0)
        user, item = pairs_of_both_kinds(run)
        first = run.dataset.pair.items("target").start
        np.testing.assert_allclose(
            run.scores(user, item), expected[user, item - first], rtol=1e-4, atol=1e-5
        )

    def test_fewer_directions_are_an_approximation(self, data_path: Path) -> None:
        exact, near, far = (
            self.build(data_path, **GIVEN, row_rank=rank).fit() for rank in (1024, 20, 2)
        )
        user, item = pairs_of_both_kinds(exact)
        errors = [
            np.abs(r.scores(user, item) - exact.scores(user, item)).mean() for r in (near, far)
        ]
        assert 0 < errors[0] < errors[1]

    def test_is_no_rating(self, data_path: Path) -> None:
        with pytest.raises(ConfigError, match="RidgeBridge does ranking only"):
            build_run(data_path, model="RidgeBridge", eval_task="rating")
