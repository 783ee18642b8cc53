"""The table that compares results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recbole_cdr_mm.benchmark.cli import main


def write(path: Path, model: str, rmse: float, **changed: Any) -> str:
    result = {
        "model": model,
        "preset": "default",
        "dataset": "pair",
        "eval_task": "rating",
        "data": {"test_users": 3, "test_ratings": 12},
        "rows": {"test": 12},
        "config": {"valid_metric": "RMSE", "seed": 1},
        "test": {"RMSE": rmse},
        "stages": [{"seconds": 1.0}, {"seconds": 0.5}],
    }
    path.write_text(json.dumps(result | changed))
    return str(path)


def test_best_first_with_training_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / "a", "Worse", 0.9), write(tmp_path / "b", "Better", 0.8)]
    assert main(["table", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pair, 3 test users, 12 test ratings in use"
    assert [line.split() for line in lines[2:]] == [
        ["Better", "default", "0.8000", "1.5000"],
        ["Worse", "default", "0.9000", "1.5000"],
    ]


def test_bigger_is_better_for_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranking = {"eval_task": "ranking", "config": {"valid_metric": "NDCG@10"}}
    files = [
        write(tmp_path / "a", "Worse", 0, test={"NDCG@10": 0.1}, **ranking),
        write(tmp_path / "b", "Better", 0, test={"NDCG@10": 0.2}, **ranking),
    ]
    assert main(["table", *files]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "Better"


def test_tells_runs_of_one_model_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        write(tmp_path / str(seed), "One", seed, config={"valid_metric": "RMSE", "seed": seed})
        for seed in (1, 2)
    ]
    assert main(["table", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[2:]] == ["seed=1", "seed=2"]


def test_refuses_other_test_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"data": {"test_users": 4, "test_ratings": 12}}
    files = [write(tmp_path / "a", "A", 0.9), write(tmp_path / "b", "B", 0.8, **other)]
    assert main(["table", *files]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: B and A differ in `data`")


def test_says_which_key_draws_other_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [{"valid_metric": "RMSE", "seed": 1, "split_seed": split} for split in (2020, 3)]
    files = [
        write(tmp_path / f"{n}", "A", 0.9, data={"test_ratings": n}, config=config)
        for n, config in enumerate(configs)
    ]
    assert main(["table", *files]) == 2
    assert "differ in `data`: `split_seed` 3 and 2020. Compare" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert main(["table", str(tmp_path / "x.json")]) == 2
    assert "is no result of run_recbole_mm.py" in capsys.readouterr().err
