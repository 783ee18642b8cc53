"""Worlds with a known truth: what a personalised bridge must find there, and what nobody can.

Everything is measured against BiasTransfer, which no vector enters, and against one map for all,
fitted here in NumPy on the trained base models (EMCDR's idea).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import PLANTED, Run, build_run, planted_rmse, planted_world

from dataset_tools.feature_store import read_store, write_store
from dataset_tools.synthetic import write_pair
from recbole_cdr_mm.data import dataset as dataset_module
from recbole_cdr_mm.data.pair import Pair
from recbole_cdr_mm.data.split import ColdStartSplit
from recbole_cdr_mm.model import find_models

META = {"model": "MetaMMCDR", **PLANTED}
RATING_MODELS = [name for name, model in find_models().items() if "rating" in model.eval_tasks]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def two_groups(base: Path) -> Run:
    data_path, _ = planted_world(base, "two_groups")
    return build_run(data_path, "planted", **META).fit()


@pytest.fixture(scope="module")
def one_linear_map(base: Path) -> Run:
    data_path, _ = planted_world(base, "one_linear_map")
    return build_run(data_path, "planted", **META).fit()


def rmse(run: Run) -> float:
    return run.evaluate()["rmse"]


def rmse_of_one_map(run: Run) -> float:
    """The bridge replaced by one least-squares map from source to target user vectors."""
    model, dataset = run.model, run.dataset
    users = torch.from_numpy(
        np.intersect1d(dataset.pair.overlapped_users, dataset.split.train.user)
    )
    with torch.no_grad():
        source = model.source.users.vectors(users).numpy()
        target = model.target.users.vectors(users).numpy()
        mapping, *_ = np.linalg.lstsq(source, target, rcond=None)
        test = dataset.split.test
        user, item = torch.from_numpy(test.user), torch.from_numpy(test.item)
        floor = model.floor(user, item).numpy()
        mapped = model.source.users.vectors(user).numpy() @ mapping
        dot = (mapped * model.cold_item_e[item].numpy()).sum(1)
    return float(np.sqrt(np.mean((np.clip(floor + dot, 1, 5) - test.rating) ** 2)))


def with_features(base: Path, folder: Path, change: Any) -> Path:
    """The world `two_groups` with other text features of the source items."""
    data_path, pair = planted_world(base, "two_groups")
    write_pair(pair, folder, "planted")
    for domain in ("planted_movie", "planted_cd"):
        store = read_store(data_path / domain, domain, "text")
        matrix = np.asarray(store.matrix)
        info = {key: value for key, value in store.info.items() if key != "dim"}
        write_store(folder / domain, domain, "text", store.ids, change(matrix), info)
    return folder


class TestTwoGroups:
    def test_beats_the_floor_by_far(self, base: Path, two_groups: Run) -> None:
        _, pair = planted_world(base, "two_groups")
        floor = planted_rmse(base, "two_groups", model="BiasTransfer")
        assert rmse(two_groups) < 0.5 * floor
        assert rmse(two_groups) > pair.noise_floor

    def test_beats_one_map_for_all_by_far(self, base: Path, two_groups: Run) -> None:
        floor = planted_rmse(base, "two_groups", model="BiasTransfer")
        assert rmse_of_one_map(two_groups) > 0.9 * floor
        assert rmse(two_groups) < 0.6 * rmse_of_one_map(two_groups)

    def test_the_groups_are_found_in_the_text(
        self, base: Path, tmp_path: Path, two_groups: Run
    ) -> None:
        """Not with features that say nothing: of other items, or the same for all."""
        order = np.random.default_rng(0).permutation
        for name, change in (("shuffled", order), ("constant", np.ones_like)):
            folder = with_features(base, tmp_path / name, change)
            without = rmse(build_run(folder, "planted", **META).fit())
            assert rmse(two_groups) < 0.7 * without, name

    def test_it_is_the_bridge_that_does_it(self, base: Path, two_groups: Run) -> None:
        """Without its training the model is its floor, to the last digit or so."""
        model = two_groups.model
        trained = rmse(two_groups)
        output = {name: p.clone() for name, p in model.meta_network.output.named_parameters()}
        try:
            with torch.no_grad():
                for parameter in model.meta_network.output.parameters():
                    parameter.zero_()
            model.train()  # forget the bridges that were generated
            untrained = rmse(two_groups)
        finally:
            with torch.no_grad():
                for name, parameter in model.meta_network.output.named_parameters():
                    parameter.copy_(output[name])
            model.train()
        test = two_groups.dataset.split.test
        floor = model.floor(torch.from_numpy(test.user), torch.from_numpy(test.item)).numpy()
        assert untrained == pytest.approx(np.sqrt(np.mean((floor - test.rating) ** 2)), abs=1e-5)
        assert rmse(two_groups) == trained < 0.6 * untrained


class TestOneLinearMap:
    def test_is_found(self, base: Path, one_linear_map: Run) -> None:
        floor = planted_rmse(base, "one_linear_map", model="BiasTransfer")
        assert rmse(one_linear_map) < 0.5 * floor

    def test_one_map_for_all_finds_it_too(self, base: Path, one_linear_map: Run) -> None:
        """Else the baseline of `two_groups` would be a straw man."""
        floor = planted_rmse(base, "one_linear_map", model="BiasTransfer")
        assert rmse_of_one_map(one_linear_map) < 0.5 * floor


class TestNoSignal:
    """Who beats the floor here has a leak."""

    @pytest.mark.parametrize("name", RATING_MODELS)
    def test_nobody_beats_the_floor(self, base: Path, name: str) -> None:
        floor = min(
            planted_rmse(base, "no_signal", model=model) for model in ("GlobalMean", "ItemMean")
        )
        assert planted_rmse(base, "no_signal", model=name) > 0.98 * floor

    def test_the_bridge_stays_near_the_floor(self, base: Path) -> None:
        floor = planted_rmse(base, "no_signal", model="BiasTransfer")
        assert planted_rmse(base, "no_signal", model="MetaMMCDR") < 1.02 * floor

    def test_a_leak_would_be_seen(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the hidden ratings left in training the bound breaks."""
        data_path, _ = planted_world(base, "no_signal")
        split_cold_start = dataset_module.split_cold_start

        def leaking(pair: Pair, **values: Any) -> ColdStartSplit:
            return dataclasses.replace(split_cold_start(pair, **values), train=pair.target)

        floor = planted_rmse(base, "no_signal", model="GlobalMean")
        monkeypatch.setattr(dataset_module, "split_cold_start", leaking)
        leaked = build_run(data_path, "planted", model="TargetMF", **PLANTED).fit()
        assert rmse(leaked) < 0.98 * floor
