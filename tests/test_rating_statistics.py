"""Statistics of items and users: one user and one item at a time, in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataset_tools.biases import Biases
from recbole_cdr_mm.layers.fold_ridge import fit_fold_ridge
from recbole_cdr_mm.layers.rating_statistics import (
    RatingRows,
    Texts,
    item_statistics,
    runs_of_values,
    text_directions,
    text_prior,
    user_statistics,
)

N_USERS, N_ITEMS, N_ROWS = 12, 9, 40  # the last user and the last item have no ratings


@pytest.fixture
def rows(rng: np.random.Generator) -> RatingRows:
    user, item = rng.integers(0, N_USERS - 1, N_ROWS), rng.integers(0, N_ITEMS - 1, N_ROWS)
    rating = torch.from_numpy(
        rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], N_ROWS, p=[0.1, 0.1, 0.1, 0.2, 0.5])
    )
    run, n_runs = runs_of_values(rating)
    assert n_runs == 5
    return RatingRows(
        torch.from_numpy(user), torch.from_numpy(item), rating, run, N_USERS, N_ITEMS, n_runs
    )


@pytest.fixture
def biases(rng: np.random.Generator) -> Biases[torch.Tensor]:
    """Any will do: statistics are made of those that are given."""
    user, item = (torch.from_numpy(rng.standard_normal(n)) for n in (N_USERS, N_ITEMS))
    return Biases(3.9, user, item)


def texts_of(rng: np.random.Generator) -> Texts:
    known = torch.ones(N_ITEMS, dtype=torch.bool)
    known[3] = False
    directions = torch.from_numpy(rng.standard_normal((N_ITEMS, 2)))
    directions[3] = 0
    return Texts(directions, known)


def naive_log_shares(ratings: list[float], everything: list[float]) -> list[float]:
    """Of up to five values: five ratings of the domain's shares, and one more in the domain."""
    values = sorted(set(everything))
    overall = [(everything.count(v) + 1 / len(values)) / (len(everything) + 1) for v in values]
    return [
        float(np.log((ratings.count(v) + 5 * share) / (len(ratings) + 5)))
        for v, share in zip(values, overall, strict=True)
    ]


def naive_spread(errors: list[float], everything: list[float]) -> float:
    average = np.mean(np.square(everything))
    return np.sqrt((np.sum(np.square(errors)) + 5 * average) / (len(errors) + 5))


class TestItems:
    @pytest.mark.parametrize("with_texts", [True, False])
    def test_each_item(
        self,
        rng: np.random.Generator,
        rows: RatingRows,
        biases: Biases[torch.Tensor],
        with_texts: bool,
    ) -> None:
        texts = texts_of(rng) if with_texts else None
        found = item_statistics(rows, biases, 3.0, texts)
        data = list(zip(rows.user.tolist(), rows.item.tolist(), rows.rating.tolist(), strict=True))
        rest = [r - 3.9 - float(biases.user[u]) for u, _, r in data]
        of_item = {i: [n for n in range(N_ROWS) if data[n][1] == i] for i in range(N_ITEMS)}
        prior = [0.0] * N_ITEMS
        if texts is not None:
            count = torch.tensor([float(len(of_item[i])) for i in range(N_ITEMS)]).double()
            means = [np.mean([rest[n] for n in of_item[i]] or [0.0]) for i in range(N_ITEMS)]
            prior = text_prior(texts, torch.tensor(means), count, 3.0).tolist()
            assert prior[3] == 0 != prior[-1]
        bias = [
            (sum(rest[n] for n in of_item[i]) + 3 * prior[i]) / (len(of_item[i]) + 3)
            for i in range(N_ITEMS)
        ]
        errors = [rest[n] - bias[data[n][1]] for n in range(N_ROWS)]
        ratings = [r for *_, r in data]
        for i in range(N_ITEMS):
            expected = [
                bias[i],
                np.log(1 + len(of_item[i])),
                naive_spread([errors[n] for n in of_item[i]], errors),
                *naive_log_shares([ratings[n] for n in of_item[i]], ratings),
                bias[i] ** 2,
            ]
            np.testing.assert_allclose(found.columns[i], expected, rtol=1e-9)
        torch.testing.assert_close(found.bias, found.columns[:, 0])
        torch.testing.assert_close(found.log_count, found.columns[:, 1])

    def test_without_ratings_an_item_is_what_the_domain_is(
        self, rows: RatingRows, biases: Biases[torch.Tensor]
    ) -> None:
        found = item_statistics(rows, biases, 3.0, None)
        rest = rows.rating - 3.9 - biases.user[rows.user] - found.bias[rows.item]
        bias, log_count, spread, *shares, square = found.columns[-1].tolist()
        assert (bias, log_count, square) == (0, 0, 0)
        assert spread == pytest.approx(rest.square().mean().sqrt().item())
        assert np.exp(shares).sum() == pytest.approx(1)

    @pytest.mark.parametrize("with_texts", [True, False])
    def test_without_shrinkage(
        self, rows: RatingRows, biases: Biases[torch.Tensor], with_texts: bool
    ) -> None:
        known = torch.ones(rows.n_items, dtype=torch.bool)
        texts = Texts(torch.eye(rows.n_items, 3, dtype=torch.float64), known)
        found = item_statistics(rows, biases, 0.0, texts if with_texts else None)
        assert torch.isfinite(found.columns).all()
        assert found.bias[-1] == 0


class TestUsers:
    def test_each_user(self, rows: RatingRows, biases: Biases[torch.Tensor]) -> None:
        items = item_statistics(rows, biases, 3.0, None)
        found = user_statistics(rows, items, 5.0)
        data = list(zip(rows.user.tolist(), rows.item.tolist(), rows.rating.tolist(), strict=True))
        item_bias, popularity = items.bias.tolist(), items.log_count.tolist()
        of_user = {u: [n for n in range(N_ROWS) if data[n][0] == u] for u in range(N_USERS)}
        rest = [r - 3.9 - item_bias[i] for _, i, r in data]
        bias = [sum(rest[n] for n in of_user[u]) / (len(of_user[u]) + 5) for u in range(N_USERS)]
        errors = [rest[n] - bias[data[n][0]] for n in range(N_ROWS)]
        ratings = [r for *_, r in data]
        average = np.mean([popularity[i] for _, i, _ in data])
        log_count = {u: np.log(1 + len(of_user[u])) for u in of_user}
        average_count = np.mean([log_count[u] for u in of_user if of_user[u]])
        for u in range(N_USERS):
            own, chosen = of_user[u], [data[n][1] for n in of_user[u]]
            expected = [
                bias[u],
                log_count[u],
                naive_spread([errors[n] for n in own], errors),
                *naive_log_shares([ratings[n] for n in own], ratings),
                sum(item_bias[i] for i in chosen) / (len(own) + 5),
                sum(popularity[i] - average for i in chosen) / (len(own) + 5),
                bias[u] ** 2,
                bias[u] * (log_count[u] - average_count),
            ]
            np.testing.assert_allclose(found[u], expected, rtol=1e-9, atol=1e-12)

    def test_ratings_that_are_all_the_same(self, rows: RatingRows) -> None:
        constant = torch.full_like(rows.rating, 4.0)
        run, n_runs = runs_of_values(constant)
        same = RatingRows(rows.user, rows.item, constant, run, N_USERS, N_ITEMS, n_runs)
        none = Biases(4.0, torch.zeros(N_USERS).double(), torch.zeros(N_ITEMS).double())
        items = item_statistics(same, none, 3.0, None)
        for columns in (items.columns, user_statistics(same, items, 5.0)):
            assert torch.isfinite(columns).all()


class TestRuns:
    @pytest.mark.parametrize(
        ("values", "sizes"),
        [
            ([4], [1]),
            ([0, 1], [1, 1]),
            ([1, 2, 3, 4, 5], [1] * 5),
            (np.arange(10) / 2, [2] * 5),
            (range(7), [2, 1, 2, 1, 1]),
            (range(1000), [200] * 5),
        ],
        ids=str,
    )
    def test_sizes(self, rng: np.random.Generator, values: list[float], sizes: list[int]) -> None:
        rating = torch.tensor([*values], dtype=torch.float32)
        order = torch.from_numpy(rng.permutation(len(rating)))
        run, n_runs = runs_of_values(rating[order])
        assert n_runs == len(sizes)
        expected = np.repeat(np.arange(len(sizes)), sizes)
        assert run.tolist() == expected[order.numpy()].tolist()


class TestTextPrior:
    def test_it_predicts_what_texts_predict(self, rng: np.random.Generator) -> None:
        n, true = 400, np.array([0.6, -0.4, 0.0])
        directions = rng.standard_normal((n, 3))
        bias = directions @ true
        count = rng.integers(0, 30, n).astype(float)
        mean = bias + rng.standard_normal(n) / np.sqrt(np.maximum(count, 1))
        mean[count == 0] = 0
        texts = Texts(torch.from_numpy(directions), torch.ones(n, dtype=torch.bool))
        found = text_prior(texts, torch.from_numpy(mean), torch.from_numpy(count), 3.0).numpy()
        error = np.sqrt(np.mean((found - bias) ** 2))
        assert error < 0.2 * bias.std()

    def test_an_items_own_ratings_are_not_in_it(self, rng: np.random.Generator) -> None:
        directions = torch.from_numpy(rng.standard_normal((200, 3)))
        texts = Texts(directions, torch.ones(200, dtype=torch.bool))
        count = torch.full((200,), 9.0).double()
        mean = directions.sum(1) + torch.from_numpy(rng.standard_normal(200)) / 3
        moved = mean + 0.5 * (torch.arange(200) == 0)
        before, after = (text_prior(texts, values, count, 3.0) for values in (mean, moved))
        has_moved = (before - after).abs() > 1e-9
        assert has_moved.tolist() == [place % 5 > 0 for place in range(200)]  # the other folds

    def test_no_item_with_text_is_rated(self, rng: np.random.Generator) -> None:
        texts = texts_of(rng)
        count = torch.zeros(N_ITEMS).double()
        count[3] = 5
        prior = text_prior(texts, torch.ones(N_ITEMS).double(), count, 3.0)
        assert prior.tolist() == [0.0] * N_ITEMS

    def test_directions(self, rng: np.random.Generator) -> None:
        texts = torch.from_numpy(rng.standard_normal((200, 80)) * np.arange(1, 81)).float()
        known = torch.ones(200, dtype=torch.bool)
        texts[5], known[5] = 0, False
        found = text_directions(texts, known)
        assert found.directions.shape == (200, 64)
        assert not found.directions[5].any()
        gram = found.directions.T @ found.directions
        assert (gram - torch.diag(gram.diagonal())).abs().max() < 1e-3 * gram.max()
        lengths = np.linalg.svd(texts.numpy(), compute_uv=False)[:64]
        np.testing.assert_allclose(gram.diagonal().sqrt().flip(0), lengths, rtol=1e-4)
        few = text_directions(texts[:, :3], known)
        assert few.directions.shape == (200, 3)


class TestFoldRidge:
    @pytest.mark.parametrize("n_free", [0, 1])
    def test_against_numpy(self, rng: np.random.Generator, n_free: int) -> None:
        n, p = 60, 4
        x, y = rng.standard_normal((n, p)), rng.standard_normal(n)
        y += x @ [1.0, 0.5, 0.0, 0.0]
        weight, fold = rng.uniform(0.5, 2, n), rng.integers(0, 3, n)
        found = fit_fold_ridge(*map(torch.from_numpy, (x, y, weight, fold)), 3, n_free=n_free)

        def solve(rows: np.ndarray, penalty: float) -> np.ndarray:
            """By augmented rows, so that no normal equations are formed."""
            root = np.sqrt(weight[rows])[:, None]
            a = np.c_[np.ones(rows.sum()), x[rows]]
            extra = np.sqrt(penalty) * np.eye(p + 1)[1 + n_free :]
            design = np.concatenate([root * a, extra])
            value = np.concatenate([root[:, 0] * y[rows], np.zeros(len(extra))])
            return np.linalg.lstsq(design, value, rcond=None)[0]

        def left_out(penalty: float) -> np.ndarray:
            predicted = np.empty(n)
            for f in range(3):
                intercept, *w = solve(fold != f, penalty * 2 / 3)
                predicted[fold == f] = intercept + x[fold == f] @ w
            return predicted

        unit = np.mean(weight @ x**2)
        penalties = [unit * share for share in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)]
        errors = [np.sum(weight * (y - left_out(penalty)) ** 2) for penalty in penalties]
        best = penalties[int(np.argmin(errors))]
        assert found.penalty == pytest.approx(best)
        np.testing.assert_allclose(found.left_out, left_out(best), atol=1e-6)
        intercept, *w = solve(np.ones(n, dtype=bool), best)
        np.testing.assert_allclose(found.weights, w, atol=1e-6)
        np.testing.assert_allclose(found(torch.from_numpy(x)), intercept + x @ w, atol=1e-6)

    def test_what_says_nothing_is_shrunk_away(self, rng: np.random.Generator) -> None:
        x, y = rng.standard_normal((500, 20)), 3 + rng.standard_normal(500)
        fold = torch.arange(500) % 5
        ones = torch.ones(500).double()
        found = fit_fold_ridge(torch.from_numpy(x), torch.from_numpy(y), ones, fold, 5)
        assert found.penalty == pytest.approx(10 * np.mean(np.sum(x**2, axis=0)))
        assert found.intercept.item() == pytest.approx(y.mean(), abs=0.02)
