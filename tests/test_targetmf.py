"""TargetMF against NumPy on its own parameters."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from model_checks import TINY, ModelChecks, Run, numpy_state, pairs_of_both_kinds


def score(run: Run, user: np.ndarray, item: np.ndarray, *, random: bool) -> list[float]:
    """Mean, biases and dot products, from the state_dict."""
    state = numpy_state(run)
    pair, train = run.dataset.pair, run.dataset.split.train
    n_overlapped, n_source_only = pair.n_overlapped, pair.n_source_only
    row_of = {u: u if u <= n_overlapped else u - n_source_only for u in range(pair.n_users)}
    for source_only in range(n_overlapped + 1, n_overlapped + n_source_only + 1):
        del row_of[source_only]
    warm = sorted(set(train.user.tolist()))
    table, bias = state["target.users.embedding"], state["target.users.bias"]
    mean_e = np.mean([table[row_of[u]] for u in warm], axis=0)
    mean_bias = np.mean([bias[row_of[u]] for u in warm])
    scores = []
    for u, i in zip(user, item, strict=True):
        own = u in warm or (random and u in row_of)
        user_e, user_bias = (table[row_of[u]], bias[row_of[u]]) if own else (mean_e, mean_bias)
        row = i - pair.n_source_items
        item_e = state["target.items.embedding"][row]
        item_bias = state["target.items.bias"][row]
        scores.append(state["target.mean"] + user_bias + item_bias + user_e @ item_e)
    return scores


class TestTargetMF(ModelChecks):
    config: ClassVar = {"model": "TargetMF", **TINY}
    expected_to_fail = ("one_linear_map", "two_groups")

    @pytest.mark.parametrize("cold_user", ["mean", "random"])
    @pytest.mark.parametrize("use_bias", [True, False])
    def test_score(self, data_path: Path, cold_user: str, use_bias: bool) -> None:
        run = self.build(data_path, cold_user=cold_user, use_bias=use_bias, embedding_std=1.0).fit()
        user, item = pairs_of_both_kinds(run)
        expected = score(run, user, item, random=cold_user == "random")
        np.testing.assert_allclose(run.scores(user, item), expected, rtol=1e-5, atol=1e-5)
        has_bias = numpy_state(run)["target.items.bias"].any()
        assert has_bias == use_bias

    def test_random_vectors_are_those_of_the_start(self, data_path: Path) -> None:
        fresh = self.build(data_path, cold_user="random").model
        trained = self.build(data_path, cold_user="random").fit()
        table = trained.model.target.users.table.rows.weight
        cold = trained.dataset.split.test_users
        assert (table[cold] == fresh.target.users.table.rows.weight[cold]).all()
        warm = int(trained.dataset.split.train.user[0])
        assert (table[warm] != fresh.target.users.table.rows.weight[warm]).all()

    def test_batches_grow_with_the_rows_of_a_stage(self, data_path: Path) -> None:
        model = self.build(data_path, train_batch_size=16, largest_batch_size=40).model
        sizes = [model.batch_size("target", n) for n in (100, 256 * 16 + 1, 256 * 30, 256 * 90)]
        assert sizes == [16, 17, 30, 40]
        fixed = self.build(data_path, target_batch_size=8, largest_batch_size=40).model
        assert fixed.batch_size("target", 256 * 90) == 8
        assert self.build(data_path, train_batch_size=16).model.batch_size("target", 10**6) == 16

    def test_loss_is_squared_error_and_penalty(self, data_path: Path) -> None:
        run = self.build(data_path, reg_weight=0.3)
        (stage,) = run.model.stages(run.dataset, None)
        batch = next(iter(stage.training.loader))
        model = run.model.target
        user, item = batch["user_id"], batch["item_id"]
        run.model.trained_stages.append("target")
        error = run.scores(user.numpy(), item.numpy()) - batch["rating"].numpy()
        norms = [
            model.users.vectors(user).square().sum(1).mean().item(),
            model.items.vectors(item).square().sum(1).mean().item(),
        ]  # the biases are 0 at the start
        expected = np.mean(error**2) + 0.3 * sum(norms)
        assert stage.training.loss(batch).item() == pytest.approx(expected, rel=1e-5)

    def test_bpr_draws_items_that_the_user_has_not_rated(self, data_path: Path) -> None:
        run = self.build(data_path, eval_task="ranking")
        (stage,) = run.model.stages(run.dataset, None)
        train = run.dataset.split.train
        known = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
        first = run.dataset.pair.items("target").start
        for batch in stage.training.loader:
            negative = batch["neg_item_id"].squeeze(1).tolist()
            drawn = list(zip(batch["user_id"].tolist(), negative, strict=True))
            assert not known & set(drawn)
            assert min(item for _, item in drawn) >= first

    def test_learns_what_it_is_trained_on(self, data_path: Path) -> None:
        run = self.build(data_path, epochs=60, learning_rate=0.02, reg_weight=0.0)
        run.fit()
        train = run.dataset.split.train
        error = run.scores(train.user, train.item) - train.rating
        assert np.sqrt(np.mean(error**2)) < 0.7 * train.rating.std()
