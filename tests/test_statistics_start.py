"""MetaMMCDR's floor of ratings: in plain NumPy, what it may know, and what it learns."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import (
    TINY,
    Run,
    build_run,
    naive_biases,
    result_of,
    run_mm,
    simulated_users,
    tiny_pair,
    write_world,
)
from numpy.typing import NDArray
from test_rating_statistics import naive_log_shares, naive_spread

from dataset_tools.feature_store import read_store, write_store
from dataset_tools.synthetic import SyntheticPair, make_pair
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.adjacent_categories import AdjacentCategories
from recbole_cdr_mm.layers.rating_distribution import mean
from recbole_cdr_mm.model.statistics_start import StatisticsStart

Floats = NDArray[np.floating]
META: dict[str, Any] = {"model": "MetaMMCDR", **TINY}
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def fitted(
    data_path: Path, dataset: str = "tiny", *, is_met: bool = True, **values: Any
) -> tuple[Run, StatisticsStart]:
    """A run of which nothing but the floor is fitted."""
    run = build_run(data_path, dataset, **{**META, **values})
    run.model.floor.fit(run.model.target, run.dataset, simulated_users(run, is_met=is_met))
    return run, run.model.floor


def scores(floor: StatisticsStart, user: Any, item: Any) -> Floats:
    return floor(torch.as_tensor(user), torch.as_tensor(item)).double().numpy()


# Plain NumPy, slow and obvious


class NaiveItems:
    """Statistics of a domain's items without texts, and BiasTransfer's part of them."""

    def __init__(self, rows: Ratings) -> None:
        self.mean, self.user_bias, item_bias = naive_biases(rows)
        self.part = {i: self.mean + b for i, b in item_bias.items()}
        self.ratings = [float(r) for r in rows.rating]
        rest = [
            r - self.mean - self.user_bias[u] for r, u in zip(self.ratings, rows.user, strict=True)
        ]
        self.places = {i: list(np.flatnonzero(rows.item == i)) for i in np.unique(rows.item)}
        self.bias = {
            i: sum(rest[n] for n in places) / (len(places) + 3) for i, places in self.places.items()
        }
        self.errors = [r - self.bias[i] for r, i in zip(rest, rows.item, strict=True)]

    def columns(self, item: int) -> list[float]:
        places = self.places.get(item, [])
        bias = self.bias.get(item, 0.0)
        return [
            bias,
            np.log(1 + len(places)),
            naive_spread([self.errors[n] for n in places], self.errors),
            *naive_log_shares([self.ratings[n] for n in places], self.ratings),
            bias**2,
        ]


class NaiveUsers:
    """Statistics of the source domain's users."""

    def __init__(self, rows: Ratings) -> None:
        self.items = NaiveItems(rows)
        self.places = {u: list(np.flatnonzero(rows.user == u)) for u in np.unique(rows.user)}
        self.chosen = rows.item.tolist()
        rest = [
            r - self.items.mean - self.items.bias[i]
            for r, i in zip(self.items.ratings, self.chosen, strict=True)
        ]
        self.bias = {u: sum(rest[n] for n in p) / (len(p) + 5) for u, p in self.places.items()}
        self.errors = [r - self.bias[u] for r, u in zip(rest, rows.user, strict=True)]
        self.popularity = [np.log(1 + len(self.items.places[i])) for i in self.chosen]
        self.log_count = float(np.mean([np.log(1 + len(p)) for p in self.places.values()]))

    def columns(self, user: int) -> list[float]:
        places, bias = self.places[user], self.bias[user]
        average = np.mean(self.popularity)
        total = len(places) + 5
        return [
            bias,
            np.log(1 + len(places)),
            naive_spread([self.errors[n] for n in places], self.errors),
            *naive_log_shares([self.items.ratings[n] for n in places], self.items.ratings),
            sum(self.items.bias[self.chosen[n]] for n in places) / total,
            sum(self.popularity[n] - average for n in places) / total,
            bias**2,
            bias * (np.log(1 + len(places)) - self.log_count),
        ]


class NaiveFloor:
    """Features, regression and average again, and what the distribution is fitted on."""

    def __init__(self, run: Run) -> None:
        dataset, train = run.dataset, run.dataset.split.train
        self.values = np.unique(train.rating)
        self.fold = simulated_users(run).fold.numpy()
        self.users = NaiveUsers(dataset.pair.source)
        without = [train.where(self.fold[train.user] != f) for f in range(5)]
        self.of_folds = [NaiveItems(seen) for seen in (*without, train)]
        rows = [n for n in range(len(train)) if self.fold[train.user[n]] < 5]
        folds = np.array([self.fold[train.user[n]] for n in rows])
        raw = np.array(
            [self.raw(train.user[n], train.item[n], f) for n, f in zip(rows, folds, strict=True)]
        )
        self.centre, self.deviation = raw.mean(0), raw.std(0)
        features = self.standardised(raw)
        counts = [np.sum(train.user == train.user[n]) for n in rows]
        self.weight = 1 / np.sqrt(counts)
        self.weight /= self.weight.mean()
        rating = train.rating[rows].astype(np.float64)
        noise, penalty = self.fit(features, rating - raw[:, 0], folds)
        self.categories = AdjacentCategories(torch.from_numpy(self.values), features.shape[1])
        penalties = np.full(
            features.shape[1], max(200.0, noise / self.categories.unit**2 * penalty)
        )
        penalties[0] = 0  # of BiasTransfer's score
        self.categories.fit(
            *(torch.from_numpy(column) for column in (features, rating, self.weight)),
            penalty=torch.from_numpy(penalties),
            spread_penalty=300,
        )

    def raw(self, user: int, item: int, fold: int = 5) -> list[float]:
        items = self.of_folds[fold]
        i, u = items.columns(item), self.users.columns(user)
        transferred = items.part.get(item, items.mean) + self.users.items.user_bias[user]
        products = [u[0] * i[0], u[0] * i[1], u[0] * i[2], i[0] * u[1], i[0] * u[2]]
        return [transferred, *i, *u, *products]

    def standardised(self, raw: Floats) -> Floats:
        return np.clip((raw - self.centre) / self.deviation, -4, 4)

    def solve(self, x: Floats, y: Floats, weight: Floats, penalty: float) -> Floats:
        """By augmented rows, so that no normal equations are formed."""
        root = np.sqrt(weight)[:, None]
        extra = np.sqrt(penalty) * np.eye(1 + x.shape[1])[2:]  # not BiasTransfer's score
        design = np.concatenate([root * np.c_[np.ones(len(x)), x], extra])
        return np.linalg.lstsq(design, np.append(root[:, 0] * y, np.zeros(len(extra))), rcond=None)[
            0
        ]

    def fit(self, x: Floats, y: Floats, fold: Floats) -> tuple[float, float]:
        """Fit the regression; its error on folds that are left out, and its penalty."""
        unit = np.mean(self.weight @ x**2)
        errors = []
        for share in PENALTIES:
            error = 0.0
            for f in range(5):
                seen, left = fold != f, fold == f
                intercept, *w = self.solve(x[seen], y[seen], self.weight[seen], 0.8 * share * unit)
                error += self.weight[left] @ (y[left] - intercept - x[left] @ w) ** 2
            errors.append(error)
        best = PENALTIES[int(np.argmin(errors))] * unit
        self.intercept, *weights = self.solve(x, y, self.weight, best)
        self.weights = np.array(weights)
        return min(errors) / len(x), best

    def score(self, user: int, item: int, fold: int = 5) -> float:
        raw = np.array(self.raw(user, item, fold))
        x = self.standardised(raw)
        p = self.categories(torch.from_numpy(x).float().unsqueeze(0)).double().numpy()[0]
        estimates = [raw[0], raw[0] + self.intercept + x @ self.weights]
        return float(np.mean([*np.clip(estimates, *self.values[[0, -1]]), p @ self.values]))


class TestArithmetic:
    @pytest.fixture(scope="class")
    @classmethod
    def both(cls, data_path: Path) -> tuple[Run, StatisticsStart, NaiveFloor]:
        run, floor = fitted(data_path, item_features="id")
        return run, floor, NaiveFloor(run)

    def test_of_cold_users(self, both: tuple[Run, StatisticsStart, NaiveFloor]) -> None:
        run, floor, naive = both
        test = run.dataset.split.test
        assert set(test.item.tolist()) - set(run.dataset.split.train.item.tolist())
        expected = [naive.score(u, i) for u, i in zip(test.user, test.item, strict=True)]
        np.testing.assert_allclose(scores(floor, test.user, test.item), expected, atol=2e-4)
        assert np.ptp(expected) > 0.5

    def test_of_simulated_users(self, both: tuple[Run, StatisticsStart, NaiveFloor]) -> None:
        run, floor, naive = both
        train = run.dataset.split.train
        rows = [n for n in range(len(train)) if naive.fold[train.user[n]] < 5][::5]
        user, item = train.user[rows], train.item[rows]
        expected = [naive.score(u, i, naive.fold[u]) for u, i in zip(user, item, strict=True)]
        found = floor.of_simulated(torch.from_numpy(user), torch.from_numpy(item))
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
        assert np.abs(scores(floor, user, item) - expected).max() > 0.01

    def test_the_distribution_is_fitted_on_the_same(
        self, both: tuple[Run, StatisticsStart, NaiveFloor]
    ) -> None:
        run, floor, naive = both
        test = run.dataset.split.test
        x = np.array(
            [
                naive.standardised(np.array(naive.raw(u, i)))
                for u, i in zip(test.user, test.item, strict=True)
            ]
        )
        expected = naive.categories(torch.from_numpy(x).float())
        user, item = torch.from_numpy(test.user), torch.from_numpy(test.item)
        own_mean = mean(expected, floor.values)
        found = floor.probabilities(user, item, own_mean)  # so nothing is tilted
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
        assert expected.std(0).max() > 0.05

    def test_the_distribution_has_the_mean_asked_for(
        self, both: tuple[Run, StatisticsStart, NaiveFloor]
    ) -> None:
        run, floor, _ = both
        test = run.dataset.split.test
        ids = torch.from_numpy(test.user), torch.from_numpy(test.item)
        wanted = torch.linspace(2.1, 4.9, len(test))
        found = floor.probabilities(*ids, wanted)
        assert floor.values is not None
        torch.testing.assert_close(mean(found, floor.values), wanted, atol=1e-3, rtol=0)


class TestKnown:
    """With all else held fixed, of nobody's own ratings anything is in what they meet."""

    @staticmethod
    def with_other_ratings_of(run: Run, user: int) -> PairDataset:
        dataset = copy.copy(run.dataset)
        train = dataset.split.train
        other = train.rating.min() + train.rating.max() - train.rating  # the same values
        rating = np.where(train.user == user, other, train.rating).astype(np.float32)
        moved = Ratings(train.user, train.item, rating, train.time)
        dataset.split = dataclasses.replace(dataset.split, train=moved)
        return dataset

    @pytest.mark.parametrize("is_met", [True, False])
    def test_own_ratings(self, data_path: Path, is_met: bool) -> None:
        run, floor = fitted(data_path, is_met=is_met)
        simulated = simulated_users(run, is_met=is_met)
        user = int(torch.nonzero(simulated.fold < 5)[0])
        before, own = floor._item_tables.clone(), int(simulated.fold[user])
        users = floor.user_table.clone()
        floor.fit(run.model.target, self.with_other_ratings_of(run, user), simulated)
        assert torch.equal(before[own], floor._item_tables[own])
        for other in {*range(6)} - {own}:
            assert not torch.equal(before[other], floor._item_tables[other])
        assert torch.equal(users, floor.user_table)
        assert int(floor._met[user]) == (own if is_met else 5)

    def test_users_of_whom_nothing_is_known(self, data_path: Path) -> None:
        run, floor = fitted(data_path)
        pair = run.dataset.pair
        target_only = 1 + pair.n_overlapped + pair.n_source_only
        table = floor.user_table
        assert torch.equal(table[0], table[target_only])
        simulated = torch.nonzero(simulated_users(run).fold < 5).squeeze(1)
        torch.testing.assert_close(table[0], table[simulated].mean(0))
        assert not torch.equal(table[1], table[0])

    def test_items_that_nobody_rated(self, data_path: Path) -> None:
        run, floor = fitted(data_path, item_features="id")
        pair, train = run.dataset.pair, run.dataset.split.train
        target = np.arange(pair.items("target").start, pair.n_items)
        unseen = np.setdiff1d(target, train.item)
        rows = floor.item_table[torch.from_numpy(unseen)]
        assert len(rows) > 1
        assert torch.equal(rows, rows[:1].expand_as(rows))
        part, bias, log_count = rows[0, :3].tolist()
        assert part == pytest.approx(float(train.rating.mean()))
        assert (bias, log_count) == (0, 0)
        with_texts = fitted(data_path)[1].item_table[torch.from_numpy(unseen)]
        assert len(torch.unique(with_texts[:, 1])) > 1

    def test_fitting_again_gives_the_same_bits(self, data_path: Path) -> None:
        one, other = (fitted(data_path)[1] for _ in range(2))
        for first, second in zip(one.buffers(), other.buffers(), strict=True):
            assert torch.equal(first, second)


class TestTexts:
    def test_ids_alone_and_domains_without_texts_have_no_prior(
        self, data_path: Path, tmp_path: Path
    ) -> None:
        run, floor = fitted(data_path)
        _, without = fitted(data_path, item_features="id")
        assert not torch.equal(floor.item_table[:, 1], without.item_table[:, 1])
        assert torch.equal(floor.item_table[:, 0], without.item_table[:, 0])
        pair = tiny_pair()
        no_texts = pair.target_items.assign(title="", text="")
        folder = write_world(dataclasses.replace(pair, target_items=no_texts), tmp_path)
        run, source_alone = fitted(folder)
        assert run.dataset.text_domains == ["source"]
        target = slice(run.dataset.pair.items("target").start, None)
        assert torch.equal(source_alone.item_table[target], without.item_table[target])
        assert not torch.equal(source_alone.user_table, without.user_table)

    def test_a_bias_that_the_text_tells(self, tmp_path: Path) -> None:
        """Half of the items, as their texts say, are rated two stars lower; some of them never."""
        pair = planted_pair()
        items = pair.target_items["item_id"].tolist()
        rng = np.random.default_rng(0)
        is_low = dict(zip(items, rng.random(len(items)) < 0.5, strict=True))
        inter = pair.target_inter
        lower = inter["item_id"].map(is_low) * 2.0
        inter = inter.assign(rating=(inter["rating"].clip(3, 5) - lower).clip(1, 5))
        write_world(dataclasses.replace(pair, target_inter=inter), tmp_path)
        store = read_store(tmp_path / "tiny_cd", "tiny_cd", "text")
        sign = np.array([1.0 if is_low[token] else -1.0 for token in store.ids])
        matrix = np.asarray(store.matrix) * 0.1
        matrix[:, 0] = sign
        info = {key: v for key, v in store.info.items() if key not in ("dim", "format")}
        write_store(tmp_path / "tiny_cd", "tiny_cd", "text", store.ids, matrix, info)
        errors = {}
        for features in ("id", "text"):
            run, floor = fitted(tmp_path, item_features=features)
            test = run.dataset.split.test
            count = np.bincount(run.dataset.split.train.item, minlength=run.dataset.pair.n_items)
            rare = count[test.item] <= 3
            assert rare.sum() > 50
            error = scores(floor, test.user[rare], test.item[rare]) - test.rating[rare]
            errors[features] = np.sqrt(np.mean(error**2))
        assert errors["text"] < 0.9 * errors["id"]


def planted_pair() -> SyntheticPair:
    return make_pair(
        "demo",
        n_overlapped=300,
        n_source_only=20,
        n_target_only=20,
        n_source_items=100,
        n_target_items=900,
        source_ratings_per_user=15,
        target_ratings_per_user=15,
        integer_ratings=True,
    )


def test_some_users_spread_more_than_others(tmp_path: Path) -> None:
    """Every second user rates 1 or 5 in both domains, the others 3."""
    pair = planted_pair()
    rng = np.random.default_rng(0)

    def extreme(frame: Any) -> Any:
        is_wild = frame["user_id"].str[-1].isin(list("02468"))
        return frame.assign(rating=np.where(is_wild, rng.choice([1, 5], len(frame)), 3))

    inter = {name: extreme(getattr(pair, name)) for name in ("source_inter", "target_inter")}
    write_world(dataclasses.replace(pair, **inter), tmp_path)
    run, floor = fitted(tmp_path)
    test = run.dataset.split.test
    ids = torch.from_numpy(test.user), torch.from_numpy(test.item)
    middle = floor.probabilities(*ids, floor(*ids))[:, 1].numpy()
    assert floor.values is not None
    assert floor.values.tolist() == [1, 3, 5]
    assert middle[test.rating == 3].min() > 0.6
    assert middle[test.rating != 3].max() < 0.4


class TestScales:
    @staticmethod
    def scaled(path: Path, factor: float, shift: float) -> Path:
        pair = tiny_pair()
        inter = {
            name: getattr(pair, name).assign(rating=getattr(pair, name)["rating"] * factor + shift)
            for name in ("source_inter", "target_inter")
        }
        return write_world(dataclasses.replace(pair, **inter), path)

    def test_another_scale_gives_the_same(self, data_path: Path, tmp_path: Path) -> None:
        run, floor = fitted(data_path)
        other_path = self.scaled(tmp_path, 10.0, 7.0)
        _, other = fitted(other_path, rating_range=[0, 100])
        test = run.dataset.split.test
        one, two = (scores(each, test.user, test.item) for each in (floor, other))
        np.testing.assert_allclose(two, 10 * one + 7, atol=0.02)

    def test_two_values(self, tmp_path: Path) -> None:
        pair = tiny_pair()
        liked = pair.target_inter["rating"] >= 4
        pair = dataclasses.replace(pair, target_inter=pair.target_inter.assign(rating=1 + liked))
        run, floor = fitted(write_world(pair, tmp_path))
        assert floor.categories is not None
        assert not floor.categories.spread.any()
        test = run.dataset.split.test
        found = scores(floor, test.user, test.item)
        assert ((found > 1) & (found < 2)).all()

    def test_ratings_without_steps(self, tmp_path: Path) -> None:
        """No distribution, and the average of two estimates."""
        pair = make_pair("demo", n_overlapped=60, n_source_only=5, n_target_only=5)
        write_world(pair, tmp_path)
        run, floor = fitted(tmp_path)
        assert floor.values is None
        assert run.model.rating_values is None
        test = run.dataset.split.test
        found = scores(floor, test.user, test.item)
        error = np.sqrt(np.mean((found - test.rating) ** 2))
        assert error < test.rating.std()
        assert run_mm(tmp_path, **META)["estimates"] is None
        with pytest.raises(ConfigError, match="`point_estimate: median` needs ratings on a scale"):
            build_run(tmp_path, **META, point_estimate="median")


def test_a_resumed_run_gives_the_same(data_path: Path, tmp_path: Path) -> None:
    values = {**META, "point_estimate": "median"}
    first = result_of(data_path, tmp_path, **values)
    assert first["estimates"]["test"]["median"] == first["test"]
    assert result_of(data_path, tmp_path, **values, resume=True) == first
