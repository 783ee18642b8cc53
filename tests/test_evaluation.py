"""What is measured, once more in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import TINY, build_run, noise, run_mm, tiny_pair, write_world
from recbole.data.interaction import Interaction
from small_pairs import frame

from recbole_cdr_mm.data.pair import join_domains
from recbole_cdr_mm.data.split import FewShot, split_cold_start
from recbole_cdr_mm.evaluation.ranking import Candidates, break_ties
from recbole_cdr_mm.evaluation.rating import RatingScale


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


class TestRatingScale:
    SCORES = np.array([-3.0, 0.0, 0.25, 0.5, 1.0, 4.5, 9.0], dtype=np.float32)

    @pytest.mark.parametrize(("low", "high"), [(1.0, 5.0), (0.5, 10.0), (-1.0, 1.0)])
    @pytest.mark.parametrize("clip", [True, False])
    @pytest.mark.parametrize("scores_are_labels", [True, False])
    def test_against_numpy(
        self, low: float, high: float, clip: bool, scores_are_labels: bool
    ) -> None:
        scale = RatingScale(low, high, scores_are_labels=scores_are_labels, clip=clip)
        expected = low + (high - low) * self.SCORES if scores_are_labels else self.SCORES
        expected = np.clip(expected, low, high) if clip else expected
        found = scale.ratings(torch.from_numpy(self.SCORES)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


class TestRankingScores:
    def test_candidates_are_target_items_that_are_not_set_aside(self) -> None:
        source = frame(*(("abc"[n % 3], f"s{n % 2}", 4, n) for n in range(6)))
        rated = [(user, item) for user in "abc" for item in ("x", "y", "z")]
        target = frame(*((*pair, 5, time) for time, pair in enumerate(rated)))
        pair = join_domains(source, target)
        split = split_cold_start(
            pair,
            test_user_ratio=0.3,
            valid_user_ratio=0.5,
            split_seed=1,
            few_shot=FewShot(0, 2),
        )
        users = torch.tensor([3, 1, 2])
        cold = {*split.test_users.tolist(), *split.valid_users.tolist()}
        scores = Candidates(pair, split, torch.device("cpu")).only(torch.ones(3, 6), users)
        for user, row in zip(users.tolist(), scores.tolist(), strict=True):
            first_two = [-np.inf, -np.inf] if user in cold else [1, 1]
            assert row == [-np.inf] * 3 + [*first_two, 1]
        assert len(cold) == 2

    def test_ties_are_broken_and_nothing_else_moves(self) -> None:
        near = torch.tensor([1.0]).nextafter(torch.tensor([2.0])).item()
        scores = torch.tensor([[1.0, near, 1.0, -torch.inf, 0.0, -near, -1.0, 0.0]])
        seen = set()
        for seed in range(50):
            broken = break_ties(scores, noise(scores, seed))[0]
            order = broken.argsort(descending=True).tolist()
            assert order[0] == 1
            assert set(order[1:3]) == {0, 2}
            assert set(order[3:5]) == {4, 7}
            assert order[5:] == [6, 5, 3]
            assert torch.isneginf(broken[3])
            seen.add((order[1], order[3]))
        assert seen == {(0, 4), (0, 7), (2, 4), (2, 7)}


class TestRating:
    @pytest.mark.parametrize(
        "values",
        [
            {"model": "BiasTransfer"},
            {"model": "MetaMMCDR", **TINY},
            {"model": "TargetMF", **TINY, "preset": "paper"},
            {"model": "TargetMF", **TINY, "preset": "paper", "clip_predictions": True},
            {"model": "BiasTransfer", "eval_batch_size": 7},
        ],
        ids=str,
    )
    def test_metrics_are_those_of_the_saved_predictions(
        self, data_path: Path, tmp_path: Path, values: dict[str, Any]
    ) -> None:
        file = tmp_path / "predictions.npz"
        result = run_mm(data_path, **values, save_predictions=str(file))
        with np.load(file, allow_pickle=False) as saved:
            rows = {name: saved[name] for name in saved.files}
        assert result["predictions"] == str(file)
        error = rows["prediction"].astype(np.float64) - rows["rating"]
        assert result["test"]["MAE"] == pytest.approx(np.abs(error).mean(), abs=2e-6)
        assert result["test"]["RMSE"] == pytest.approx(np.sqrt(np.mean(error**2)), abs=2e-6)
        run = build_run(data_path, **values)
        split, pair = run.dataset.split, run.dataset.pair
        expected = sorted(
            (pair.user_tokens[u], pair.item_tokens[i], float(r))
            for u, i, r in zip(split.test.user, split.test.item, split.test.rating, strict=True)
        )
        columns = (rows[name].tolist() for name in ("user", "item", "rating"))
        assert sorted(zip(*columns, strict=True)) == expected
        inside = (rows["prediction"] >= 1).all() and (rows["prediction"] <= 5).all()
        assert inside or not run.config["clip_predictions"]

    def test_clipping_matters(self, data_path: Path) -> None:
        values = {"model": "TargetMF", **TINY, "preset": "paper"}
        free, clipped = (
            run_mm(data_path, **values, clip_predictions=clip)["test"]["RMSE"]
            for clip in (False, True)
        )
        assert clipped < free - 0.01

    def test_batch_size_does_not_matter(self, data_path: Path) -> None:
        metrics = [
            run_mm(data_path, model="BiasTransfer", eval_batch_size=size)["test"]
            for size in (1, 7, 4096)
        ]
        assert metrics[0] == pytest.approx(metrics[1], abs=2e-6)
        assert metrics[0] == pytest.approx(metrics[2], abs=2e-6)


class TestRanking:
    @pytest.mark.parametrize("model", ["PTUPCDR", "TargetMF"])
    def test_against_numpy(self, data_path: Path, model: str) -> None:
        """Scores without ties, ranked one user at a time."""
        values = {
            **TINY,
            "learning_rate": 0.03,
            "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision"],
            "topk": [5, 10],
            "valid_metric": "NDCG@10",
        }
        run = build_run(data_path, model=model, eval_task="ranking", **values).fit()
        found = run.evaluate()
        test, pair = run.dataset.split.test, run.dataset.pair
        users = np.unique(test.user)
        flat = run.model.full_sort_predict(Interaction({"user_id": torch.from_numpy(users)}))
        scores = flat.detach().view(len(users), pair.n_items).double().numpy()
        first = pair.items("target").start
        expected: dict[str, list[float]] = {}
        for user, row in zip(users, scores, strict=True):
            candidates = sorted(range(first, pair.n_items), key=lambda i: -row[i])
            assert len(set(row[first:])) == len(candidates), "ties are ranked at random"
            positives = set(test.item[test.user == user].tolist())
            for k in (5, 10):
                hits = [item in positives for item in candidates[:k]]
                gains = [1 / np.log2(place + 2) for place in range(k)]
                ideal = sum(gains[: min(k, len(positives))])
                dcg = sum(gain for gain, hit in zip(gains, hits, strict=True) if hit)
                one_user = {
                    f"recall@{k}": sum(hits) / len(positives),
                    f"precision@{k}": sum(hits) / k,
                    f"hit@{k}": float(any(hits)),
                    f"mrr@{k}": 1 / (hits.index(True) + 1) if any(hits) else 0.0,
                    f"ndcg@{k}": dcg / ideal,
                }
                for name, value in one_user.items():
                    expected.setdefault(name, []).append(value)
        means = {name: float(np.mean(values)) for name, values in expected.items()}
        assert found == pytest.approx(means, abs=2e-6)
        assert 0 < means["ndcg@10"] < 1

    def test_constant_scores_rank_at_random(self, data_path: Path) -> None:
        """Every target item is equally likely among the first ten, whatever its id."""
        run = build_run(data_path, model="GlobalMean", eval_task="ranking").fit()
        n_items = run.dataset.pair.n_items - run.dataset.pair.items("target").start
        recalls = []
        for seed in range(40):
            run.config["seed"] = seed
            recalls.append(run.evaluate()["recall@10"])
        assert np.mean(recalls) == pytest.approx(10 / n_items, abs=4 * np.std(recalls) / 40**0.5)
        assert np.std(recalls) > 0
