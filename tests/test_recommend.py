"""What a trained model recommends, against what was measured of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_checks import TINY, build_run, run_mm, tiny_pair, write_world

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.recommend import recommend

RANKING = {"eval_task": "ranking", "topk": [5], "valid_metric": "NDCG@5"}
RANKED: dict[str, dict[str, Any]] = {
    "EMCDR": {"model": "EMCDR", **TINY, **RANKING},
    "MetaMMCDR": {"model": "MetaMMCDR", **TINY, **RANKING},
    "unseen": {"model": "MetaMMCDR", **TINY, **RANKING, "unseen_item_ratio": 0.3},
    "BPR": {"model": "BPR", "epochs": 2, "embedding_size": 4, **RANKING},
    "LightGCN": {"model": "LightGCN", "epochs": 2, "embedding_size": 4, **RANKING},
    "MultiVAE": {"model": "MultiVAE", "epochs": 2, **RANKING},
    "EASE": {"model": "EASE", "epochs": 1, **RANKING},
}
RATED: dict[str, dict[str, Any]] = {
    "MetaMMCDR": {"model": "MetaMMCDR", **TINY},
    "median": {"model": "BiasTransfer", "point_estimate": "median"},
    "FM": {"model": "FM", "epochs": 2, "embedding_size": 4},
}


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    return write_world(tiny_pair(), tmp_path)


def checkpoint_of(data_path: Path) -> Path:
    files = (data_path / "saved").glob("*.pth")
    (file,) = (file for file in files if not file.name.endswith(".last.pth"))
    return file


@pytest.mark.parametrize("name", RANKED)
def test_test_users_get_what_was_measured(data_path: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "predictions.npz"
    run_mm(data_path, **RANKED[name], save_predictions=str(file))
    with np.load(file) as saved:
        users, expected = saved["users"].tolist(), saved["recommended"].tolist()
    found = recommend(checkpoint_of(data_path), users[:5], k=5)
    assert found.columns.tolist() == ["user", "rank", "item", "score"]
    for user, items in zip(users[:5], expected, strict=False):
        mine = found[found["user"] == user]
        assert mine["rank"].tolist() == [1, 2, 3, 4, 5]
        assert mine["score"].is_monotonic_decreasing
        if mine["score"].is_unique:  # equal scores are measured in random order
            assert mine["item"].tolist() == items


@pytest.mark.parametrize("name", RATED)
def test_scores_are_the_ratings_that_were_measured(
    data_path: Path, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "predictions.npz"
    run_mm(data_path, **RATED[name], save_predictions=str(file))
    with np.load(file) as saved:
        user = str(saved["user"][0])
        mine = saved["user"] == user
        expected = dict(zip(saved["item"][mine], saved["prediction"][mine], strict=True))
    found = recommend(checkpoint_of(data_path), user, k=10_000).set_index("item")["score"]
    assert found.between(1, 5).all()
    for item, rating in expected.items():
        assert found[item] == pytest.approx(rating, abs=1e-5)


def test_what_a_user_has_rated_is_left_out(data_path: Path) -> None:
    values = {"model": "BPR", "epochs": 1, "embedding_size": 4, **RANKING}
    run_mm(data_path, **values)
    run = build_run(data_path, **values)
    pair, train = run.dataset.pair, run.dataset.split.train
    user = int(train.user[0])
    token = pair.user_tokens[user]
    found = recommend(checkpoint_of(data_path), [token], k=10_000)["item"]
    rated = set(pair.item_tokens[train.item[train.user == user]])
    assert rated
    assert set(found) == set(pair.item_tokens[pair.items("target")]) - rated


def test_what_cannot_be_asked_for(data_path: Path) -> None:
    run_mm(data_path, model="Popularity", eval_task="ranking")
    file = checkpoint_of(data_path)
    with pytest.raises(ConfigError, match="There is no user `nobody` in the pair tiny"):
        recommend(file, ["nobody"])
    with pytest.raises(ConfigError, match="There is no user `\\[PAD\\]` in the pair"):
        recommend(file, ["[PAD]"])
    with pytest.raises(ConfigError, match="k is 0"):
        recommend(file, ["nobody"], k=0)
    assert recommend(file, []).empty
