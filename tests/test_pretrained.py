"""Base models that are pre-trained once for all bridges: the same result, and never a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_checks import (
    TINY,
    command_line,
    result_of,
    run_mm,
    tiny_pair,
    write_world,
)

from dataset_tools.feature_store import write_store
from dataset_tools.synthetic import domain_names
from recbole_cdr_mm.quick_start import main

BRIDGES = ("EMCDR", "SSCDR", "PTUPCDR", "MetaMMCDR")
BOTH = ["source", "target"]


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def reused(result: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in result["stages"] if stage["reused"]]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"base_model": "GMF"},
        {"preset": "paper", "train_batch_size": 64},
        {"eval_task": "ranking"},
        {"pretrain_item_features": "both"},
    ],
    ids=str,
)
def test_bridges_share_and_give_the_same_result(
    data_path: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    values = {**TINY, **values}
    for place, model in enumerate(BRIDGES):
        alone = run_mm(data_path, model=model, **values)
        shared = run_mm(data_path, model=model, **values, pretrained_path=str(tmp_path))
        assert reused(alone) == []
        assert reused(shared) == (
            [stage["name"] for stage in shared["stages"][:-1]] if place else []
        )
        assert shared["test"] == alone["test"]
        assert shared["valid"] == alone["valid"]
        for stage, own in zip(shared["stages"], alone["stages"], strict=True):
            assert (stage["epochs"], stage["losses"]) == (own["epochs"], own["losses"])
    assert len(list(tmp_path.glob("*.pth"))) == 2


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"seed": 1}, []),
        ({"embedding_size": 5}, []),
        ({"learning_rate": 0.1}, []),
        ({"reg_weight": 0.5}, []),
        ({"loss_type": "BPR", "eval_task": "ranking"}, []),
        ({"learner": "adam"}, []),
        ({"pretrain_item_features": "text"}, []),
        ({"source_epochs": 2}, ["target"]),
        ({"target_batch_size": 64}, ["source"]),
        # All source ratings are trained on, whoever is a test user.
        ({"split_seed": 1}, ["source"]),
        ({"test_user_ratio": 0.5}, ["source"]),
        # What only the bridge reads.
        ({"meta_epochs": 1}, BOTH),
        ({"bridge_reg_weight": 2.0}, BOTH),
        ({"few_shot": 1, "few_shot_pool": 2}, BOTH),
        ({"item_features": "id"}, BOTH),
        ({"model": "SSCDR", "unsupervised_weight": 0.5}, BOTH),
        # Its target model is validated: it is another stage.
        ({"model": "TargetMF"}, []),
        ({"model": "SSCDR", "sscdr_form": "metric", "eval_task": "ranking"}, []),
    ],
    ids=str,
)
def test_what_must_be_equal(
    data_path: Path, tmp_path: Path, changed: dict[str, Any], expected: list[str]
) -> None:
    first = {"model": "MetaMMCDR", **TINY, "pretrained_path": str(tmp_path)}
    run_mm(data_path, **first)
    values = {**first, **changed}
    result = run_mm(data_path, **values)
    assert reused(result) == expected
    values.pop("pretrained_path")
    assert result["test"] == run_mm(data_path, **values)["test"]


def test_losses_are_kept_apart(data_path: Path, tmp_path: Path) -> None:
    shared = {"model": "EMCDR", **TINY, "eval_task": "ranking", "pretrained_path": str(tmp_path)}
    softmax = {"loss_type": "CE"}
    losses = ({}, softmax, {**softmax, "ce_negatives": 5}, {**softmax, "ce_negatives": None})
    for loss in losses:
        assert reused(run_mm(data_path, **shared, **loss)) == []
    for loss in losses:
        assert reused(run_mm(data_path, **shared, **loss)) == BOTH


def test_margin_of_the_metric_form_counts(data_path: Path, tmp_path: Path) -> None:
    values = {"model": "SSCDR", **TINY, "sscdr_form": "metric", "eval_task": "ranking"}
    shared = {**values, "pretrained_path": str(tmp_path)}
    assert reused(run_mm(data_path, **shared, margin=0.5)) == []
    assert reused(run_mm(data_path, **shared, margin=2.0)) == []
    assert reused(run_mm(data_path, **shared, margin=2.0, unsupervised_weight=0.5)) == BOTH


def test_other_ratings_are_other_base_models(tmp_path: Path) -> None:
    values = {"model": "EMCDR", **TINY, "pretrained_path": str(tmp_path / "kept")}
    for seed in (0, 1):
        data_path = write_world(tiny_pair(seed=seed), tmp_path / str(seed))
        assert reused(run_mm(data_path, **values)) == []


def test_other_features_are_other_base_models(tmp_path: Path) -> None:
    values = {"model": "EMCDR", **TINY, "pretrained_path": str(tmp_path / "kept")}
    values["pretrain_item_features"] = "text"
    data_path = write_world(tiny_pair(), tmp_path / "data")
    assert reused(run_mm(data_path, **values)) == []
    assert reused(run_mm(data_path, **values)) == BOTH
    for domain in domain_names("tiny"):
        store = data_path / domain / f"{domain}.text"
        features = np.load(f"{store}.npy")[:, ::-1].copy()  # as of another encoder of the same size
        info = json.loads(Path(f"{store}.json").read_text())
        ids = Path(f"{store}.ids").read_text().splitlines()
        write_store(data_path / domain, domain, "text", ids, features, info)
    assert reused(run_mm(data_path, **values)) == []


def test_another_version_of_the_code_trains_anew(
    data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"model": "EMCDR", **TINY, "pretrained_path": str(tmp_path / "kept")}
    run_mm(data_path, **values)
    monkeypatch.setattr("recbole_cdr_mm.trainer.pretrained.code_version", lambda: "another")
    assert reused(run_mm(data_path, **values)) == []


def test_resumed_and_shared(data_path: Path, tmp_path: Path) -> None:
    """A run goes on from its own checkpoint; what it took over is part of that."""
    values = {"model": "EMCDR", **TINY, "pretrained_path": str(tmp_path / "kept")}
    run_mm(data_path, **values)
    values["model"] = "PTUPCDR"
    before, again = (
        result_of(data_path, tmp_path, **values, resume=resume) for resume in (False, True)
    )
    assert reused(again) == reused(before) == BOTH
    assert again["test"] == before["test"]


def test_folder_that_cannot_be_written(
    data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    values = {"model": "EMCDR", **TINY, "pretrained_path": str(tmp_path / "file" / "kept")}
    assert main(command_line(data_path, tmp_path, **values)) == 2
    assert "`pretrained_path: " in capsys.readouterr().err


def test_damaged_file(data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    values = {"model": "EMCDR", **TINY, "pretrained_path": str(kept)}
    run_mm(data_path, **values)
    for file in kept.glob("source-*.pth"):
        file.write_bytes(file.read_bytes()[:100])
    assert main(command_line(data_path, tmp_path, **values)) == 2
    assert ".pth: is damaged. Remove it, and run again." in capsys.readouterr().err
