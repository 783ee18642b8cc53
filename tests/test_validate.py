"""Runs that measure the validation users alone, as a search needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_checks import QUIET, TINY, run_mm, tiny_pair, write_world

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.quick_start import validate_recbole_mm
from recbole_cdr_mm.trainer.cold_start_evaluation import ColdStartEvaluation


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def validate(data_path: Path, model: str, on_validation: Any = None, **values: Any) -> Any:
    config = {**QUIET, "data_path": str(data_path), **values}
    return validate_recbole_mm(
        model, "tiny", config_dict=config, on_validation=on_validation, saved=True
    )


EACH_KIND = [
    ("EMCDR", TINY),
    ("BiasTransfer", {}),
    ("EMCDR", {**TINY, "few_shot": 1, "few_shot_pool": 2, "few_shot_epochs": 2}),
    ("FM", {"epochs": 3, "embedding_size": 4}),
    ("BPR", {"epochs": 3, "embedding_size": 4, "eval_task": "ranking"}),
]


@pytest.mark.parametrize(("model", "values"), EACH_KIND)
def test_the_metrics_of_the_validation_users(
    data_path: Path, model: str, values: dict[str, Any]
) -> None:
    found = validate(data_path, model, **values)
    ranking = "eval_task" in values
    assert (found["valid_metric"], found["bigger_is_better"]) == (
        ("NDCG@10", True) if ranking else ("RMSE", False)
    )
    assert found["valid_score"] == found["valid"][found["valid_metric"]]
    whole = run_mm(data_path, model=model, **values, checkpoint_dir="other")
    if model in ("EMCDR", "BiasTransfer"):  # `run_mm` keeps no checkpoint: RecBole's best is lost
        assert found["valid"] == whole["valid"]
    assert [s["losses"] for s in found["stages"]] == [s["losses"] for s in whole["stages"]]


@pytest.mark.parametrize(("model", "values"), EACH_KIND)
def test_the_test_users_are_not_measured(
    data_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, values: dict[str, Any]
) -> None:
    seen: set[int] = set()
    evaluate = ColdStartEvaluation.evaluate

    def watched(trainer: Any, eval_data: Any, *args: Any, **kwargs: Any) -> Any:
        dataset = eval_data._dataset
        users = dataset.inter_feat[dataset.uid_field].tolist()
        seen.update(users)
        assert not set(users) & set(dataset.split.test_users.tolist())
        return evaluate(trainer, eval_data, *args, **kwargs)

    monkeypatch.setattr(ColdStartEvaluation, "evaluate", watched)
    validate(data_path, model, **values)
    assert seen


def test_every_validation_is_told(data_path: Path) -> None:
    told: list[tuple[int, float]] = []
    values = {**TINY, "few_shot": 1, "few_shot_pool": 2, "few_shot_epochs": 2}
    found = validate(data_path, "EMCDR", lambda *step: told.append(step), **values)
    trained = [s["valid_curve"][1:] for s in found["stages"]]  # not the state before training
    assert [score for _, score in told] == [score for curve in trained for _, score in curve]
    assert [step for step, _ in told] == list(range(len(told)))
    assert len(told) == 3 + 2


def test_what_the_listener_raises_ends_the_training(data_path: Path) -> None:
    told = []

    class StopNow(Exception):
        pass

    def listen(step: int, score: float) -> None:
        told.append(step)
        if step == 1:
            raise StopNow

    for model in ("EMCDR", "FM"):
        told.clear()
        with pytest.raises(StopNow):
            validate(data_path, model, listen, **{**TINY, "epochs": 9} if model == "EMCDR" else {})
        assert told == [0, 1]


def test_without_validation_users(data_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny has no validation users, by whom a search chooses"):
        validate(data_path, "EMCDR", **TINY, valid_user_ratio=0)
