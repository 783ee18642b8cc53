"""A metric cut into its users' parts is the metric that the run reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_checks import run_mm, tiny_pair, write_world

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.user_values import has_user_values, is_smaller_better, user_values

RANKING = {
    "eval_task": "ranking",
    "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "ItemCoverage"],
    "topk": [5, 10],
}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def saved_run(
    data_path: Path, folder: Path, **values: Any
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    file = folder / "p.npz"
    result = run_mm(data_path, **values, save_predictions=str(file))
    with np.load(file) as saved:
        return result["test"], dict(saved)


@pytest.mark.parametrize("values", [{}, RANKING], ids=["rating", "ranking"])
def test_value_is_the_metric_of_the_run(
    data_path: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    test, saved = saved_run(data_path, tmp_path, model="ItemMean", **values)
    measured = {name for name in test if has_user_values(name)}
    assert {name for name in test if "Coverage" not in name} == measured
    for name in measured:
        found = user_values(saved, name)
        assert found.value == pytest.approx(test[name], abs=1e-6), name
        assert found.user.tolist() == sorted(set(saved["user"]))


def test_ratings_of_two_users() -> None:
    predictions = {
        "user": np.array(["b", "a", "b"]),
        "rating": np.array([5, 1, 3], dtype=np.float32),
        "prediction": np.array([4, 4, 3.5], dtype=np.float32),
    }
    squared = user_values(predictions, "RMSE")
    assert squared.user.tolist() == ["a", "b"]
    assert squared.total.tolist() == [9, 1.25]
    assert squared.weight.tolist() == [1, 2]
    assert squared.value == pytest.approx(np.sqrt(10.25 / 3))
    assert user_values(predictions, "mae").value == pytest.approx(4.5 / 3)


def test_rankings_of_two_users() -> None:
    predictions = {
        "user": np.array(["b", "a", "a", "a"]),
        "rank": np.array([3, 1, 0, 2]),
        "users": np.array(["a", "b"]),
        "recommended": np.full((2, 3), "x"),
    }
    gains = 1 / np.log2([2, 3, 4])
    expected = {
        "Hit@2": [1, 0],
        "Recall@3": [2 / 3, 1],
        "Precision@3": [2 / 3, 1 / 3],
        "MRR@3": [1, 1 / 3],
        "NDCG@3": [gains[:2].sum() / gains.sum(), gains[2]],
    }
    for name, values in expected.items():
        assert user_values(predictions, name).total == pytest.approx(values), name


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("NDCG@10", r"`NDCG@10` is no mean over users of predicted ratings\."),
        ("ItemCoverage@10", "is no mean over users"),
        ("Nonsense", "is no mean over users"),
    ],
)
def test_other_metrics_of_ratings(metric: str, message: str) -> None:
    predictions = {"user": np.array(["a"]), "prediction": np.ones(1), "rating": np.ones(1)}
    with pytest.raises(ConfigError, match=message):
        user_values(predictions, metric)


def test_more_places_than_were_saved() -> None:
    predictions = {
        "user": np.array(["a"]),
        "rank": np.array([1]),
        "users": np.array(["a"]),
        "recommended": np.full((1, 3), "x"),
    }
    with pytest.raises(ConfigError, match=r"first 3 items of each user were saved; `@5` needs"):
        user_values(predictions, "Recall@5")
    with pytest.raises(ConfigError, match="is no mean over users of predicted rankings"):
        user_values(predictions, "RMSE")


@pytest.mark.parametrize("metric", ["NDCG", "NDCG@", "NDCG@x", "NDCG@0", "NDCG@-1"])
def test_a_ranking_metric_without_places(metric: str) -> None:
    predictions = {
        "user": np.array(["a"]),
        "rank": np.array([1]),
        "users": np.array(["a"]),
        "recommended": np.full((1, 3), "x"),
    }
    assert not has_user_values(metric)
    with pytest.raises(ConfigError, match=f"`{metric}` is no mean over users"):
        user_values(predictions, metric)


def test_direction() -> None:
    assert is_smaller_better("RMSE")
    assert not is_smaller_better("NDCG@10")
