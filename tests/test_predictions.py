"""What `save_predictions` writes, against the metrics of the run and plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_checks import TINY, build_run, run_mm, tiny_pair, write_world
from small_pairs import frame

from recbole_cdr_mm.data.pair import join_domains
from recbole_cdr_mm.data.profiles import user_profiles
from recbole_cdr_mm.evaluation.user_values import user_values

Saved = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def saved_run(data_path: Path, file: Path, **values: Any) -> tuple[dict[str, Any], Saved]:
    result = run_mm(data_path, **values, save_predictions=str(file))
    with np.load(file, allow_pickle=False) as saved:
        return result, dict(saved)


RANKING = {"eval_task": "ranking", "topk": [5, 10], "metrics": ["Recall", "MRR", "NDCG", "Hit"]}


class TestRanking:
    @pytest.mark.parametrize(
        "values",
        [
            {"model": "TargetMF", **TINY},
            {"model": "GlobalMean"},  # all scores are ties
            {"model": "BPR", "epochs": 2, "embedding_size": 4},
            {"model": "ItemKNN"},
            {"model": "EMCDR", **TINY, "few_shot": 1, "few_shot_pool": 2},
        ],
        ids=lambda values: values["model"],
    )
    def test_metrics_are_those_of_the_saved_ranks(
        self, data_path: Path, tmp_path: Path, values: dict[str, Any]
    ) -> None:
        result, saved = saved_run(data_path, tmp_path / "p.npz", **values, **RANKING)
        recall, ndcg, hit, mrr = [], [], [], []
        for user, items in zip(saved["users"], saved["recommended"], strict=True):
            mine = saved["user"] == user
            assert mine.any()
            hits = np.isin(items, saved["item"][mine])
            ranks = saved["rank"][mine]
            assert sorted(ranks[ranks > 0]) == list(np.flatnonzero(hits) + 1)
            recall.append(hits[:5].sum() / mine.sum())
            hit.append(hits[:5].any())
            mrr.append(1 / ranks[ranks > 0].min() if hits.any() else 0)
            gains = 1 / np.log2(np.arange(2, 12))
            ndcg.append((gains * hits).sum() / gains[: mine.sum()].sum())
        assert result["test"]["Recall@5"] == pytest.approx(np.mean(recall), abs=2e-6)
        assert result["test"]["Hit@5"] == pytest.approx(np.mean(hit), abs=2e-6)
        assert result["test"]["MRR@10"] == pytest.approx(np.mean(mrr), abs=2e-6)
        assert result["test"]["NDCG@10"] == pytest.approx(np.mean(ndcg), abs=2e-6)
        assert saved["recommended"].shape == (len(saved["users"]), 10)
        assert len(saved["user"]) == result["rows"]["test"]

    def test_an_item_that_is_rated_again_is_one_positive(self, tmp_path: Path) -> None:
        data_path = write_world(tiny_pair(), tmp_path)
        for file in data_path.glob("*/*.inter"):
            header, *lines = file.read_text().splitlines(keepends=True)
            file.write_text("".join([header, *lines, *lines[::2]]))
        values = {"model": "ItemKNN", **RANKING}
        result, saved = saved_run(data_path, tmp_path / "p.npz", **values)
        for metric in ("Recall@10", "NDCG@10"):
            own = user_values(saved, metric).value
            assert own == pytest.approx(result["test"][metric], abs=2e-6)
        pairs = np.column_stack([saved["user"], saved["item"]])
        assert len(np.unique(pairs, axis=0)) == len(pairs) < result["rows"]["test"]

    def test_the_run_is_the_same_without(self, data_path: Path, tmp_path: Path) -> None:
        values = {"model": "GlobalMean", **RANKING}
        result, _ = saved_run(data_path, tmp_path / "p.npz", **values)
        assert result["test"] == run_mm(data_path, **values)["test"]


class TestUsersAndItems:
    @pytest.mark.parametrize("eval_task", ["rating", "ranking"])
    def test_against_the_data(self, data_path: Path, tmp_path: Path, eval_task: str) -> None:
        values = {"model": "ItemMean", "eval_task": eval_task}
        _, saved = saved_run(data_path, tmp_path / "p.npz", **values)
        run = build_run(data_path, **values)
        everything = build_run(data_path, model="ItemMean").dataset.pair
        train, pair = run.dataset.split.train, run.dataset.pair
        token = pair.item_tokens[train.item]
        assert [np.sum(token == item) for item in saved["item"]] == saved["item_ratings"].tolist()
        assert saved["users"].tolist() == sorted(set(saved["user"]))
        rater = everything.user_tokens[everything.source.user]
        lengths = [np.sum(rater == user) for user in saved["users"]]
        assert saved["history_length"].tolist() == lengths  # disliked items are history too
        assert np.ptp(saved["generosity"]) > 0
        assert ((saved["mainstream"] >= 0) & (saved["mainstream"] < 1)).all()

    def test_profiles_against_numpy(self) -> None:
        source = frame(
            ("a", "x", 5, 1), ("a", "y", 4, 2), ("b", "x", 1, 3), ("c", "x", 3, 4), ("c", "z", 3, 5)
        )
        target = frame(("a", "t", 5, 1), ("d", "t", 3, 2))
        pair = join_domains(source, target)
        profiles = user_profiles(pair)
        user = {token: n for n, token in enumerate(pair.user_tokens)}
        assert [profiles.history_length[user[u]] for u in "abcd"] == [2, 1, 2, 0]
        # x has three ratings, y and z one each: two of three items have fewer than x.
        taste = [profiles.mainstream[user[u]] for u in "abc"]
        assert taste == pytest.approx([1 / 3, 2 / 3, 1 / 3])
        assert np.isnan(profiles.mainstream[user["d"]])
        assert profiles.generosity[user["a"]] > 0 > profiles.generosity[user["b"]]
        assert profiles.generosity[user["d"]] == 0
