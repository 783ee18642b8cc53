"""ItemMean against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from model_checks import FloorChecks, ModelChecks, pairs_of_both_kinds


class TestItemMean(FloorChecks, ModelChecks):
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
