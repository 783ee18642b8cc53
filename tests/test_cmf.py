"""CMF against NumPy on its own parameters."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from model_checks import TINY, ModelChecks, Run, numpy_state, pairs_of_both_kinds, run_mm


def score(run: Run, user: int, item: int) -> float:
    """Mean, biases and product, from the state_dict: one row of users, an item table a domain."""
    state = numpy_state(run)
    n_source_items = run.dataset.pair.n_source_items
    domain, row = ("source", item) if item <= n_source_items else ("target", item - n_source_items)
    weight = state.get(f"{domain}.linear.weight", np.ones((1, 1)))[0]
    product = state["source.users.embedding"][user] * (
        weight * state[f"{domain}.items.embedding"][row]
    )
    biases = state["source.users.bias"][user] + state[f"{domain}.items.bias"][row]
    return (state[f"{domain}.mean"] + biases + product.sum()).item()


def squared_norms(run: Run, user: int, item: int) -> float:
    state = numpy_state(run)
    n_source_items = run.dataset.pair.n_source_items
    domain, row = ("source", item) if item <= n_source_items else ("target", item - n_source_items)
    rows = [state[f"source.users.{table}"][user] for table in ("embedding", "bias")]
    weight = state.get(f"{domain}.linear.weight", np.ones((1, 1)))[0]
    rows += [weight * state[f"{domain}.items.embedding"][row]]
    rows += [state[f"{domain}.items.bias"][row]]
    return sum(float(np.sum(vector**2)) for vector in rows)


class TestCMF(ModelChecks):
    config: ClassVar = {"model": "CMF", **TINY}
    solves = ("one_linear_map",)  # the map goes into the item vectors
    expected_to_fail = ("two_groups",)

    @pytest.mark.parametrize("base_model", ["MF", "GMF"])
    @pytest.mark.parametrize("preset", ["default", "paper"])
    def test_score(self, data_path: Path, base_model: str, preset: str) -> None:
        run = self.build(data_path, base_model=base_model, preset=preset).fit()
        user, item = pairs_of_both_kinds(run)
        expected = [score(run, u, i) for u, i in zip(user, item, strict=True)]
        np.testing.assert_allclose(run.scores(user, item), expected, rtol=1e-5, atol=1e-5)

    def test_both_domains_share_the_users(self, trained: Run) -> None:
        model = trained.model
        assert model.source.users is model.target.users
        n_rows = model.source.users.table.rows.num_embeddings
        assert n_rows == trained.dataset.pair.n_users

    @pytest.mark.parametrize("source_loss_weight", [1.0, 0.25])
    def test_loss(self, data_path: Path, source_loss_weight: float) -> None:
        run = self.build(
            data_path, base_model="GMF", source_loss_weight=source_loss_weight, reg_weight=0.3
        ).fit()
        (stage,) = run.model.stages(run.dataset, None)
        batch = next(iter(stage.training.loader))
        user, item = batch["user_id"].tolist(), batch["item_id"].tolist()
        is_target = np.array(item) > run.dataset.pair.n_source_items
        assert 0 < is_target.sum() < len(item)
        pairs = list(zip(user, item, strict=True))
        errors = [score(run, u, i) for u, i in pairs] - batch["rating"].numpy()
        losses = errors**2 + 0.3 * np.array([squared_norms(run, u, i) for u, i in pairs])
        expected = np.average(losses, weights=np.where(is_target, 1.0, source_loss_weight))
        assert stage.training.loss(batch).item() == pytest.approx(expected, rel=1e-5)

    def test_reads_all_ratings_but_the_hidden_ones(self, trained: Run) -> None:
        (stage,) = trained.model.stages(trained.dataset, None)
        seen = [
            pair
            for batch in stage.training.loader
            for pair in zip(batch["user_id"].tolist(), batch["item_id"].tolist(), strict=True)
        ]
        parts = (trained.dataset.pair.source, trained.dataset.split.train)
        rows = [pair for p in parts for pair in zip(p.user.tolist(), p.item.tolist(), strict=True)]
        assert sorted(seen) == sorted(rows)

    def test_negatives_are_of_the_rows_own_domain(self, data_path: Path) -> None:
        run = self.build(data_path, eval_task="ranking")
        (stage,) = run.model.stages(run.dataset, None)
        first = run.dataset.pair.items("target").start
        parts = (run.dataset.pair.source, run.dataset.split.train)
        known = {pair for p in parts for pair in zip(p.user, p.item, strict=True)}
        for batch in stage.training.loader:
            negative = batch["neg_item_id"].squeeze(1)
            assert torch.equal(batch["item_id"] >= first, negative >= first)
            assert not known & set(zip(batch["user_id"].tolist(), negative.tolist(), strict=True))

    def test_cold_start_users_are_known_by_their_source_ratings(self, trained: Run) -> None:
        """Their vectors have left their initial values."""
        fresh = self.build(Path(trained.config["data_path"]).parent).model
        users = torch.from_numpy(trained.dataset.split.test_users)
        moved = trained.model.source.users.vectors(users) - fresh.source.users.vectors(users)
        assert (moved.abs().max(1).values > 0).all()

    def test_ends_with_the_weight_of_a_batch_without_target_rows(self, data_path: Path) -> None:
        result = run_mm(data_path, **{**self.config, "train_batch_size": 1, "epochs": 1})
        assert np.isfinite(result["test"]["RMSE"])
