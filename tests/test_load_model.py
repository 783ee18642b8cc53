"""A trained model comes back from its checkpoint, with its data, and predicts the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import TINY, result_of, run_mm, tiny_pair, write_world

from recbole_cdr_mm.checkpoint import load_checkpoint, save_checkpoint
from recbole_cdr_mm.errors import ConfigError, DataFormatError
from recbole_cdr_mm.quick_start import load_data_and_model

MODELS: dict[str, dict[str, Any]] = {
    "CMF": {"model": "CMF", **TINY},
    "EMCDR": {"model": "EMCDR", **TINY, "base_model": "GMF", "preset": "paper"},
    "SSCDR": {"model": "SSCDR", **TINY, "sscdr_form": "metric", "eval_task": "ranking"},
    "PTUPCDR": {"model": "PTUPCDR", **TINY, "few_shot": 2, "few_shot_pool": 2},
    "MetaMMCDR": {"model": "MetaMMCDR", **TINY, "item_features": "all"},
    "BiasTransfer": {"model": "BiasTransfer"},
    "FM": {"model": "FM", "epochs": 2},
    "BPR": {"model": "BPR", "epochs": 2, "eval_task": "ranking"},
    "ItemKNN": {"model": "ItemKNN", "epochs": 1, "eval_task": "ranking"},
}


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    return write_world(tiny_pair(), tmp_path)


def checkpoint_of(data_path: Path, model: str) -> Path:
    files = sorted((data_path / "saved").glob(f"{model}-*.pth"))
    return next(file for file in files if not file.name.endswith(".last.pth"))


@pytest.mark.parametrize("name", MODELS)
def test_measures_the_same(data_path: Path, name: str) -> None:
    from recbole_cdr_mm.trainer import build_trainer

    result = run_mm(data_path, **MODELS[name], seed=7, split_seed=3)
    config, model, dataset, train_data, valid_data, test_data = load_data_and_model(
        checkpoint_of(data_path, MODELS[name]["model"])
    )
    assert (config["model"], config["seed"]) == (MODELS[name]["model"], 7)
    assert dataset.description == result["data"]
    assert not model.training
    trainer = build_trainer(config, model)
    trainer.eval_collector.data_collect(train_data)
    for part, data in (("valid", valid_data), ("test", test_data)):
        found = trainer.evaluate(data, load_best_model=False)
        assert dict(found) == {key.lower(): value for key, value in result[part].items()}


def test_values_that_look_like_others_come_back(data_path: Path) -> None:
    """`[2,90]` is read as a list, and is an interval."""
    values = {"model": "ItemMean", "user_inter_num_interval": "[2,90]"}
    result = result_of(data_path, data_path, **values)
    config, _, dataset, *_ = load_data_and_model(checkpoint_of(data_path, "ItemMean"))
    assert config["user_inter_num_interval"] == "[2,90]"
    assert dataset.description == result["data"]


def test_predicts_what_was_written(data_path: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions.npz"
    run_mm(data_path, **MODELS["EMCDR"], save_predictions=str(predictions))
    _, model, dataset, *_, test_data = load_data_and_model(checkpoint_of(data_path, "EMCDR"))
    with np.load(predictions) as written:
        user = [dataset.token2id("user_id", token) for token in written["user"]]
        item = [dataset.token2id("item_id", token) for token in written["item"]]
        expected = written["prediction"]
    batch = {"user_id": torch.tensor(user), "item_id": torch.tensor(item)}
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(batch), expected, rtol=1e-6)
    assert len(expected) == len(test_data._dataset)


def test_writes_nothing(data_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    run_mm(data_path, **MODELS["EMCDR"], result_json=str(out))
    before = out.read_text(encoding="utf-8")
    out.write_text("mine", encoding="utf-8")
    load_data_and_model(checkpoint_of(data_path, "EMCDR"))
    assert out.read_text(encoding="utf-8") == "mine"
    assert json.loads(before)["model"] == "EMCDR"


def test_data_that_have_moved_and_data_that_have_changed(data_path: Path, tmp_path: Path) -> None:
    run_mm(data_path, **MODELS["CMF"])
    file = checkpoint_of(data_path, "CMF")
    elsewhere = write_world(tiny_pair(), tmp_path / "elsewhere")
    load_data_and_model(file, {"data_path": str(elsewhere)})
    other = write_world(tiny_pair(seed=1), tmp_path / "other")
    with pytest.raises(ConfigError, match="was trained on other ratings, or another split"):
        load_data_and_model(file, {"data_path": str(other)})
    with pytest.raises(DataFormatError, match=r"there is no .*nowhere"):
        load_data_and_model(
            file,
            {
                "data_path": "nowhere",
                "source_dataset": "tiny_movie",
                "target_dataset": "tiny_cd",
            },
        )


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such checkpoint"):
        load_data_and_model(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("text", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text\.pth"):
        load_data_and_model(tmp_path / "text.pth")


def test_a_checkpoint_of_another_base_model_is_refused(data_path: Path) -> None:
    """GMF's weights are not taken for MF's."""
    run_mm(data_path, **MODELS["EMCDR"])
    file = checkpoint_of(data_path, "EMCDR")
    with pytest.raises(ConfigError, match=r"other values of base_model \(GMF there, MF here\)"):
        run_mm(data_path, **{**MODELS["EMCDR"], "base_model": "MF"}, resume=str(file))
    with pytest.raises(ConfigError, match=r"other values of base_model \(GMF there, MF here\)"):
        load_data_and_model(file, {"base_model": "MF"})


def test_a_run_that_has_not_ended_is_refused(
    data_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose bridge is trained, and whose initialisation stage is not."""
    from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer

    train = StagedTrainer._train_one_epoch

    def stop(trainer: Any, stage: Any, training: Any, report: Any) -> None:
        if stage.name == "initialisation" and report.epochs == 1:
            raise KeyboardInterrupt
        train(trainer, stage, training, report)

    with monkeypatch.context() as patched:
        patched.setattr(StagedTrainer, "_train_one_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run_mm(data_path, **MODELS["PTUPCDR"])
    file = checkpoint_of(data_path, "PTUPCDR")
    with pytest.raises(ConfigError, match="has not ended: 3 of 4 stages are trained"):
        load_data_and_model(file)
    run_mm(data_path, **MODELS["PTUPCDR"], resume=True)
    load_data_and_model(file)


def test_a_checkpoint_of_an_older_version_is_refused(data_path: Path) -> None:
    run_mm(data_path, **MODELS["CMF"])
    file = checkpoint_of(data_path, "CMF")
    state = load_checkpoint(file)
    del state["given"]
    save_checkpoint(file, state)
    with pytest.raises(ConfigError, match="was written by an older version"):
        load_data_and_model(file)


def test_loading_leaves_nothing_behind(
    data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_mm(data_path, **MODELS["CMF"])
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    load_data_and_model(checkpoint_of(data_path, "CMF"))
    assert not list(empty.iterdir())
