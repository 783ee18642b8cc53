"""Runs by setting, and what is worked out of them, against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_results import Folder, K, run_of

from recbole_cdr_mm.benchmark.report.measures import Measures, Scenario, Setting
from recbole_cdr_mm.benchmark.results import load_results
from recbole_cdr_mm.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


def measures_of(folder: Folder) -> Measures:
    return Measures(load_results(folder.plan()))


def the(measures: Measures, label: str, **fields: Any) -> Setting:
    (setting,) = measures.select(label=label, **fields)
    return setting


class TestSettings:
    def test_seeds_are_together_and_failures_absent(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        folder.failed(run_of("EMCDR", 2))
        folder.missing(run_of("EMCDR", 3))
        folder.rating(run_of("EMCDR", 1, base_model="GMF"), 1.0)
        measures = measures_of(folder)
        setting = the(measures, "EMCDR", base_model=None)
        assert list(setting.planned) == [1, 2, 3]
        assert list(setting.done) == [1]
        assert len(measures.settings) == 2

    def test_nothing_done(self, folder: Folder) -> None:
        folder.missing(run_of("EMCDR", 1))
        measures = measures_of(folder)
        setting = the(measures, "EMCDR")
        assert measures.estimate(setting, "RMSE") is None
        assert np.isnan(measures.validation(setting))
        assert np.isnan(setting.seconds)
        assert measures.main_metric("rating") is None

    def test_variants_are_apart(self, folder: Folder) -> None:
        variant = {"name": "modality", "values": {"item_features": "id"}}
        folder.rating(run_of("MetaMMCDR", 1), 1.0)
        folder.rating(run_of("MetaMMCDR (item_features=id)", 1, variant=variant), 1.0)
        measures = measures_of(folder)
        assert [s.run.label for s in measures.select()] == ["MetaMMCDR"]
        (setting,) = measures.select("modality")
        assert setting.values == {"item_features": "id"}
        assert measures.variants == ["modality"]

    def test_models_without_presets_and_base_models_are_in_every_scenario(
        self, folder: Folder
    ) -> None:
        folder.rating(run_of("BiasTransfer", 1, kind="floor"), 1.0)
        for preset in ("default", "paper"):
            for base in ("MF", "GMF"):
                folder.rating(run_of("EMCDR", 1, preset=preset, base_model=base), 1.0)
            folder.rating(run_of("NoBase", 1, preset=preset), 1.0)
        folder.rating(run_of("DeepFM", 1, kind="RecBole"), 1.0)
        measures = measures_of(folder)
        assert measures.scenarios == [
            Scenario("rating", 0.2, preset, base)
            for preset in ("default", "paper")
            for base in ("MF", "GMF")
        ]
        assert measures.first_scenarios == [Scenario("rating", 0.2, "default", "MF")]
        for scenario in measures.scenarios:
            models = measures.models_of(scenario, "pair")
            labels = [setting.run.label for setting in models]
            assert sorted(labels) == ["BiasTransfer", "DeepFM", "EMCDR", "NoBase"]
            presets = {s.run.preset for s in models if s.run.label in ("EMCDR", "NoBase")}
            assert presets == {scenario.preset}


class TestEstimates:
    def test_ratings(self, folder: Folder) -> None:
        errors = []
        for seed in (1, 2, 3):
            columns = folder.rating(run_of("EMCDR", seed), 1.0)
            errors.append(columns["prediction"].astype(float) - columns["rating"])
        measures = measures_of(folder)
        setting = the(measures, "EMCDR")
        mae, rmse = (measures.estimate(setting, metric) for metric in ("MAE", "RMSE"))
        assert mae is not None
        assert rmse is not None
        assert mae.mean == pytest.approx(np.mean([np.abs(error).mean() for error in errors]))
        of_seeds = [np.sqrt(np.square(error).mean()) for error in errors]
        assert list(rmse.values.values()) == pytest.approx(of_seeds)
        assert rmse.low < rmse.mean < rmse.high

    def test_rankings(self, folder: Folder) -> None:
        for seed in (1, 2):
            folder.ranking(run_of("EMCDR", seed, eval_task="ranking"), 30)
        measures = measures_of(folder)
        setting = the(measures, "EMCDR")
        assert measures.shown_metrics("ranking") == ["NDCG@10", "Recall@20", "MRR@10", "Hit@10"]
        assert measures.other_metrics("ranking") == ["ItemCoverage@10"]
        for metric in measures.metrics("ranking"):
            found = measures.estimate(setting, metric)
            assert found is not None
            reported = [result["test"][metric] for result in setting.results]
            assert found.mean == pytest.approx(np.mean(reported), abs=1e-6), metric

    def test_parts_of_rows(self, folder: Folder) -> None:
        columns = folder.rating(run_of("EMCDR", 1), 1.0)
        measures = measures_of(folder)
        rows = measures.rows(the(measures, "EMCDR").done[1])
        chosen = columns["item_ratings"] == 0
        error = columns["prediction"].astype(float) - columns["rating"]
        found = rows.user_values("MAE", chosen)
        assert found.value == pytest.approx(np.abs(error[chosen]).mean())
        assert found.user.tolist() == sorted(set(columns["user"][chosen]))

    def test_hit_rate(self, folder: Folder) -> None:
        columns = folder.ranking(run_of("EMCDR", 1, eval_task="ranking"), 30)
        measures = measures_of(folder)
        rows = measures.rows(the(measures, "EMCDR").done[1])
        chosen = columns["item_ratings"] > 20
        rank = columns["rank"][chosen]
        assert rows.saved_places == K
        for k in (5, K):
            expected = ((rank > 0) & (rank <= k)).mean()
            assert rows.hit_rate(k, chosen).value == pytest.approx(expected)

    def test_profiles_are_those_of_the_users(self, folder: Folder) -> None:
        columns = folder.rating(run_of("EMCDR", 1), 1.0)  # its `users` are in another order
        measures = measures_of(folder)
        rows = measures.rows(the(measures, "EMCDR").done[1])
        of_user = dict(zip(columns["users"], columns["history_length"], strict=True))
        expected = [of_user[user] for user in rows.users]
        assert rows.profiles["history_length"].tolist() == expected

    def test_seconds(self, folder: Folder) -> None:
        for seed in (1, 2):
            folder.rating(run_of("EMCDR", seed), 1.0)
        assert the(measures_of(folder), "EMCDR").seconds == 2.0 + 3.5

    def test_a_damaged_file(self, folder: Folder) -> None:
        run = run_of("EMCDR", 1)
        folder.rating(run, 1.0)
        (folder.out / "runs" / f"{run['key']}.npz").write_bytes(b"no archive")
        measures = measures_of(folder)
        with pytest.raises(ConfigError, match=r"cannot be read .* Remove"):
            measures.estimate(the(measures, "EMCDR"), "RMSE")


class TestReference:
    @pytest.mark.parametrize("task", ["rating", "ranking"])
    def test_validation_users_choose(self, folder: Folder, task: str) -> None:
        add = folder.rating if task == "rating" else folder.ranking
        good, bad = ({"valid": v} for v in ((0.9, 1.1) if task == "rating" else (0.2, 0.1)))
        # On the test users the second one is better.
        for label, size, valid in (("First", 40, good), ("Second", 20, bad)):
            run = run_of(label, 1, kind="floor", eval_task=task)
            add(run, size, **valid)  # type: ignore[operator]
        add(run_of("NoFloor", 1, eval_task=task), 10)  # type: ignore[operator]
        measures = measures_of(folder)
        chosen = measures.reference(measures.settings)
        assert chosen is not None
        assert chosen.run.label == "First"

    def test_none_without_a_floor(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        measures = measures_of(folder)
        assert measures.reference(measures.settings) is None


class TestCompare:
    def test_on_common_seeds(self, folder: Folder) -> None:
        for seed in (1, 2):
            folder.rating(run_of("EMCDR", seed), 1.0)
        for seed in (2, 3):
            folder.rating(run_of("PTUPCDR", seed), 1.2)
        measures = measures_of(folder)
        emcdr, ptupcdr = the(measures, "EMCDR"), the(measures, "PTUPCDR")
        found = measures.compare(emcdr, ptupcdr, "RMSE")
        assert found is not None
        of_each = [s.done[2].result for s in (emcdr, ptupcdr)]
        one, other = (result["test"]["RMSE"] for result in of_each if result)
        assert found.difference.values == {2: pytest.approx(one - other)}

    def test_none_without_a_common_seed(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        folder.rating(run_of("PTUPCDR", 2), 1.0)
        measures = measures_of(folder)
        one, other = measures.settings
        assert measures.compare(one, other, "RMSE") is None

    @pytest.mark.parametrize("add", ["rating", "ranking"])
    def test_none_on_other_items_of_the_same_users(self, folder: Folder, add: str) -> None:
        """As many of them: `unseen_item_ratio` can leave each user with one row."""
        split = folder.split
        for label, other in (("One", False), ("Two", False), ("Other", True)):
            run = run_of(label, 1, eval_task=add)
            folder.split = lambda run, other=other: {  # type: ignore[method-assign]
                **(columns := split(run)),
                "item": np.char.add(columns["item"], "x" if other else ""),
            }
            getattr(folder, add)(run, 9.0 if add == "rating" else 30)
        measures = measures_of(folder)
        metric = measures.main_metric(add)
        assert metric is not None
        one, two, other = (the(measures, label) for label in ("One", "Two", "Other"))
        assert measures.compare(one, two, metric) is not None
        assert measures.compare(one, other, metric) is None

    def test_none_on_other_rows(self, folder: Folder) -> None:
        folder.rating(run_of("EMCDR", 1), 1.0)
        folder.n_rows -= 1
        folder.rating(run_of("PTUPCDR", 1), 1.0)
        measures = measures_of(folder)
        one, other = measures.settings
        assert measures.compare(one, other, "RMSE") is None
