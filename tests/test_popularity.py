"""Popularity against plain counting."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from model_checks import ModelChecks, Run, build_run, pairs_of_both_kinds

from recbole_cdr_mm.errors import ConfigError


class TestPopularity(ModelChecks):
    config: ClassVar = {"model": "Popularity"}

    def test_counts_positives_in_training(self, trained: Run) -> None:
        user, item = pairs_of_both_kinds(trained)
        train = trained.dataset.split.train
        assert min(train.rating) >= 4
        expected = [sum(1 for j in train.item if i == j) for i in item]
        assert len(set(expected)) > 3
        assert trained.scores(user, item).tolist() == expected

    def test_threshold_decides_what_is_counted(self, data_path: Path, trained: Run) -> None:
        fives = self.build(data_path, positive_threshold=5).fit()
        assert fives.model.count.sum() == (trained.dataset.split.train.rating == 5).sum()
        assert 0 < fives.model.count.sum() < trained.model.count.sum()

    def test_is_no_rating(self, data_path: Path) -> None:
        with pytest.raises(ConfigError, match="Popularity does ranking only"):
            build_run(data_path, model="Popularity", eval_task="rating")
