"""Rating distributions: their arithmetic, and what a run makes of them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import Run, build_run, result_of, run_mm, tiny_pair, write_world
from numpy.typing import NDArray
from torch import Tensor

from dataset_tools.synthetic import make_pair
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.rating_distribution import (
    RatingDistribution,
    log_likelihoods,
    mean,
    median,
    shortest_interval,
)

Floats = NDArray[np.floating]
FLOORS = ("GlobalMean", "ItemMean", "BiasTransfer", "CalibratedTransfer")
STARS = torch.arange(1.0, 6)
CUTS, SLOPE = np.array([4.5, 6.0, 8.0, 10.0]), 2.5


def by_hand(cuts: Floats, location: float) -> Floats:
    """Probabilities of the values, (V,)."""
    below = [1 / (1 + np.exp(-(cut - location))) for cut in cuts]
    return np.diff([0.0, *below, 1.0])


def planted(rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Scores, and stars that the proportional-odds model draws for them."""
    score = 4 + 0.5 * rng.standard_normal(n)
    latent = SLOPE * score + rng.logistic(size=n)
    return torch.from_numpy(score), torch.from_numpy(1.0 + np.searchsorted(CUTS, latent))


def fitted(score: Tensor, rating: Tensor, values: Tensor = STARS) -> RatingDistribution:
    distribution = RatingDistribution(values)
    distribution.fit(score, rating)
    return distribution


def random_probabilities(rng: np.random.Generator, n_values: int) -> Floats:
    """Rows with many ties and zeros, and rows with none."""
    coarse = rng.integers(0, 4, (300, n_values)) + np.eye(n_values)[rng.integers(0, n_values, 300)]
    fine = rng.dirichlet(np.ones(n_values), 300)
    return np.concatenate([coarse / coarse.sum(1, keepdims=True), fine])


class TestModel:
    def test_probabilities(self, rng: np.random.Generator) -> None:
        distribution = RatingDistribution(STARS)
        assert distribution.probabilities(torch.tensor([3.0]))[0].tolist() == pytest.approx(
            [0.2] * 5
        )
        distribution.cuts.copy_(torch.from_numpy(CUTS))
        distribution.slope.fill_(SLOPE)
        score = rng.uniform(-3, 8, 20)
        found = distribution.probabilities(torch.from_numpy(score)).numpy()
        for s, row in zip(score, found, strict=True):
            np.testing.assert_allclose(row, by_hand(CUTS, SLOPE * s), atol=1e-6)

    def test_log_likelihoods(self, rng: np.random.Generator) -> None:
        location, index = rng.uniform(0, 12, 50), rng.integers(0, 5, 50)
        cuts = torch.from_numpy(CUTS).requires_grad_()
        found = log_likelihoods(cuts, torch.from_numpy(location), torch.from_numpy(index))
        expected = [np.log(by_hand(CUTS, s)[i]) for s, i in zip(location, index, strict=True)]
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-9)
        far = log_likelihoods(cuts, torch.tensor([-800.0, 800.0]), torch.tensor([4, 0]))
        assert far.tolist() == pytest.approx([-810, -795.5])  # where a difference would be 0
        (found.sum() + far.sum()).backward()
        assert torch.isfinite(cuts.grad).all()

    def test_recovers_what_is_planted(self, rng: np.random.Generator) -> None:
        distribution = fitted(*planted(rng, 50_000))
        np.testing.assert_allclose(distribution.cuts, CUTS, atol=0.2)
        assert distribution.slope.item() == pytest.approx(SLOPE, abs=0.05)

    def test_nothing_near_it_is_more_probable(self, rng: np.random.Generator) -> None:
        score, rating = planted(rng, 300)
        distribution = fitted(score, rating)
        index = rating.long() - 1

        def objective(cuts: Floats, slope: float) -> float:
            """The likelihood with the further rating and the penalty, in plain NumPy."""
            rows = [by_hand(cuts, slope * s) for s in score.tolist()]
            further = np.log(by_hand(cuts, slope * score.mean().item())).mean()
            penalty = 1e-3 * (slope * score.std(correction=0).item()) ** 2
            return (
                sum(np.log(row[i]) for row, i in zip(rows, index, strict=True)) + further - penalty
            )

        cuts, slope = distribution.cuts.double().numpy(), distribution.slope.item()
        best = objective(cuts, slope)
        for step, place in itertools.product((-0.03, 0.03), range(5)):
            moved = cuts + step * (np.arange(4) == place)
            assert objective(moved, slope + step / 4 * (place == 4)) < best

    def test_fitting_again_gives_the_same_bits(self, rng: np.random.Generator) -> None:
        data = planted(rng, 500)
        once, twice = fitted(*data), fitted(*data)
        twice.fit(*data)
        assert torch.equal(once.cuts, twice.cuts)
        assert torch.equal(once.slope, twice.slope)

    @pytest.mark.parametrize("sign", [0.0, -1.0])
    def test_a_score_that_says_nothing(self, rng: np.random.Generator, sign: float) -> None:
        """One that is constant, and one whose higher values come with lower ratings."""
        score, rating = planted(rng, 400)
        distribution = fitted(sign * score, rating)
        assert distribution.slope == 0
        shares = (np.bincount(rating.long(), minlength=6)[1:] + 0.2) / 401
        np.testing.assert_allclose(distribution.probabilities(score[:3])[1], shares, atol=1e-6)

    def test_a_value_that_nobody_gave(self, rng: np.random.Generator) -> None:
        score, rating = planted(rng, 1000)
        kept = (rating != 3) & (rating != 5)
        found = fitted(score[kept], rating[kept]).probabilities(score).mean(0)
        assert torch.isfinite(found).all()
        assert ((found > 0) & (found < 1e-2)).tolist() == [False, False, True, False, True]

    def test_scores_that_tell_the_ratings_apart(self) -> None:
        distribution = fitted(STARS, STARS)
        assert torch.isfinite(distribution.cuts).all()
        assert (distribution.cuts.diff() > 0).all()
        found = distribution.probabilities(STARS)
        assert (found.argmax(1) == torch.arange(5)).all()

    def test_one_value_and_two(self, rng: np.random.Generator) -> None:
        score, rating = planted(rng, 2000)
        alone = fitted(score, torch.full_like(score, 4), torch.tensor([4.0]))
        assert alone.probabilities(score[:2]).tolist() == [[1.0], [1.0]]
        two = fitted(score, 4 + (rating > 4), torch.tensor([4.0, 5.0]))
        assert two.slope.item() == pytest.approx(SLOPE, abs=0.5)
        assert two.cuts.item() == pytest.approx(CUTS[3], abs=2)


class TestEstimates:
    @pytest.mark.parametrize("n_values", [1, 2, 5, 9])
    def test_point_estimates(self, rng: np.random.Generator, n_values: int) -> None:
        probabilities = random_probabilities(rng, n_values)
        values = np.sort(rng.choice(20, n_values, replace=False)) / 2
        given = torch.from_numpy(probabilities), torch.from_numpy(values)
        np.testing.assert_allclose(mean(*given), probabilities @ values)
        found = median(*given).numpy()
        for p, m in zip(probabilities, found, strict=True):
            assert p[values <= m].sum() >= 0.5 - 1e-6
            assert p[values < m].sum() < 0.5
            errors = [p @ np.abs(values - other) for other in values]
            assert p @ np.abs(values - m) == pytest.approx(min(errors))

    def test_an_even_half_is_enough(self) -> None:
        tenths = torch.full((1, 10), 0.1)  # whose sum in float32 is a little less, or more
        assert median(tenths, torch.arange(1.0, 11)).item() == 5

    @pytest.mark.parametrize("level", [0.05, 0.5, 0.8, 0.99])
    @pytest.mark.parametrize("n_values", [1, 2, 5, 9])
    def test_intervals_against_all_others(
        self, rng: np.random.Generator, n_values: int, level: float
    ) -> None:
        probabilities = random_probabilities(rng, n_values)
        values = np.sort(rng.choice(20, n_values, replace=False)) / 2
        tensors = torch.from_numpy(probabilities), torch.from_numpy(values)
        found = shortest_interval(*tensors, level)
        for p, low, high, held in zip(probabilities, *map(Tensor.tolist, found), strict=True):
            inside = (values >= low) & (values <= high)
            assert held == pytest.approx(p[inside].sum())
            size = np.count_nonzero(inside)
            shorter, equal = (
                [p[start : start + n].sum() for start in range(n_values - n + 1)]
                for n in (size - 1, size)
            )
            assert max(shorter) < level <= held + 1e-6
            assert held == pytest.approx(max(equal))

    def test_ties_by_hand(self) -> None:
        probabilities = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.125, 0.375, 0.25, 0.25]])
        found = shortest_interval(probabilities, torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5)
        assert found.low.tolist() == [1, 2]
        assert found.high.tolist() == [2, 3]
        assert found.probability.tolist() == [0.5, 0.625]

    @pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
    def test_coverage_is_the_probability_held(self, rng: np.random.Generator, level: float) -> None:
        distribution = fitted(*planted(rng, 20_000))
        score, rating = planted(rng, 20_000)
        interval = shortest_interval(distribution.probabilities(score.float()), STARS, level)
        covered = (interval.low <= rating) & (rating <= interval.high)
        assert covered.double().mean() >= level
        assert covered.double().mean().item() == pytest.approx(
            interval.probability.mean().item(), abs=0.01
        )


# Runs


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair in which most ratings have the highest value."""
    pair = make_pair(
        "demo",
        n_overlapped=400,
        n_source_items=100,
        n_target_items=100,
        source_ratings_per_user=20,
        target_ratings_per_user=20,
        integer_ratings=True,
    )
    up = pair.target_inter.assign(rating=(pair.target_inter["rating"] + 1).clip(1, 5))
    pair = dataclasses.replace(pair, target_inter=up)
    return write_world(pair, tmp_path_factory.mktemp("skewed"))


@pytest.mark.parametrize("model", FLOORS)
def test_each_estimate_is_best_for_its_errors(skewed: Path, model: str) -> None:
    results = {
        name: run_mm(skewed, model=model, point_estimate=name) for name in ("mean", "median")
    }
    estimates = results["mean"]["estimates"]
    assert estimates == results["median"]["estimates"]
    for part in ("valid", "test"):
        assert estimates[part]["median"]["MAE"] < estimates[part]["mean"]["MAE"]
        assert estimates[part]["mean"]["RMSE"] < estimates[part]["median"]["RMSE"]
        interval = estimates[part]["interval"]
        assert interval["coverage"] == pytest.approx(interval["probability"], abs=0.03)
        assert min(interval["coverage"], interval["probability"]) > interval["level"] == 0.8


def test_a_higher_level_is_wider(data_path: Path) -> None:
    intervals = [
        run_mm(data_path, model="BiasTransfer", interval_level=level)["estimates"]["test"][
            "interval"
        ]
        for level in (0.5, 0.8, 0.95)
    ]
    assert [interval["level"] for interval in intervals] == [0.5, 0.8, 0.95]
    for key in ("probability", "coverage", "width"):
        values = [interval[key] for interval in intervals]
        assert values == sorted(values)
        assert values[0] < values[-1]


def test_the_mean_is_clipped_as_predictions_are(data_path: Path) -> None:
    values = {"model": "BiasTransfer", "item_shrinkage": 0.0, "user_shrinkage": 0.0}
    clipped, free = (
        run_mm(data_path, **values, clip_predictions=clip)["estimates"]["test"]
        for clip in (True, False)
    )
    assert clipped["mean"]["RMSE"] < free["mean"]["RMSE"]
    assert clipped["median"] == free["median"]


def test_only_the_metrics_asked_for(data_path: Path) -> None:
    result = run_mm(data_path, model="ItemMean", metrics=["MAE"], valid_metric="MAE")
    assert result["estimates"]["test"]["mean"] == result["test"]
    assert result["estimates"]["test"]["median"].keys() == {"MAE"}


def test_without_validation_users(data_path: Path) -> None:
    estimates = run_mm(data_path, model="ItemMean", valid_user_ratio=0.0)["estimates"]
    assert estimates["valid"] is None
    assert estimates["test"]["mean"]["RMSE"] > 0


def test_models_without_a_distribution(data_path: Path) -> None:
    for values in ({"model": "TargetMF", "epochs": 1}, {"model": "FM", "epochs": 1}):
        assert run_mm(data_path, **values)["estimates"] is None


def test_a_resumed_run_gives_the_same(data_path: Path, tmp_path: Path) -> None:
    values = {"model": "BiasTransfer", "point_estimate": "median"}
    first = result_of(data_path, tmp_path, **values)
    assert first["estimates"]["test"]["median"] == first["test"]
    assert result_of(data_path, tmp_path, **values, resume=True) == first


def test_both_estimates_are_printed(data_path: Path) -> None:
    from recbole_cdr_mm.run import _short_table

    result = run_mm(data_path, model="ItemMean")
    lines = _short_table(result).splitlines()
    assert [line.split("  ")[1] for line in lines[3:]] == [
        "test, mean",
        "test, median",
        "test, interval",
    ]
    assert f"MAE {result['estimates']['test']['median']['MAE']:.4f}" in lines[4]
    assert "level 0.8000  probability" in lines[5]


class TestFewUsers:
    @staticmethod
    def run_with(path: Path, n_training_users: int, **values: Any) -> Run:
        """A pair of ten overlapped users, all but a few of them test users."""
        pair = make_pair(
            "demo",
            n_overlapped=10,
            n_source_only=5,
            n_target_only=5,
            n_source_items=20,
            n_target_items=20,
            source_ratings_per_user=8,
            target_ratings_per_user=8,
            integer_ratings=True,
        )
        ratio = {"test_user_ratio": 1 - n_training_users / 10, "valid_user_ratio": 0.0}
        run = build_run(write_world(pair, path), **ratio, **values)
        train, overlapped = run.dataset.split.train, run.dataset.pair.overlapped_users
        assert len(np.intersect1d(train.user, overlapped)) == n_training_users
        return run

    @pytest.mark.parametrize("model", FLOORS[:-1])
    @pytest.mark.parametrize(("n_users", "n_folds"), [(1, 0), (2, 2), (3, 3)])
    def test_there_are_fewer_folds(
        self, tmp_path: Path, model: str, n_users: int, n_folds: int
    ) -> None:
        run = self.run_with(tmp_path, n_users, model=model).fit()
        assert run.model.draw_folds(run.dataset)[1] == n_folds
        test = run.dataset.split.test
        probabilities = run.model.rating_probabilities(
            torch.from_numpy(test.user), torch.from_numpy(test.item)
        )
        assert torch.isfinite(probabilities).all()
        assert np.isfinite([*run.evaluate().values()]).all()

    def test_calibration_needs_its_folds(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="simulation_folds 5 needs as many overlapped"):
            self.run_with(tmp_path, 3, model="CalibratedTransfer").fit()


class TestMistakes:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"point_estimate": "median", "eval_task": "ranking"},
                "`point_estimate: median` is of ratings, and orders no items. Leave it out",
            ),
            ({"point_estimate": "mode"}, r"must be \(mean | median\)"),
            ({"interval_level": 1}, r"must be \(0 < float < 1\)"),
            (
                {"model": "NeuMF", "interval_level": 0.5},
                "unknown key `interval_level`. It is a key of BiasTransfer, Calibrated.*, not of"
                " NeuMF. Leave it out",
            ),
        ],
        ids=str,
    )
    def test_is_told(self, data_path: Path, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build_run(data_path, **{"model": "BiasTransfer", **values})

    def test_a_mean_may_order_items(self, data_path: Path) -> None:
        run = build_run(data_path, model="BiasTransfer", eval_task="ranking", point_estimate="mean")
        assert run.fit().model.rating_values is None

    def test_ratings_without_steps(self, tmp_path: Path) -> None:
        pair = make_pair("demo", n_overlapped=60, n_source_only=5, n_target_only=5)
        write_world(pair, tmp_path)
        assert run_mm(tmp_path, model="ItemMean")["estimates"] is None
        with pytest.raises(ConfigError, match="`point_estimate: median` needs ratings on a scale"):
            run_mm(tmp_path, model="ItemMean", point_estimate="median")
