"""RidgeMixture and its layers against plain NumPy, one user and one item at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import Run, build_run, tiny_pair, write_world
from recbole.evaluator.metrics import NDCG
from scipy.optimize import nnls

from dataset_tools.synthetic import SyntheticPair, make_pair, planted_features
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.data.sparse_rows import sparse_rows
from recbole_cdr_mm.errors import ConfigError, DataFormatError
from recbole_cdr_mm.layers import history_profile
from recbole_cdr_mm.layers.history_profile import HistoryProfile, row_basis
from recbole_cdr_mm.layers.item_texts import centred_texts, expected_from_texts
from recbole_cdr_mm.layers.ndcg import ndcg
from recbole_cdr_mm.layers.ridge_members import smooth_by
from recbole_cdr_mm.layers.ridge_regression import decompose
from recbole_cdr_mm.layers.stacking import stack
from recbole_cdr_mm.model import ridge_mixture

PENALTIES, EXPONENTS, TARGET_DIRECTIONS, PLACES = (3.0, 30.0), (0.0, 0.5), 16, 200
SOURCE_DIRECTIONS = 20  # of the 40 source items of `crowded_pair`; 64 are not reached by tests


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def build(data_path: Path, **values: Any) -> Run:
    options = {"model": "MetaMMCDR", "eval_task": "ranking", "epochs": 2, "embedding_size": 4}
    return build_run(data_path, **{**options, **values})


@pytest.fixture(scope="module")
def trained(data_path: Path) -> Run:
    return build(data_path).fit()


# Layers


class TestHistoryProfile:
    @pytest.mark.parametrize("scale", ["sum", "root", "unit"])
    def test_against_numpy(self, scale: Any) -> None:
        rng = np.random.default_rng(0)
        layer = HistoryProfile(6, 3, scale)
        vectors = rng.standard_normal((6, 3)).astype(np.float32)
        layer.item_e.copy_(torch.from_numpy(vectors))
        histories = [[1, 2, 5], [], [4]]
        item = torch.tensor([item for history in histories for item in history])
        row = torch.tensor([0, 0, 0, 2])
        expected = []
        for history in histories:
            total = vectors[history].sum(0)
            if scale == "root":
                total = total / np.sqrt(max(1, len(history)))
            if scale == "unit" and history:
                total = total / np.linalg.norm(total)
            expected.append(total)
        np.testing.assert_allclose(layer(item, row, 3).numpy(), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("at_once", [3, 64])
    def test_an_exact_basis_keeps_all_products(
        self, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(history_profile, "_DIRECTIONS_AT_ONCE", at_once)
        rows = (torch.rand(7, 20, generator=torch.Generator().manual_seed(0)) < 0.3).double()
        basis = row_basis(rows.to_sparse(), 7, seed=0).double()
        torch.testing.assert_close(
            (rows @ basis) @ (rows @ basis).T, rows @ rows.T, rtol=1e-5, atol=1e-5
        )

    @pytest.mark.parametrize("at_once", [3, 64])
    def test_a_basis_of_fewer_directions_keeps_the_main_ones(
        self, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(history_profile, "_DIRECTIONS_AT_ONCE", at_once)
        generator = torch.Generator().manual_seed(0)
        rows = (torch.rand(60, 30, generator=generator) < 0.3).double()
        basis = row_basis(rows.to_sparse(), 10, seed=0).double()
        torch.testing.assert_close(basis.T @ basis, torch.eye(10).double(), rtol=1e-4, atol=1e-4)
        of_all = torch.linalg.svdvals(rows)
        kept = torch.linalg.svdvals(rows @ basis)
        torch.testing.assert_close(kept[:3], of_all[:3], rtol=0.02, atol=0.02)


def test_texts_are_centred_over_the_items_that_have_one(rng: np.random.Generator) -> None:
    features, known = rng.standard_normal((6, 3)), np.array([0, 1, 1, 0, 1, 1], dtype=bool)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centred = unit - unit[known].mean(0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True) * known[:, None]
    before = torch.from_numpy(features.copy())
    found = centred_texts(before, torch.from_numpy(known))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    np.testing.assert_array_equal(before.numpy(), features)


class TestRidgeRegression:
    def test_left_out_rows_are_those_of_a_fit_without_them(self) -> None:
        rng = np.random.default_rng(1)
        x, y, penalty = rng.standard_normal((12, 4)), rng.standard_normal((12, 3)), 0.7
        ridge = decompose(torch.from_numpy(x))
        weight = ridge.shrinkage(penalty).unsqueeze(1) * (ridge.features.T @ torch.from_numpy(y))
        all_in = torch.from_numpy(y.mean(0)) + ridge.features @ weight
        leverage = ridge.leverages(penalty).unsqueeze(1)
        left_out = ((all_in - leverage * torch.from_numpy(y)) / (1 - leverage)).numpy()
        # What a penalty of so many mean squared lengths is, in numbers of all rows.
        l2 = penalty * ((x - x.mean(0)) ** 2).sum() / len(x)
        for i in range(len(x)):
            rest = np.delete(np.arange(len(x)), i)
            design = np.column_stack([x[rest], np.ones(len(rest))])
            gram = design.T @ design + np.diag([l2] * 4 + [0.0])
            solved = np.linalg.solve(gram, design.T @ y[rest])
            np.testing.assert_allclose(left_out[i], np.append(x[i], 1) @ solved, rtol=1e-6)

    def test_rotation_gives_the_training_rows_their_features(self) -> None:
        x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        ridge = decompose(x)
        torch.testing.assert_close((x - ridge.centre) @ ridge.rotation, ridge.features)
        gram = ridge.features.T @ ridge.features
        torch.testing.assert_close(gram, torch.diag(ridge.energy), rtol=1e-8, atol=1e-8)


ALL = torch.tensor([True, True, True])


class TestStack:
    def test_is_non_negative_least_squares_over_all_parts(self) -> None:
        rng = np.random.default_rng(2)
        z, y = rng.standard_normal((3, 8, 5)), rng.standard_normal((8, 5))
        z[2] = -y  # believed nothing
        parts = [
            (torch.from_numpy(z[:, rows]), torch.from_numpy(y[rows]))
            for rows in (slice(0, 3), slice(3, 8))
        ]
        expected, _ = nnls(z.reshape(3, -1).T, y.ravel())
        np.testing.assert_allclose(stack(parts).weights(ALL).numpy(), expected, atol=1e-5)
        assert expected[2] == 0

    def test_of_some_of_them(self) -> None:
        rng = np.random.default_rng(2)
        z, y = rng.standard_normal((3, 40)), rng.standard_normal(40)
        y += z.sum(0)
        products = stack([(torch.from_numpy(z), torch.from_numpy(y))])
        expected, _ = nnls(z[[0, 2]].T, y)
        found = products.weights(torch.tensor([True, False, True])).numpy()
        np.testing.assert_allclose(found, [expected[0], 0, expected[1]], atol=1e-5)
        all_of_them, _ = nnls(z.T, y)
        np.testing.assert_allclose(products.weights(ALL).numpy(), all_of_them, atol=1e-5)

    def test_two_that_are_the_same_share(self) -> None:
        z = torch.tensor([[1.0, 2.0, 3.0]]).repeat(2, 1)
        assert stack([(z, 2 * z[0])]).weights(ALL[:2]).sum().item() == pytest.approx(2, rel=1e-4)

    def test_one_that_is_zero_everywhere(self) -> None:
        z = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
        weights = stack([(z, 3 * z[0])]).weights(ALL[:2])
        np.testing.assert_allclose(weights.numpy(), [3.0, 0.0], atol=1e-4)


class TestNdcg:
    @pytest.mark.parametrize("places", [1, 3, 50])
    def test_is_recboles(self, places: int) -> None:
        drawn = torch.Generator().manual_seed(0)
        scores = torch.randn(9, 12, generator=drawn)
        positive = (torch.rand(9, 12, generator=drawn) < 0.4).float()
        positive[:, 5] = 1.0
        kept = min(places, 12)
        hits = positive.gather(1, scores.topk(kept).indices)
        metric = NDCG({"topk": [kept], "metric_decimal_place": 6})
        expected = metric.metric_info(hits.bool().numpy(), positive.sum(1).int().numpy())
        found = ndcg(scores, positive, places).numpy()
        np.testing.assert_allclose(found, expected[:, -1], rtol=1e-5)


class TestSmoothing:
    def test_against_numpy(self) -> None:
        rng = np.random.default_rng(5)
        rows = (rng.random((9, 12)) < 0.4).astype(np.float64)
        smoothing = smooth_by(torch.from_numpy(rows).to_sparse(), 9, seed=0)
        predicted = rng.standard_normal((2, 3, 12)).astype(np.float32)
        _, _, directions = np.linalg.svd(rows, full_matrices=False)
        beyond = predicted - rows.mean(0)
        expected = rows.mean(0) + beyond @ directions.T @ directions
        found = smoothing(torch.from_numpy(predicted)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_by_nobody_leaves_nothing(self) -> None:
        smoothing = smooth_by(torch.zeros(0, 5, dtype=torch.float64).to_sparse(), 16, seed=0)
        assert smoothing(torch.ones(2, 5)).tolist() == [[0.0] * 5] * 2


class TestCentredTexts:
    def test_against_numpy(self) -> None:
        rng = np.random.default_rng(3)
        features = rng.standard_normal((9, 4)).astype(np.float32)
        known = np.ones(9, dtype=bool)
        known[4] = False
        texts = centred_texts(torch.from_numpy(features), torch.from_numpy(known)).numpy()
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        unit = unit - unit[known].mean(0)
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        unit[4] = 0
        np.testing.assert_allclose(texts, unit, rtol=1e-4, atol=1e-6)


class TestExpectedFromTexts:
    def test_against_numpy(self) -> None:
        """The fourth item has no text, and no more have the seventh and the last."""
        rng = np.random.default_rng(3)
        texts = rng.standard_normal((9, 3)).astype(np.float32)
        texts[[3, 6, 8]] = 0
        values = rng.standard_normal((9, 2)).astype(np.float32)
        seen = np.arange(9) < 7
        found = expected_from_texts(
            *(torch.from_numpy(column) for column in (texts, values, seen)), penalty=2.0
        )
        told = [0, 1, 2, 4, 5]
        x, y = texts[told], values[told]
        centred = x - x.mean(0)
        penalty = 2 * (centred**2).sum() / len(x)
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(3), centred.T @ y)
        expected = [y.mean(0) + (texts[7] - x.mean(0)) @ weights, values[[3, 6]].mean(0)]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)

    def test_without_any_text(self) -> None:
        values, seen = torch.tensor([[1.0], [3.0], [9.0]]), torch.arange(3) < 2
        found = expected_from_texts(torch.zeros(3, 2), values, seen, penalty=1.0)
        assert found.tolist() == [[2.0]]

    def test_where_all_that_is_seen_has_a_text(self) -> None:
        texts = torch.tensor([[1.0], [-1.0], [0.0]])
        values, seen = torch.tensor([[1.0], [3.0], [9.0]]), torch.arange(3) < 2
        assert expected_from_texts(texts, values, seen, penalty=1.0).tolist() == [[2.0]]


# The mixture


class Reference:
    """The mixture again: kernels of users, refitted without each user in turn."""

    def __init__(self, run: Run, world: SyntheticPair) -> None:
        pair, split = run.dataset.pair, run.dataset.split
        self.first = pair.items("target").start
        shape = pair.n_users, pair.n_items
        source, target, rated = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        rated_source, rated_train = run.dataset.rated_source, run.dataset.rated_train
        if run.config["history"] == "positive":
            rated_source = pair.source
        source[rated_source.user, rated_source.item] = 1
        rated[rated_train.user, rated_train.item] = 0.5
        rated[split.train.user, split.train.item] = 1
        target[split.train.user, split.train.item] = 1
        source = source[:, 1 : self.first]
        target, rated = target[:, self.first :], rated[:, self.first :]
        assert (rated == 0.5).any()
        self.users = np.intersect1d(pair.overlapped_users, split.train.user)
        self.y, self.rated = target[self.users], rated[self.users]
        others = np.setdiff1d(split.train.user, self.users)
        self.elsewhere = target[others].mean(0)
        _, _, likes = np.linalg.svd(target[others], full_matrices=False)
        self.smoothing = likes[:TARGET_DIRECTIONS].T @ likes[:TARGET_DIRECTIONS]
        count = np.maximum(source.sum(1, keepdims=True), 1)
        everyone = (source / np.sqrt(count))[np.unique(rated_source.user)]
        _, _, directions = np.linalg.svd(everyone, full_matrices=False)
        self.profiles = [source, (source / np.sqrt(count)) @ directions[:SOURCE_DIRECTIONS].T]
        if run.config["item_features"] == "text":
            features = np.zeros((pair.n_items, 4))
            known = np.zeros(pair.n_items, dtype=bool)
            for domain, (ids, matrix) in zip(
                ("source", "target"), planted_features(world, 4), strict=True
            ):
                row = dict(zip(ids, matrix, strict=True))
                for i in range(*pair.items(domain).indices(pair.n_items)):
                    if pair.item_tokens[i] in row:
                        features[i], known[i] = row[pair.item_tokens[i]], True
            texts = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
            texts = texts - texts[known].mean(0)
            texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
            texts[~known] = 0
            liked = source @ texts[1 : self.first]
            length = np.linalg.norm(liked, axis=1, keepdims=True)
            self.profiles.append(liked / np.maximum(length, 1e-12))
            self.texts = texts

    def predictions(self, user: int) -> np.ndarray:
        """What each member says of a user's target row, from all training users but this one."""
        own = np.flatnonzero(self.users == user)
        rest = np.delete(np.arange(len(self.users)), own)
        members = []
        for profile in self.profiles:
            all_x = profile[self.users]
            size = ((all_x - all_x.mean(0)) ** 2).sum() / len(all_x)
            x, y = all_x[rest], self.rated[rest]
            count = y.sum(1, keepdims=True)
            for exponent in EXPONENTS:
                scaled = y / count**exponent
                for penalty in PENALTIES:
                    centred = x - x.mean(0)
                    gram = centred @ centred.T + penalty * size * np.eye(len(x))
                    a = np.linalg.solve(gram, scaled - scaled.mean(0))
                    members.append(scaled.mean(0) + (profile[user] - x.mean(0)) @ centred.T @ a)
        members.append(self.rated[rest].mean(0))
        own = np.array(members)
        smoothed = self.elsewhere + (own - self.elsewhere) @ self.smoothing
        return np.concatenate([own, smoothed, [self.elsewhere]])

    def weights(self) -> np.ndarray:
        """Non-negative least squares on the left-out predictions of training users, of all, of all
        but the smoothed ones, or the mean: by which the users' positives are ranked best.
        """
        of_users = [self.predictions(user) for user in self.users]
        z = np.concatenate(of_users, axis=1)
        n_own = (len(z) - 1) // 2
        without, with_smoothed = np.zeros((2, len(z)))
        for weights, kept in (
            (without, np.r_[:n_own, -1]),
            (with_smoothed, np.arange(len(z))),
        ):
            weights[kept], _ = nnls(z[kept].T, self.y.ravel())
        mixtures = [without, (without + with_smoothed) / 2, with_smoothed]
        ranked = [
            np.mean(
                [
                    self.ndcg(w @ left_out, row)
                    for left_out, row in zip(of_users, self.y, strict=True)
                ]
            )
            for w in mixtures
        ]
        self.chosen = ("without", "half", "with")[int(np.argmax(ranked))]
        return mixtures[int(np.argmax(ranked))]

    @staticmethod
    def ndcg(score: np.ndarray, row: np.ndarray) -> float:
        """Of one user."""
        discount = 1 / np.log2(np.arange(2, 2 + min(PLACES, len(row))))
        hits = row[np.argsort(-score)][: len(discount)]
        return float(hits @ discount / discount[: int(row.sum())].sum())

    def score(self, expected: np.ndarray) -> np.ndarray:
        """log(softplus(expected / mean))."""
        return np.log(np.log1p(np.exp(expected / self.y.mean())))


def crowded_pair(seed: int) -> SyntheticPair:
    """60 overlapped users beside 150 of the target domain alone."""
    return make_pair(
        "one_linear_map",
        n_overlapped=60,
        n_source_only=10,
        n_target_only=150,
        n_source_items=40,
        n_target_items=60,
        source_ratings_per_user=8,
        target_ratings_per_user=8,
        integer_ratings=True,
        seed=seed,
    )


@pytest.mark.parametrize("item_features", ["text", "id"])
@pytest.mark.parametrize(
    ("seed", "overlap_ratio", "history", "chosen"),
    [
        (14, 0.6, "all", "without"),
        (5, 0.6, "all", "half"),
        (4, 0.3, "all", "with"),
        (4, 0.3, "positive", "with"),
    ],
)  # drawn so that one mixture is clearly best
def test_scores_are_those_of_the_definition(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    item_features: str,
    seed: int,
    overlap_ratio: float,
    history: str,
    chosen: str,
) -> None:
    world = crowded_pair(seed)
    monkeypatch.setattr(history_profile, "_POWER_ITERATIONS", 1000)  # as good as exact
    monkeypatch.setattr(ridge_mixture, "_SOURCE_DIRECTIONS", SOURCE_DIRECTIONS)
    data_path = write_world(world, tmp_path)
    values = {"item_features": item_features, "overlap_ratio": overlap_ratio, "history": history}
    run = build(data_path, **values).fit()
    reference = Reference(run, world)
    weights = reference.weights()
    n_own = (len(weights) - 1) // 2
    assert (weights > 1e-3).sum() > 1
    assert reference.chosen == chosen
    assert (weights[n_own:-1] > 1e-3).any() == (chosen != "without")
    seen = reference.y.any(0)
    items = torch.from_numpy(reference.first + np.flatnonzero(seen))
    for user in run.dataset.split.test_users[:6]:
        expected = reference.score(weights @ reference.predictions(int(user)))[seen]
        found = run.model.floor(torch.full_like(items, int(user)), items)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_pairs_and_full_rows_have_the_same_scores(trained: Run) -> None:
    floor, first = trained.model.floor, trained.dataset.pair.items("target").start
    items = torch.arange(first, trained.dataset.pair.n_items)
    user = int(trained.dataset.split.test_users[0])
    row = floor(torch.full_like(items, user), items)
    pairs = torch.cat([floor(torch.tensor([user]), item.view(1)) for item in items[:20]])
    torch.testing.assert_close(pairs, row[:20], rtol=1e-4, atol=1e-4)


def test_an_item_that_nobody_has_rated_has_what_its_text_lets_expect(trained: Run) -> None:
    reference = Reference(trained, tiny_pair())
    floor, split = trained.model.floor, trained.dataset.split
    seen = np.zeros(trained.dataset.pair.n_items - reference.first, dtype=bool)
    seen[split.train.item - reference.first] = True
    texts = reference.texts[reference.first :]
    has_text = texts.any(1)
    told, unseen = np.flatnonzero(seen & has_text), np.flatnonzero(~seen & has_text)
    assert len(unseen)
    x, weight = texts[told], floor.weight.numpy()
    centred = x - x.mean(0)
    penalty = 3 * (centred**2).sum() / len(x)
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    of_text = np.linalg.solve(gram, centred.T @ weight[told])
    for i in unseen:
        expected = weight[told].mean(0) + (texts[i] - x.mean(0)) @ of_text
        np.testing.assert_allclose(weight[i], expected, rtol=1e-3, atol=1e-5)


def test_nothing_is_trained_by_gradient_but_the_target_model(trained: Run) -> None:
    names = [
        (stage.name, stage.training is not None) for stage, _, _ in trained.trainer.stages_seen
    ]
    assert names == [("target", True), ("bridge", False)]


def test_an_item_that_is_rated_twice_is_one_positive() -> None:
    two, zeros = np.array([3, 3, 5]), np.zeros(3)
    ratings = Ratings(np.array([7, 7, 7]), two, zeros.astype(np.float32), zeros)
    rows = sparse_rows(ratings, np.array([7]), slice(3, 6))
    assert rows.to_dense().tolist() == [[1.0, 0.0, 1.0]]


def test_one_overlapped_training_user_is_too_few(data_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs two overlapped training users .* there are 1"):
        build(data_path, overlap_ratio=0.02)
    build(data_path, overlap_ratio=0.04).fit()


def test_without_a_text_in_either_domain(tmp_path: Path) -> None:
    pair = tiny_pair()
    silent = {
        items: getattr(pair, items).assign(title="", text="")
        for items in ("source_items", "target_items")
    }
    data_path = write_world(dataclasses.replace(pair, **silent), tmp_path)
    with pytest.raises(DataFormatError, match="--item_features=id"):
        build(data_path)
    build(data_path, item_features="id").fit()
