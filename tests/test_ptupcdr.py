"""PTUPCDR against NumPy on its own parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from bridge_checks import BridgeChecks, PersonalisedReference
from model_checks import TINY


class TestPTUPCDR(BridgeChecks):
    # Slower, three epochs would not move all of the attention.
    config: ClassVar = {"model": "PTUPCDR", **TINY, "learning_rate": 0.05, "select_epoch": "last"}
    solves = ("one_linear_map",)
    expected_to_fail = ("two_groups",)
    reference = PersonalisedReference
    transformed = PersonalisedReference.transformed
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "mapping": {"bridge_loss": "mapping"},
        "not_rating_aware": {"rating_aware": False},
        "positive": {"history": "positive"},
        "last_three": {"history_length": 3},
        "ranking": {"eval_task": "ranking"},
        "paper": {"preset": "paper"},
    }

    @pytest.mark.parametrize("task", ["rating", "ranking"])
    def test_a_bridge_is_made_once_an_epoch(self, data_path: Path, task: str) -> None:
        """But of the users whose ratings are in two batches."""
        made = {}
        for batches in ("users", "rows"):
            values = {"eval_task": task, "meta_batches": batches, "train_batch_size": 64}
            run = self.build(data_path, **values)
            loader = run.model.stages(run.dataset, None)[-1].training.loader
            users = [set(batch["user_id"].tolist()) for batch in loader]
            made[batches] = sum(map(len, users)) - len(set.union(*users))
        assert 0 < made["users"] < len(loader)
        assert made["rows"] > 3 * made["users"]

    def test_batches_of_users_are_a_24th_of_the_ratings(self, data_path: Path) -> None:
        run = self.build(data_path, train_batch_size=2, largest_batch_size=10**6)
        loader = run.model.stages(run.dataset, None)[-1].training.loader
        assert len(next(iter(loader))["user_id"]) == -(-loader.n_rows // 24)
        assert self.shuffles_users(loader)

    @pytest.mark.parametrize(
        "values",
        [
            {"train_batch_size": 2},  # given, so that it does not grow
            {"train_batch_size": 128, "largest_batch_size": 10**6},
            {"train_batch_size": 2, "largest_batch_size": 10**6, "meta_batch_size": 50},
            {"train_batch_size": 2, "largest_batch_size": 10**6, "meta_batches": "rows"},
        ],
        ids=str,
    )
    def test_else_ratings_are_shuffled(self, data_path: Path, values: dict[str, Any]) -> None:
        run = self.build(data_path, **values)
        assert not self.shuffles_users(run.model.stages(run.dataset, None)[-1].training.loader)

    @staticmethod
    def shuffles_users(loader: Any) -> bool:
        """Whether all rows of each user follow each other."""
        user = [u for batch in loader for u in batch["user_id"].tolist()]
        begins = [u for place, u in enumerate(user) if place == 0 or user[place - 1] != u]
        return len(begins) == len(set(begins))


class TestPTUPCDRPaper(BridgeChecks):
    config: ClassVar = {"model": "PTUPCDR", **TINY, "preset": "paper", "base_model": "GMF"}
    reference = PersonalisedReference
    transformed = PersonalisedReference.transformed
