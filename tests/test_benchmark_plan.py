"""Which runs a plan asks for, what makes two runs the same, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_checks import tiny_pair, write_world

from dataset_tools.synthetic import domain_names
from recbole_cdr_mm import identity
from recbole_cdr_mm.benchmark.plan import FLOORS, Plan, read_plan
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.property_files import PROPERTIES
from recbole_cdr_mm.schema import read_properties

SOURCE, TARGET = domain_names("tiny")


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def plan_of(folder: Path, data_path: Path, given: Any = None, **values: Any) -> Plan:
    values = {"datasets": ["tiny"], "models": ["EMCDR"], **values}
    values["config"] = {"data_path": str(data_path), "use_gpu": False, **values.get("config", {})}
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(values))
    return read_plan(file, given or {})


def test_the_whole_grid(tmp_path: Path, data_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        data_path,
        models=["EMCDR", "DeepFM", "BPR"],
        base_models=["MF", "GMF"],
        presets=["default", "paper"],
        test_user_ratios=[0.2, 0.5],
        seeds=[1, 2, 3],
    )
    counts = Counter((run.eval_task, run.label) for run in plan.runs)
    draws = 2 * 3
    expected = {("rating", "EMCDR"): 4 * draws, ("ranking", "EMCDR"): 4 * draws}
    expected |= {("rating", "DeepFM"): draws, ("ranking", "DeepFM"): draws}
    expected |= {("ranking", "BPR"): draws}  # it predicts no ratings
    expected |= {(task, floor): draws for task, floors in FLOORS.items() for floor in floors}
    assert counts == expected
    assert len({run.key for run in plan.runs}) == len(plan.runs)
    assert {run.config["split_seed"] for run in plan.runs} == {1, 2, 3}
    assert all(run.config["seed"] == run.seed for run in plan.runs)
    gmf = [run for run in plan.runs if run.base_model == "GMF"]
    assert {run.config["base_model"] for run in gmf} == {"GMF"}
    kinds = {run.model: run.kind for run in plan.runs if run.eval_task == "ranking"}
    assert kinds == {
        "Popularity": "floor",
        "RidgeBridge": "floor",
        "ItemKNN": "floor",
        "EASE": "floor",
        "EMCDR": "cross-domain",
        "DeepFM": "RecBole",
        "BPR": "RecBole",
    }


def test_all_is_every_model_of_the_package(tmp_path: Path, data_path: Path) -> None:
    plan = plan_of(tmp_path, data_path, models=["all"], seeds=[1])
    for task in FLOORS:
        able = {name for name, model in find_models().items() if task in model.eval_tasks}
        assert {run.model for run in plan.runs if run.eval_task == task} == able | set(FLOORS[task])


def test_defaults_are_a_plan(tmp_path: Path, data_path: Path) -> None:
    defaults, _ = read_properties(PROPERTIES / "benchmark.yaml")
    file = tmp_path / "plan.yaml"
    file.write_text(f"datasets: [tiny]\nconfig: {{data_path: {data_path}, use_gpu: False}}\n")
    runs = read_plan(file, {}).runs
    assert {run.seed for run in runs} == set(defaults["seeds"])  # type: ignore[call-overload]
    assert {"NeuMF", "BPR", "LightGCN", "FM", "DeepFM", "ItemKNN"} < {run.model for run in runs}


class TestVariants:
    def test_a_list_is_a_grid(self, tmp_path: Path, data_path: Path) -> None:
        few_shot = {
            "name": "few_shot",
            "model": ["EMCDR", "PTUPCDR"],
            "few_shot": [0, 2],
            "few_shot_start": ["random", "target"],
            "test_user_ratio": 0.5,
            "eval_task": "rating",
        }
        plan = plan_of(tmp_path, data_path, seeds=[1], variants=[few_shot])
        runs = [run for run in plan.runs if run.variant]
        assert {run.label for run in runs} == {
            f"{model} (few_shot={n}, few_shot_start={start})"
            for model in ("EMCDR", "PTUPCDR")
            for n in (0, 2)
            for start in ("random", "target")
        }
        assert {(run.test_user_ratio, run.eval_task) for run in runs} == {(0.5, "rating")}
        values = {"few_shot": 0, "few_shot_start": "random"}
        assert runs[0].variant == {"name": "few_shot", "values": values}

    def test_a_floor_by_its_median(self, tmp_path: Path, data_path: Path) -> None:
        variant = {"name": "estimate", "model": "BiasTransfer", "point_estimate": "median"}
        plan = plan_of(
            tmp_path, data_path, seeds=[1], variants=[{**variant, "eval_task": "rating"}]
        )
        (run,) = (run for run in plan.runs if run.variant)
        assert run.label == "BiasTransfer (point_estimate=median)"
        assert run.key not in {other.key for other in plan.runs if other is not run}
        with pytest.raises(ConfigError, match="`point_estimate: median` is of ratings"):
            plan_of(tmp_path, data_path, seeds=[1], variants=[{**variant, "eval_task": "ranking"}])

    def test_only_the_first_preset_and_base_model(self, tmp_path: Path, data_path: Path) -> None:
        variant = {"name": "epochs", "model": "EMCDR", "meta_epochs": 1, "eval_task": "rating"}
        values = {"presets": ["default", "paper"], "base_models": ["GMF", "MF"], "seeds": [1]}
        for extra, expected in (({}, ["GMF"]), ({"base_model": ["MF", "GMF"]}, ["MF", "GMF"])):
            plan = plan_of(tmp_path, data_path, **values, variants=[{**variant, **extra}])
            runs = [run for run in plan.runs if run.variant]
            assert [run.base_model for run in runs] == expected
            assert {run.preset for run in runs} == {"default"}

    def test_values_of_the_main_run_are_the_main_run(self, tmp_path: Path, data_path: Path) -> None:
        variant = {"name": "modality", "model": "MetaMMCDR", "item_features": ["text", "id"]}
        plan = plan_of(tmp_path, data_path, models=["MetaMMCDR"], seeds=[1], variants=[variant])
        main = {run.eval_task: run.key for run in plan.runs if run.label == "MetaMMCDR"}
        for run in plan.runs:
            if run.variant:
                same = run.variant["values"]["item_features"] == "text"
                assert (run.key == main[run.eval_task]) is same


class TestSameRun:
    def keys(self, folder: Path, data_path: Path, **values: Any) -> list[str]:
        plan = plan_of(folder, data_path, seeds=[1], eval_tasks=["rating"], **values)
        return [run.key for run in plan.runs if run.model == "EMCDR"]

    def test_what_changes_a_key(
        self, tmp_path: Path, data_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.keys(tmp_path, data_path)
        assert self.keys(tmp_path, data_path, config={"show_progress": True}) == first
        assert self.keys(tmp_path, data_path, config={"reg_weight": 0.02}) == first  # the default
        assert self.keys(tmp_path, data_path, config={"reg_weight": 0.03}) != first
        assert self.keys(tmp_path, data_path, model_config={"EMCDR": {"epochs": 3}}) != first
        assert (
            self.keys(tmp_path, data_path, model_config={"ItemMean": {"item_shrinkage": 9.0}})
            == first
        )
        monkeypatch.setattr(identity, "code_version", lambda: "another")
        assert self.keys(tmp_path, data_path) != first

    def test_the_same_files_elsewhere(self, tmp_path: Path, data_path: Path) -> None:
        moved = tmp_path / "moved"
        shutil.copytree(data_path, moved)
        assert self.keys(tmp_path, moved) == self.keys(tmp_path, data_path)
        file = moved / TARGET / f"{TARGET}.inter"
        file.write_text(file.read_text().replace("\t5", "\t4", 1))
        assert self.keys(tmp_path, moved) != self.keys(tmp_path, data_path)

    def test_code_version_is_that_of_what_computes(self) -> None:
        version = identity.code_version()
        assert identity.code_version() == version
        assert len(version) == 12


def test_command_line_wins(tmp_path: Path, data_path: Path) -> None:
    plan = plan_of(tmp_path, data_path, {"epochs": 7}, config={"epochs": 3}, seeds=[1])
    assert {run.config["epochs"] for run in plan.runs} == {7}


class TestTuned:
    def plan(self, folder: Path, data_path: Path, **search: Any) -> Plan:
        outcome = {
            "model": "EMCDR",
            "dataset": "tiny",
            "eval_task": "rating",
            "preset": "default",
            "base_model": "MF",
            "trials": 20,
            "split_seeds": [2020],
            "best": {"reg_weight": 0.5},
        }
        tuned = folder / "tuned"
        tuned.mkdir(exist_ok=True)
        (tuned / "EMCDR.json").write_text(json.dumps({**outcome, **search}))
        return plan_of(folder, data_path, tuned=str(tuned), seeds=[1], presets=["default", "paper"])

    def test_best_values_and_budget(self, tmp_path: Path, data_path: Path) -> None:
        for run in self.plan(tmp_path, data_path).runs:
            mine = (run.model, run.eval_task, run.preset) == ("EMCDR", "rating", "default")
            assert run.trials == (20 if mine else None)
            assert run.tuned_on == ([2020] if mine else None)
            assert ("reg_weight" in run.config) is mine

    @pytest.mark.parametrize(
        "other", [{"dataset": "other"}, {"base_model": "GMF"}, {"eval_task": "ranking"}], ids=str
    )
    def test_made_for_other_runs(
        self, tmp_path: Path, data_path: Path, other: dict[str, Any]
    ) -> None:
        runs = self.plan(tmp_path, data_path, **other).runs
        rating = [run for run in runs if run.eval_task == "rating"]
        assert {run.trials for run in rating} == {None}

    def test_missing_folder(self, tmp_path: Path, data_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"`tuned: .*none` is no folder\. Name the one"):
            plan_of(tmp_path, data_path, tuned=str(tmp_path / "none"))

    def test_damaged(self, tmp_path: Path, data_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"EMCDR\.json: is no outcome of"):
            self.plan(tmp_path, data_path, trials="many")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seedz": [1]}, r"plan\.yaml, line \d+: unknown key `seedz` of a plan\. Did you mean"),
        ({"epochs": 3}, r"unknown key `epochs` of a plan\. Keys of runs belong under `config`\."),
        ({"datasets": []}, r"`datasets: \[\]` must name one or more, once each\."),
        ({"seeds": [1, 1]}, r"`seeds: \[1, 1\]` must name one or more, once each\."),
        ({"seeds": "1"}, r"`seeds: 1` must be \(list of 0 <= int"),
        ({"eval_tasks": ["rank"]}, r"`eval_tasks: \['rank'\]`: there are rating and ranking\."),
        ({"models": ["EMCRD"]}, r"There is no model `EMCRD`.*Did you mean `EMCDR`"),
        (
            {"models": ["BPR"], "eval_tasks": ["rating"]},
            r"BPR does no rating\. Leave it out of `models`\.",
        ),
        (
            {"config": {"epochz": 3}},
            r"plan\.yaml: unknown key `epochz` of `config`\. Did you mean `epochs`",
        ),
        ({"config": {"seed": 3}}, r"`seed` of `config` is set by `seeds`\. Leave it out\."),
        (
            {"ranking": {"result_json": "x"}},
            r"`result_json` of `ranking` is set by the benchmark itself\. Leave it out\.",
        ),
        (
            {"model_config": {"EMCDR": {"preset": "paper"}}},
            r"`preset` of `model_config: EMCDR` is set by `presets`\.",
        ),
        ({"model_config": {"EMCDR": {"history": "all"}}}, r"unknown key `history`"),
        ({"datasets": ["tinny"]}, r"`tinny` is no pair"),
        ({"test_user_ratios": [1.5]}, r"`test_user_ratios: \[1\.5\]` must be"),
        ({"variants": [{"model": "EMCDR"}]}, r"plan\.yaml, variant 1: give it a `name`"),
        ({"variants": [{"name": "x"}]}, r"variant 1: give it a `name`, and a `model`"),
        (
            {"variants": [{"name": "x", "model": "EMCDR", "split_seed": 3}]},
            r"variant 1: `split_seed` is set by `seeds`\.",
        ),
        ({"presets": []}, r"`presets: \[\]` must name one or more, once each"),
        ({"presets": ["papr"]}, r"`presets: \['papr'\]`: there are default and paper"),
        ({"seeds": [1, -1]}, r"`seeds: \[1, -1\]` must be \(list of 0 <= int"),
        ({"test_user_ratios": [0.2, 1.5]}, r"`test_user_ratios: .* must be \(list of 0 < float"),
        ({"config": {1: 2}}, r"`config` must hold `key: value` lines, and holds \{"),
        ({"model_config": {"EMCDR": 3}}, r"`model_config: EMCDR` must hold `key: value` lines"),
        (
            {"model_config": {"EMCDRR": {}}},
            r"`model_config: EMCDRR`: the plan does not run it\. Did",
        ),
        ({"config": {"worker": 1}}, r"`worker` of `config` is set by the benchmark itself"),
        ({"variants": [3]}, r"must be \(list of dict\)"),
        ({"variants": [{"name": "", "model": "EMCDR"}]}, r"variant 1: give it a `name`"),
        ({"variants": [{"name": "x", "model": 3}]}, r"`model: 3` must be the name of a model"),
        ({"variants": [{"name": "x", "model": {"a": 1}}]}, r"must be the name of a model"),
        ({"variants": [{"name": "x", "model": "EMCRD"}]}, r"There is no model `EMCRD`"),
        (
            {"variants": [{"name": "x", "model": "EMCDR", "seed": [1, "a"]}]},
            r"variant 1: `seeds: \[1, 'a'\]` must be",
        ),
        (
            {"variants": [{"name": "x", "model": "EMCDR", "eval_task": "foo"}]},
            r"variant 1: `eval_task: \['foo'\]`: there are rating and ranking",
        ),
        (
            {"variants": [{"name": "x", "model": "EMCDR", "meta_epochs": []}]},
            r"variant 1: `meta_epochs: \[\]` has no value",
        ),
        (
            {"variants": [{"name": "x", "model": "BiasTransfer", "base_model": "GMF"}]},
            r"variant 1: BiasTransfer has no `base_model`",
        ),
        (
            {"variants": [{"name": "x", "model": "EMCDR", "historyy": 3}]},
            r"unknown key `historyy`",
        ),
    ],
    ids=str,
)
def test_mistakes(tmp_path: Path, data_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, data_path, **values)


def test_missing_ratings(tmp_path: Path, data_path: Path) -> None:
    shutil.copytree(data_path, tmp_path / "data")
    (tmp_path / "data" / f"{SOURCE}" / f"{SOURCE}.inter").unlink()
    with pytest.raises(ConfigError, match=rf"there is no .*{SOURCE}\.inter\. Give the folder"):
        plan_of(tmp_path, tmp_path / "data")
