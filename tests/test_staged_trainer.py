"""StagedTrainer: which epoch counts, what is reported, and what decides a result."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import (
    TINY,
    Run,
    build_run,
    changed,
    run_mm,
    snapshot,
    tiny_pair,
    write_world,
)
from torch.optim import Adam

from recbole_cdr_mm.errors import StageError
from recbole_cdr_mm.quick_start import main
from recbole_cdr_mm.stage import Stage, Training

META = {"model": "MetaMMCDR", **TINY}
NO_FLOOR = {"start_from_floor": False, "simulate_cold_users": False}
TARGET = {"model": "TargetMF", **TINY}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what differs between any two runs."""
    result = copy.deepcopy(result)
    for stage in result["stages"]:
        del stage["seconds"], stage["examples_per_second"]
    return result


def scripted(
    run: Run, scores: Sequence[float] | None, *, max_epochs: int = 6, **training: Any
) -> Callable[..., list[Stage]]:
    """A stage that is trained as ever, and whose validation says what it is told to."""
    model = run.model
    items = run.dataset.pair.items("target")
    stage = model.pretraining("target", model.target, run.dataset.split.train, items)
    values = {**vars(stage.training), "max_epochs": max_epochs, **training}
    validate = None if scores is None else iter(scores).__next__
    return lambda dataset, _: [Stage("target", training=Training(**values), validate=validate)]


def fit_scripted(data_path: Path, scores: Sequence[float] | None, **values: Any) -> Run:
    keys = ("learning_rate", "max_epochs")
    training = {key: values.pop(key) for key in keys if key in values}
    run = build_run(data_path, **{**TARGET, **values})
    run.model.stages = scripted(run, scores, **training)
    return run.fit()


class TestRequirements:
    def test_a_stage_without_what_it_requires(self, data_path: Path) -> None:
        run = build_run(data_path, **META)
        stages = run.model.stages
        run.model.stages = lambda *args: [s for s in stages(*args) if s.name != "target"]
        text = "^MetaMMCDR, stage `bridge`: stage `target` is not trained. Put it before this one"
        with pytest.raises(StageError, match=text):
            run.fit()
        run = build_run(data_path, **META)
        stages = run.model.stages
        run.model.stages = lambda *args: list(stages(*args)[-1:])
        with pytest.raises(StageError, match="stage `source` and `target` is not trained"):
            run.fit()

    def test_with_all_it_requires(self, data_path: Path) -> None:
        run = build_run(data_path, **META).fit()
        assert run.model.trained_stages == ["source", "target", "bridge"]


class TestBestEpoch:
    @pytest.mark.parametrize(
        ("scores", "best"),
        [
            ([3, 4, 5, 6, 7, 8, 9], 0),
            ([9, 3, 4, 5, 6, 7, 8], 1),
            ([9, 8, 7, 2, 6, 5, 4], 3),
            ([9, 8, 7, 6, 5, 4, 3], 6),
        ],
    )
    def test_counts_from_before_the_first(
        self, data_path: Path, scores: list[float], best: int
    ) -> None:
        run = fit_scripted(data_path, scores)
        (report,) = run.trainer.reports
        assert (report.epochs, report.best_epoch, report.valid_metric) == (6, best, min(scores))
        assert report.valid_curve == [[epoch, score] for epoch, score in enumerate(scores)]
        _, before, after = run.trainer.stages_seen[0]
        expected = before if best == 0 else run.trainer.epochs_seen["target", best]
        assert not changed(expected, after)
        assert changed(run.trainer.epochs_seen["target", 6], after) or best == 6

    def test_higher_is_better_in_ranking(self, data_path: Path) -> None:
        run = fit_scripted(data_path, [1, 2, 9, 3, 4, 5, 6], eval_task="ranking")
        assert (run.trainer.reports[0].best_epoch, run.trainer.reports[0].valid_metric) == (2, 9)

    @pytest.mark.parametrize(("stopping_step", "epochs"), [(1, 4), (2, 5), (10, 6)])
    def test_early_stopping(self, data_path: Path, stopping_step: int, epochs: int) -> None:
        """RecBole stops when more than `stopping_step` validations in a row were no better."""
        run = fit_scripted(data_path, [9, 8, 2, 6, 5, 4, 3], stopping_step=stopping_step)
        assert (run.trainer.reports[0].epochs, run.trainer.reports[0].best_epoch) == (epochs, 2)

    def test_each_stage_has_its_own_patience(self, data_path: Path) -> None:
        run = build_run(data_path, **TARGET, stopping_step=1)
        (first,) = scripted(run, [1, 2, 3, 4])(run.dataset, None)
        (second,) = scripted(run, [9, 8, 7, 6, 5, 4, 3])(run.dataset, None)
        run.model.stages = lambda *_: [dataclasses.replace(first, name="first"), second]
        run.fit()
        assert [report.epochs for report in run.trainer.reports] == [2, 6]
        assert [report.best_epoch for report in run.trainer.reports] == [0, 6]

    @pytest.mark.parametrize(
        ("eval_step", "scores", "best"),
        [(2, [9, 8, 7, 6], 6), (4, [9, 8, 7], 6), (4, [9, 5, 7], 4), (50, [9, 8], 6)],
    )
    def test_last_epoch_is_validated_whatever_eval_step(
        self, data_path: Path, eval_step: int, scores: list[float], best: int
    ) -> None:
        run = fit_scripted(data_path, scores, eval_step=eval_step, epochs=100)
        assert run.trainer.reports[0].best_epoch == best
        epochs = [epoch for epoch, _ in run.trainer.reports[0].valid_curve]
        assert epochs == [0, *range(eval_step, 6, eval_step), 6]

    @pytest.mark.parametrize(
        ("gains", "keeps_start", "best"),
        [
            ([0.02, 0.03], True, 0),  # within the interval's half width, 0.0324
            ([0.02, 0.03], False, 2),
            ([0.02, 0.04, 0.03], True, 2),
            ([0.04, 0.05, 0.03], True, 2),
            ([-0.04, -0.05], True, 0),
            ([0.01, 0.02, 0.03, 0.04], True, 4),  # small gains do not try its patience
            ([0.01, 0.0, 0.0, 0.0, 0.05], True, 0),  # without any it ends after two
        ],
    )
    def test_a_start_that_is_kept_until_a_gain_is_beyond_noise(
        self, data_path: Path, gains: list[float], keeps_start: bool, best: int
    ) -> None:
        """40 users, whose errors fall by the gain and 0.1 more or less."""
        run = build_run(data_path, **TARGET, metrics=["MAE"], valid_metric="MAE", stopping_step=1)
        rows = {"user": torch.arange(40), "rating": torch.full((40,), 3.0)}
        noise = 0.1 * torch.tensor([1.0, -1.0]).repeat(20)
        errors = iter([torch.ones(40), *(1 - gain + noise for gain in gains)])

        def validate() -> float:
            error = next(errors)
            run.trainer._batches = [{**rows, "prediction": rows["rating"] + error}]
            return error.mean().item()

        (stage,) = scripted(run, None, max_epochs=len(gains))(run.dataset, None)
        stage = dataclasses.replace(stage, validate=validate, keeps_start=keeps_start)
        run.model.stages = lambda *_: [stage]
        run.trainer.fit(run.loaders["train"])
        (report,) = run.trainer.reports
        assert report.best_epoch == best
        assert report.valid_metric == pytest.approx(1 - (gains[best - 1] if best else 0))
        _, before, after = run.trainer.stages_seen[0]
        assert not changed(run.trainer.epochs_seen["target", best] if best else before, after)

    def test_without_validation_the_last_counts(self, data_path: Path) -> None:
        run = fit_scripted(data_path, None)
        (report,) = run.trainer.reports
        assert (report.epochs, report.best_epoch, report.valid_metric) == (6, 6, None)
        _, _, after = run.trainer.stages_seen[0]
        assert not changed(run.trainer.epochs_seen["target", 6], after)

    @pytest.mark.parametrize("model", [TARGET, META | NO_FLOOR])
    def test_validation_users_choose(self, data_path: Path, model: dict[str, Any]) -> None:
        run = build_run(data_path, **{**model, "epochs": 5, "learning_rate": 0.03})
        seen: list[float] = []
        loaders = run.loaders
        run.trainer.fit(
            loaders["train"], loaders["valid"], callback_fn=lambda epoch, score: seen.append(score)
        )
        report = run.trainer.reports[-1]
        assert len(seen) == report.epochs
        assert report.valid_metric <= min(seen)
        assert run.evaluate("valid")["rmse"] == report.valid_metric
        if report.best_epoch:
            assert seen[report.best_epoch - 1] == report.valid_metric

    def test_select_epoch_last(self, data_path: Path) -> None:
        result = run_mm(data_path, **META, select_epoch="last")
        assert [stage["best_epoch"] for stage in result["stages"]] == [3, 3, 3]
        assert [stage["valid_metric"] for stage in result["stages"]] == [None, None, None]
        assert result["valid"] is not None

    def test_no_validation_users(self, data_path: Path) -> None:
        result = run_mm(data_path, **META, valid_user_ratio=0)
        assert result["valid"] is None
        assert result["data"]["valid_users"] == 0
        assert [stage["best_epoch"] for stage in result["stages"]] == [3, 3, 3]


class TestOptimiser:
    def test_is_recboles_learner(self, data_path: Path) -> None:
        moved = {}
        for learner in ("adam", "sgd"):
            run = fit_scripted(data_path, None, learner=learner, max_epochs=1)
            _, before, after = run.trainer.stages_seen[0]
            table = "target.users.table.rows.weight"
            moved[learner] = (after[table] - before[table]).abs().max().item()
        assert moved["adam"] > 1.5 * moved["sgd"]

    def test_a_stage_may_have_a_learning_rate_of_its_own(self, data_path: Path) -> None:
        moved = {}
        for rate in (None, 1e-5):
            run = fit_scripted(data_path, None, learning_rate=rate, max_epochs=1)
            _, before, after = run.trainer.stages_seen[0]
            table = "target.users.table.rows.weight"
            moved[rate] = (after[table] - before[table]).abs().max().item()
        assert moved[None] > 100 * moved[1e-5] > 0

    def test_each_stage_begins_afresh(
        self, data_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No moments are carried over, and nothing but the stage's own parameters is held."""
        run = build_run(data_path, **META)
        seen = {}
        descend = type(run.trainer)._train_one_epoch

        def watch(trainer: Any, stage: Stage, training: Training, report: Any) -> None:
            if report.epochs == 0:
                held = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
                assert isinstance(trainer.optimizer, Adam)
                assert sorted(held) == sorted(id(p) for p in training.trains)
                seen[stage.name] = len(trainer.optimizer.state)
            descend(trainer, stage, training, report)

        monkeypatch.setattr(type(run.trainer), "_train_one_epoch", watch)
        run.fit()
        assert seen == {"source": 0, "target": 0, "bridge": 0}


class TestResult:
    def test_reports_of_stages(self, data_path: Path) -> None:
        result = run_mm(data_path, **META, meta_epochs=2, stopping_step=10)
        rows = result["rows"]
        stages = {stage["name"]: stage for stage in result["stages"]}
        assert list(stages) == ["source", "target", "bridge"]
        assert [stage["epochs"] for stage in stages.values()] == [3, 3, 2]
        assert stages["source"]["examples"] == 3 * rows["source"]
        assert stages["target"]["examples"] == 3 * rows["train"]
        assert 0 < stages["bridge"]["examples"] < 2 * rows["train"]  # overlapped users only
        for stage in stages.values():
            assert 0 <= stage["best_epoch"] <= stage["epochs"]
            assert stage["seconds"] > 0
            speed = stage["examples"] / stage["seconds"]
            assert stage["examples_per_second"] == pytest.approx(speed)
            assert len(stage["losses"]) == stage["epochs"]
            assert stage["losses"][-1] < stage["losses"][0]
        assert stages["bridge"]["valid_metric"] == result["valid"]["RMSE"]
        assert stages["source"]["valid_curve"] == []
        curve = dict(stages["bridge"]["valid_curve"])
        assert (
            curve[stages["bridge"]["best_epoch"]] == result["valid"]["RMSE"] == min(curve.values())
        )

    @pytest.mark.parametrize("model", [META, TARGET, {"model": "CalibratedTransfer"}])
    def test_same_seed_same_result(
        self, data_path: Path, tmp_path: Path, model: dict[str, Any]
    ) -> None:
        files = [tmp_path / "first.json", tmp_path / "second.json"]
        for file in files:
            result = run_mm(data_path, **model, result_json=str(file))
            assert json.loads(file.read_text(encoding="utf-8")) == result
        first, second = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        assert without_times(first) == without_times(second)

    def test_seed_and_split_seed_are_apart(self, data_path: Path) -> None:
        runs = {
            name: build_run(data_path, **TARGET, **values)
            for name, values in (
                ("as_it_is", {}),
                ("seed", {"seed": 7}),
                ("split_seed", {"split_seed": 7}),
            )
        }
        users = {name: run.dataset.split.test_users.tolist() for name, run in runs.items()}
        first = {name: run.model.target.items.table.rows.weight for name, run in runs.items()}
        assert users["seed"] == users["as_it_is"] != users["split_seed"]
        assert not torch.equal(first["seed"], first["as_it_is"])
        assert torch.equal(first["split_seed"], first["as_it_is"])

    def test_another_seed_another_model(self, data_path: Path) -> None:
        runs = (build_run(data_path, **META, **NO_FLOOR, seed=seed).fit() for seed in (1, 2))
        first, other = runs
        parameters = {name for name, _ in first.model.named_parameters()}
        same = parameters - changed(snapshot(first.model), snapshot(other.model))
        assert same <= {"text.missing"}

    def test_data_block_is_the_same_for_all_models(self, data_path: Path) -> None:
        blocks = [
            run_mm(data_path, **values)["data"]
            for values in (
                META,
                {"model": "GlobalMean"},
                {"model": "Popularity", "eval_task": "ranking"},
            )
        ]
        assert blocks[0] == blocks[1] == blocks[2]
        assert blocks[0]["overlapped_users"] == 60
        assert blocks[0]["test_users"] == 12


class TestFiles:
    def test_checkpoint_holds_tensors_and_plain_values(self, data_path: Path) -> None:
        run = build_run(data_path, **META).fit()
        content = torch.load(run.trainer.saved_model_file, weights_only=True)
        assert content["other_parameter"] == {"trained_stages": ["source", "target", "bridge"]}
        assert content["config"]["model"] == "MetaMMCDR"
        assert content["state_dict"].keys() == run.model.state_dict().keys()

    def test_nothing_is_saved_unless_asked(self, data_path: Path, tmp_path: Path) -> None:
        for saved, files in ((False, []), (True, [".pth"])):
            run = build_run(data_path, **TARGET, checkpoint_dir=str(tmp_path / "saved"))
            run.trainer.fit(run.loaders["train"], run.loaders["valid"], saved=saved)
            assert [file.suffix for file in (tmp_path / "saved").iterdir()] == files

    def test_fitting_again_changes_nothing(self, data_path: Path) -> None:
        run = build_run(data_path, **META).fit()
        before = snapshot(run.model)
        run.fit()
        assert not changed(before, snapshot(run.model))
        assert len(run.trainer.reports) == 3

    def test_tensorboard_has_each_stage(self, data_path: Path, tmp_path: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = build_run(data_path, **META).fit()
        run.trainer.tensorboard.close()
        (folder,) = (tmp_path / "log_tensorboard").iterdir()
        events = EventAccumulator(str(folder))
        events.Reload()
        steps = {
            tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
        for stage in ("source", "target", "bridge"):
            assert steps[f"Loss/Train/{stage}"] == [0, 1, 2]
            values = [event.value for event in events.Scalars(f"Loss/Train/{stage}")]
            assert np.isfinite(values).all()
        assert steps["Valid_score/bridge"] == [0, 1, 2]
        assert "Valid_score/source" not in steps


def test_a_model_that_diverges_ends_in_one_error(
    data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"model": "TargetMF", "dataset": "tiny", "data_path": data_path, **TINY}
    arguments |= {"learning_rate": 1e20, "show_progress": False, "state": "ERROR", "epochs": 3}
    assert main([f"--{key}={value}" for key, value in arguments.items()]) == 2
    assert re.match(r"ConfigError: TargetMF: .* no numbers? \(NaN\)", capsys.readouterr().err)


def test_mixed_precision(data_path: Path) -> None:
    """Half precision moves a result, and by little."""
    values = {**META, **NO_FLOOR}
    rmse = [
        run_mm(data_path, **{**values, "enable_amp": enable_amp})["test"]["RMSE"]
        for enable_amp in (False, True)
    ]
    assert 0 < abs(rmse[0] - rmse[1]) < 0.02 * rmse[0]
