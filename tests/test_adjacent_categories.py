"""The adjacent-categories model: its arithmetic, its optimum, and tilting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_cdr_mm.layers.adjacent_categories import AdjacentCategories, tilt
from recbole_cdr_mm.layers.rating_distribution import mean

Floats = NDArray[np.floating]
SCALES = {
    "stars": np.arange(1.0, 6),
    "halves": np.arange(1.0, 11) / 2,
    "two": np.array([0.0, 1.0]),
    "one": np.array([4.0]),
    "uneven": np.array([1.0, 2.0, 5.0, 40.0]),
}
PENALTY, SPREAD_PENALTY = 2.0, 5.0


def by_hand(values: Floats, intercept: Floats, height: float, width: float) -> Floats:
    """Probabilities of one row, (V,)."""
    span = max(values[-1] - values[0], 1e-12)
    trend = 4 * (values - (values[0] + values[-1]) / 2) / span
    curve = trend**2 - np.mean(trend**2)
    odds = np.exp(intercept + height * trend + width * curve)
    return odds / odds.sum()


def planted(rng: np.random.Generator, n: int, values: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, 3), ratings that the model draws for them, and weights."""
    x = rng.standard_normal((n, 3))
    intercept = np.linspace(0, 1, len(values))
    heights, widths = x @ [0.5, -0.3, 0.0], x @ [0.0, 0.2, 0.4]
    rating = [
        rng.choice(values, p=by_hand(values, intercept, h, w))
        for h, w in zip(heights, widths, strict=True)
    ]
    weight = rng.uniform(0.5, 1.5, n)
    return torch.from_numpy(x), torch.tensor(np.array(rating)), torch.from_numpy(weight)


def fitted(
    data: tuple[Tensor, Tensor, Tensor], values: Floats, penalty: float = PENALTY
) -> AdjacentCategories:
    features, rating, weight = data
    model = AdjacentCategories(torch.from_numpy(values), features.shape[1])
    per_feature = torch.tensor([0.0, penalty, penalty], dtype=torch.float64)
    model.fit(features, rating, weight, penalty=per_feature, spread_penalty=SPREAD_PENALTY)
    return model


@pytest.mark.parametrize("values", SCALES.values(), ids=SCALES)
class TestEachScale:
    def test_probabilities(self, rng: np.random.Generator, values: Floats) -> None:
        model = AdjacentCategories(torch.from_numpy(values).float(), 3)
        before = model(torch.zeros(2, 3))
        torch.testing.assert_close(before, torch.full((2, len(values)), 1 / len(values)))
        intercept, location, spread = (rng.standard_normal(n) for n in (len(values), 3, 3))
        model.intercept.copy_(torch.from_numpy(intercept))
        model.location.copy_(torch.from_numpy(location))
        model.spread.copy_(torch.from_numpy(spread))
        x = rng.standard_normal((20, 3))
        found = model(torch.from_numpy(x).float()).numpy()
        for row, p in zip(x, found, strict=True):
            expected = by_hand(values, intercept, row @ location, row @ spread)
            np.testing.assert_allclose(p, expected, atol=1e-5)

    def test_nothing_near_the_fit_is_better(self, rng: np.random.Generator, values: Floats) -> None:
        data = planted(rng, 300, values)
        model = fitted(data, values)
        x, rating, weight = (column.numpy() for column in data)
        place = np.searchsorted(values, rating)
        penalty = np.array([0.0, PENALTY, PENALTY])

        def objective(parameters: Floats) -> float:
            """The penalised likelihood, one row at a time."""
            intercept, location, spread = np.split(parameters, [len(values), len(values) + 3])
            rows = [by_hand(values, intercept, row @ location, row @ spread) for row in x]
            likelihood = sum(w * np.log(p[k]) for w, p, k in zip(weight, rows, place, strict=True))
            penalties = (
                0.01 * intercept @ intercept
                + penalty @ location**2
                + SPREAD_PENALTY * spread @ spread
            )
            return likelihood - penalties / 2

        parts = (model.intercept, model.location, model.spread)
        found = np.concatenate([part.double().numpy() for part in parts])
        best = objective(found)
        for step, moved in itertools.product((-0.02, 0.02), np.eye(len(found))):
            assert objective(found + step * moved) < best + 1e-9

    def test_tilting_gives_the_mean(self, rng: np.random.Generator, values: Floats) -> None:
        probabilities = rng.dirichlet(np.ones(len(values)), 200)
        low, high = values[0], values[-1]
        margin = (high - low) / 200
        wanted = rng.uniform(low + margin, high - margin, 200)
        scale = torch.from_numpy(values)
        found = tilt(torch.from_numpy(probabilities), scale, torch.from_numpy(wanted))
        torch.testing.assert_close(found.sum(1), torch.ones(200, dtype=torch.float64))
        assert (found >= 0).all()
        np.testing.assert_allclose(mean(found, scale), wanted, atol=1e-6 * (1 + high - low))
        # what is multiplied with is exponential in the values, so its logarithm is linear in them
        for p, q in zip(probabilities, found.numpy(), strict=True):
            if len(values) > 2:
                slopes = np.diff(np.log(q / p)) / np.diff(values)
                np.testing.assert_allclose(slopes, slopes[0], rtol=1e-4, atol=1e-4)


class TestFit:
    def test_recovers_what_is_planted(self, rng: np.random.Generator) -> None:
        values = SCALES["stars"]
        model = fitted(planted(rng, 20_000, values), values, penalty=0.0)
        np.testing.assert_allclose(model.location, [0.5, -0.3, 0.0], atol=0.03)
        np.testing.assert_allclose(model.spread, [0.0, 0.2, 0.4], atol=0.03)

    def test_two_values_have_no_spread(self, rng: np.random.Generator) -> None:
        values = SCALES["two"]
        model = fitted(planted(rng, 500, values), values)
        assert model.location.abs().max() > 0.1
        assert not model.spread.any()

    def test_a_value_that_nobody_gave(self, rng: np.random.Generator) -> None:
        values = SCALES["stars"]
        x, rating, weight = planted(rng, 2000, values)
        kept = rating != 3
        model = fitted((x[kept], rating[kept], weight[kept]), values)
        found = model(x.float()).mean(0)
        assert torch.isfinite(model.intercept).all()
        assert ((found > 0) & (found < 1e-2)).tolist() == [False, False, True, False, False]

    def test_another_scale_gives_the_same(self, rng: np.random.Generator) -> None:
        """Half of the stars, and the same penalties."""
        values = SCALES["stars"]
        x, rating, weight = planted(rng, 500, values)
        one, other = (
            fitted((x, rating, weight), values),
            fitted((x, rating / 2, weight), values / 2),
        )
        assert (one.unit, other.unit) == (1.0, 0.5)
        torch.testing.assert_close(one(x.float()), other(x.float()), rtol=1e-4, atol=1e-5)

    def test_fitting_again_gives_the_same_bits(self, rng: np.random.Generator) -> None:
        values = SCALES["stars"]
        data = planted(rng, 500, values)
        once, twice = fitted(data, values), fitted(data, values)
        for one, other in zip(once.buffers(), twice.buffers(), strict=True):
            assert torch.equal(one, other)


class TestTilt:
    def test_the_same_mean_changes_nothing(self, rng: np.random.Generator) -> None:
        probabilities = torch.from_numpy(rng.dirichlet(np.ones(5), 50))
        stars = torch.arange(1.0, 6, dtype=torch.float64)
        found = tilt(probabilities, stars, mean(probabilities, stars))
        torch.testing.assert_close(found, probabilities)

    @pytest.mark.parametrize(("wanted", "found"), [(-3.0, 1.02), (1.0, 1.02), (9.0, 4.98)])
    def test_means_out_of_reach_are_moved_inwards(self, wanted: float, found: float) -> None:
        probabilities = torch.tensor([[0.9, 0.05, 0.03, 0.01, 0.01], [0.0, 0.0, 0.0, 0.0, 1.0]])
        stars = torch.arange(1.0, 6)
        tilted = tilt(probabilities, stars, torch.tensor([wanted, wanted]))
        assert torch.isfinite(tilted).all()
        assert mean(tilted, stars)[0].item() == pytest.approx(found, abs=1e-3)

    def test_one_row_at_a_time_equals_the_batch(self, rng: np.random.Generator) -> None:
        probabilities = torch.from_numpy(rng.dirichlet(np.ones(5), 20)).float()
        stars, wanted = torch.arange(1.0, 6), torch.from_numpy(rng.uniform(1, 5, 20)).float()
        batch = tilt(probabilities, stars, wanted)
        alone = [tilt(probabilities[n : n + 1], stars, wanted[n : n + 1]) for n in range(20)]
        torch.testing.assert_close(torch.cat(alone), batch)
