"""MetaMMCDR: Eq. 1-7 in plain NumPy from its state_dict, and what its bridge may know."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from model_checks import (
    TINY,
    ModelChecks,
    Run,
    changed,
    naive_biases,
    naive_calibration,
    pairs_of_both_kinds,
    snapshot,
    tiny_pair,
    write_world,
)

from dataset_tools.feature_store import read_store, write_store
from dataset_tools.synthetic import planted_features
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.history import Histories
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.errors import ConfigError

NO_FLOOR = {"start_from_floor": False, "simulate_cold_users": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "id": {"item_features": "id"},
    "both": {"item_features": "both"},
    "not_rating_aware": {"rating_aware": False},
    "both_not_rating_aware": {"item_features": "both", "rating_aware": False},
    "positive": {"history": "positive"},
    "positive_often_empty": {"history": "positive", "positive_threshold": 5, "history_length": 1},
    "last_three": {"history_length": 3},
    "last_three_positive": {"history_length": 3, "history": "positive"},
    "no_floor": NO_FLOOR,
    "no_floor_no_bias": {**NO_FLOOR, "use_bias": False},
    "not_simulated": {"simulate_cold_users": False},
    "mapping": {"bridge_loss": "mapping"},
    "ranking": {"eval_task": "ranking"},
    "paper": {"preset": "paper"},
}


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Floor of items, of users, and item vectors, by id: what a user is scored with."""

    item_floor: dict[int, float]
    user_floor: dict[int, float]
    item_e: dict[int, np.ndarray]


class Reference:
    """The model again, one user and one item at a time."""

    def __init__(self, run: Run) -> None:
        self.run, self.config, self.pair = run, run.config, run.dataset.pair
        self.state = {
            name: value.numpy().astype(np.float64) for name, value in run.model.state_dict().items()
        }
        mean, user_bias, item_bias = naive_biases(self.pair.source)
        self.source_bias = user_bias
        source = self.pair.source
        self.centred = [
            float(r) - mean - user_bias[u] - item_bias[i]
            for u, i, r in zip(source.user, source.item, source.rating, strict=True)
        ]
        (ids, matrix), _ = planted_features(tiny_pair(), 4)
        scale = np.sqrt(np.mean(matrix.astype(np.float64) ** 2))
        self.features = dict(zip(ids, matrix / scale, strict=True))

    def layer(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.state[f"{name}.weight"] @ x + self.state.get(f"{name}.bias", 0.0)

    def item_vector(self, item: int) -> np.ndarray:
        """What the encoder reads of a source item."""
        vector = np.zeros(self.config["embedding_size"])
        if self.config["item_features"] in ("text", "both"):
            token = self.pair.item_tokens[item]
            known = token in self.features
            vector = vector + (
                self.layer("text.linear", self.features[token])
                if known
                else self.state["text.no_text"]
            )
        if self.config["item_features"] in ("id", "both"):
            vector = vector + self.state["source.item_embedding.weight"][item]
        return vector

    def characteristic(self, user: int) -> np.ndarray:
        """Eq. 2-3."""
        places = list(np.flatnonzero(self.pair.source.user == user))
        if self.config["history"] == "positive":
            threshold = self.config["positive_threshold"]
            places = [n for n in places if self.pair.source.rating[n] >= threshold]
        if self.config["history_length"] is not None:
            places = places[-self.config["history_length"] :]
        if not places:
            return np.zeros(self.config["embedding_size"])
        vectors, logits = [], []
        for n in places:
            v = self.item_vector(self.pair.source.item[n])
            if self.config["rating_aware"]:
                v = v + self.layer("rating_gate", np.concatenate([v, self.centred[n] * v]))
            hidden = np.maximum(self.layer("characteristic_encoder.hidden", v), 0)
            vectors.append(v)
            logits.append(self.layer("characteristic_encoder.logit", hidden).item())
        weights = np.exp(logits) / np.exp(logits).sum()
        return (weights[:, None] * vectors).sum(0)

    def transformed(self, user: int) -> np.ndarray:
        """Eq. 4-5."""
        k = self.config["embedding_size"]
        hidden = np.maximum(self.layer("meta_network.hidden", self.characteristic(user)), 0)
        bridge = self.layer("meta_network.output", hidden).reshape(k, k)
        return self.state["source.user_embedding.weight"][user] @ bridge

    def target_row(self, user: int) -> int:
        return user if user <= self.pair.n_overlapped else user - self.pair.n_source_only

    def view(self, without_fold: int | None = None) -> View:
        """What a cold-start user meets; or one who is simulated, without their fold's ratings."""
        target_items = range(self.pair.n_source_items + 1, self.pair.n_items)
        if not self.config["start_from_floor"] or self.config["eval_task"] == "ranking":
            biases = self.state["target.item_bias.weight"]
            vectors = self.state["target.item_embedding.weight"]
            offset = self.pair.n_source_items
            return View(
                {i: self.state["target.mean"] + biases[i - offset, 0] for i in target_items},
                {},
                {i: vectors[i - offset] for i in target_items},
            )
        a, b, c, fold = naive_calibration(self.run)
        rows = self.run.dataset.split.train
        if without_fold is not None:
            rows = rows.where(fold[rows.user] != without_fold)
        mean, user_bias, item_bias = naive_biases(rows)
        floor = {i: a + b * (mean + item_bias.get(i, 0.0)) for i in target_items}
        item_e = {}
        for i in target_items:
            raters = [n for n in range(len(rows)) if rows.item[n] == i]
            u = np.array(
                [
                    self.state["target.user_embedding.weight"][self.target_row(rows.user[n])]
                    for n in raters
                ]
            ).reshape(-1, self.config["embedding_size"])
            rest = [rows.rating[n] - mean - user_bias[rows.user[n]] - item_bias[i] for n in raters]
            gram = u.T @ u + self.config["item_vector_shrinkage"] * np.eye(u.shape[1])
            item_e[i] = np.linalg.solve(gram, u.T @ np.array(rest))
        return View(floor, {u: c * bias for u, bias in self.source_bias.items()}, item_e)

    def cold(self, view: View, user: int, item: int) -> float:
        """Floor plus the dot product of Eq. 7."""
        floor = view.item_floor[item] + view.user_floor.get(user, 0.0)
        return floor + self.transformed(user) @ view.item_e[item]

    def warm(self, user_id: int, item_id: int) -> float:
        """The target model's own score."""
        u, i = self.target_row(user_id), item_id - self.pair.n_source_items
        biases = self.state["target.user_bias.weight"][u] + self.state["target.item_bias.weight"][i]
        vectors = (
            self.state["target.user_embedding.weight"],
            self.state["target.item_embedding.weight"],
        )
        return (self.state["target.mean"] + biases + vectors[0][u] @ vectors[1][i]).item()


class TestMetaMMCDR(ModelChecks):
    config: ClassVar = {"model": "MetaMMCDR", **TINY, "select_epoch": "last"}
    solves = ("one_linear_map", "two_groups")


class TestMetaMMCDRPaper(ModelChecks):
    config: ClassVar = {"model": "MetaMMCDR", **TINY, "preset": "paper"}


class TestMetaMMCDRMapping(ModelChecks):
    config: ClassVar = {
        "model": "MetaMMCDR",
        **TINY,
        "bridge_loss": "mapping",
        "item_features": "both",
        "select_epoch": "last",
    }
    solves = ("one_linear_map", "two_groups")


def build(data_path: Path, **values: Any) -> Run:
    return TestMetaMMCDR.build(data_path, **{"learning_rate": 0.03, **values})


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data_path: Path) -> Run:
    return build(data_path).fit()


class TestArithmetic:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_scores(self, data_path: Path, variant: str) -> None:
        run = build(data_path, **VARIANTS[variant]).fit()
        reference, warm = Reference(run), set(run.dataset.split.train.user.tolist())
        user, item = pairs_of_both_kinds(run)
        view = reference.view()
        expected = [
            reference.warm(u, i) if u in warm else reference.cold(view, u, i)
            for u, i in zip(user, item, strict=True)
        ]
        np.testing.assert_allclose(run.scores(user, item), expected, rtol=1e-4, atol=1e-4)
        users = run.dataset.split.test_users
        bridged = np.array([reference.transformed(u) for u in users])
        assert np.abs(bridged).max() > 1e-3, "the bridge is still 0, so nothing was compared"

    def test_variants_differ(self, data_path: Path, trained: Run) -> None:
        """Else a key that nobody reads would pass."""
        user, item = pairs_of_both_kinds(trained)
        seen = [trained.scores(user, item)]
        for variant in ("id", "both", "not_rating_aware", "positive", "last_three", "mapping"):
            seen.append(build(data_path, **VARIANTS[variant]).fit().scores(user, item))
        for first, scores in enumerate(seen):
            for other in seen[first + 1 :]:
                assert np.abs(scores - other).max() > 1e-4

    def test_some_source_items_have_no_text(self, trained: Run) -> None:
        known = trained.model.text.known
        read = trained.dataset.pair.source.item
        assert 0 < (~known[1:]).sum() < len(known) / 4
        assert not known[read].all()

    def test_empty_histories_share_a_characteristic_of_zero(self, data_path: Path) -> None:
        run = build(data_path, **VARIANTS["positive_often_empty"]).fit()
        source = run.dataset.pair.source
        without = np.setdiff1d(np.unique(source.user), source.user[source.rating >= 5])
        assert len(without) > 0
        assert not run.model.characteristic(torch.from_numpy(without)).any()

    def test_simulation_needs_the_floor(self, data_path: Path) -> None:
        with pytest.raises(ConfigError, match="needs `start_from_floor: True`"):
            build(data_path, start_from_floor=False)

    @pytest.mark.parametrize(
        ("simulate", "from_floor"), [(True, True), (False, True), (False, False)]
    )
    def test_task_oriented_loss(self, data_path: Path, simulate: bool, from_floor: bool) -> None:
        run = build(
            data_path,
            simulate_cold_users=simulate,
            start_from_floor=from_floor,
            bridge_reg_weight=0.3,
            train_batch_size=50,
        ).fit()
        stage = run.model.stages(run.dataset, None)[-1]
        stage.prepare()
        run.model.train()
        batch = next(iter(stage.training.loader))
        loss = stage.training.loss(batch).item()
        reference = Reference(run)
        *_, fold = naive_calibration(run)
        views = {f: reference.view(f if simulate else None) for f in range(5)}
        users = batch["user_id"].tolist()
        errors = [
            r - reference.cold(views[fold[u]], u, i)
            for u, i, r in zip(
                users, batch["item_id"].tolist(), batch["rating"].tolist(), strict=True
            )
        ]
        penalty = np.mean([np.sum(reference.transformed(u) ** 2) for u in set(users)])
        assert loss == pytest.approx(np.mean(np.square(errors)) + 0.3 * penalty, rel=1e-4)

    def test_task_oriented_loss_reads_overlapped_training_users(self, trained: Run) -> None:
        stage = trained.model.stages(trained.dataset, None)[-1]
        seen = np.concatenate([batch["user_id"].numpy() for batch in stage.training.loader])
        train = trained.dataset.split.train.user
        overlapped = train[train <= trained.dataset.pair.n_overlapped]
        assert np.sort(seen).tolist() == np.sort(overlapped).tolist()

    def test_mapping_oriented_loss(self, data_path: Path) -> None:
        run = build(data_path, bridge_loss="mapping", map_batch_size=20).fit()
        stage = run.model.stages(run.dataset, None)[-1]
        users = np.concatenate([batch["user_id"].numpy() for batch in stage.training.loader])
        everybody = np.intersect1d(run.dataset.pair.overlapped_users, run.dataset.split.train.user)
        assert np.sort(users).tolist() == everybody.tolist()
        reference = Reference(run)
        target = reference.state["target.user_embedding.weight"]
        for batch in stage.training.loader:
            loss = stage.training.loss(batch).item()
            distances = [
                np.sum((reference.transformed(u) - target[u]) ** 2)
                for u in batch["user_id"].tolist()
            ]
            assert loss == pytest.approx(np.mean(distances), rel=1e-4)

    def test_ranking_loss_compares_with_a_negative_of_the_same_user(self, data_path: Path) -> None:
        run = build(data_path, eval_task="ranking", bridge_reg_weight=0.0).fit()
        stage = run.model.stages(run.dataset, None)[-1]
        run.model.train()
        batch = next(iter(stage.training.loader))
        reference = Reference(run)
        view = reference.view()
        columns = [batch[name].tolist() for name in ("user_id", "item_id", "neg_item_id")]
        margins = [
            reference.cold(view, u, i) - reference.cold(view, u, j)
            for u, i, j in zip(*columns, strict=True)
        ]
        expected = np.mean(np.log1p(np.exp(-np.array(margins))))
        assert stage.training.loss(batch).item() == pytest.approx(expected, rel=1e-4)


def with_other_ratings_of(run: Run, user: int) -> PairDataset:
    """The training data, where one user's target ratings are other ones."""
    dataset = copy.copy(run.dataset)
    train = dataset.split.train
    rating = np.where(train.user == user, 6 - train.rating, train.rating).astype(np.float32)
    assert (rating != train.rating).any()
    moved = Ratings(train.user, train.item, rating, train.time)
    dataset.split = dataclasses.replace(dataset.split, train=moved)
    return dataset


class TestSimulatedColdUsers:
    """With the target model held fixed, nobody meets their own ratings in training."""

    @pytest.fixture
    def user(self, trained: Run) -> int:
        train = trained.dataset.split.train
        return int(train.user[(train.user <= trained.dataset.pair.n_overlapped)][0])

    def test_own_ratings_are_not_in_what_a_user_meets(self, trained: Run, user: int) -> None:
        before = trained.model._floor_view(trained.dataset)
        after = trained.model._floor_view(with_other_ratings_of(trained, user))
        own = int(before.fold[user])
        assert own < 5
        assert torch.equal(before.fold, after.fold)
        assert torch.equal(before.item_e[own], after.item_e[own])
        # Of the floor only the weights a and b, fitted on all users, see the change.
        floors = [view.item_floor[own].double() for view in (before, after)]
        flat = [(f - f.min()) / (f.max() - f.min()) for f in floors]
        torch.testing.assert_close(flat[0], flat[1], rtol=1e-5, atol=1e-5)
        for other in {*range(6)} - {own}:
            assert not torch.equal(before.item_e[other], after.item_e[other])

    def test_without_simulation_they_are(self, data_path: Path, trained: Run, user: int) -> None:
        run = build(data_path, simulate_cold_users=False).fit()
        before = run.model._floor_view(run.dataset)
        after = run.model._floor_view(with_other_ratings_of(run, user))
        met = int(before.fold[user])
        assert met == 5
        assert not torch.equal(before.item_e[met], after.item_e[met])

    def test_cold_users_meet_all_of_training(self, trained: Run) -> None:
        view = trained.model._floor_view(trained.dataset)
        assert torch.equal(view.item_e[-1], trained.model.cold_item_e)
        assert torch.equal(view.item_floor[-1], trained.model.cold_item_floor)
        split = trained.dataset.split
        assert (view.fold[split.test_users] == 5).all()
        assert (view.fold[split.valid_users] == 5).all()

    def test_more_folds_than_users(self, data_path: Path) -> None:
        with pytest.raises(ConfigError, match="simulation_folds 500 needs as many overlapped"):
            build(data_path, simulation_folds=500).fit()


class TestHistories:
    def test_order_of_a_history_does_not_matter(self, trained: Run) -> None:
        model, users = copy.copy(trained.model), torch.arange(1, trained.model.n_source_users)
        expected = trained.model.characteristic(users)
        old = trained.model._histories
        order = torch.cat(
            [
                torch.arange(int(start), int(end)).flip(0)
                for start, end in zip(old.start[:-1], old.start[1:], strict=True)
            ]
        )
        model._histories = Histories(old.start, old.item[order], old.rating[order])
        torch.testing.assert_close(model.characteristic(users), expected, rtol=1e-5, atol=1e-6)

    def test_other_users_of_the_batch_do_not_matter(self, trained: Run) -> None:
        users = torch.arange(1, trained.model.n_source_users)
        together = trained.model.transform(users)
        alone = torch.cat([trained.model.transform(user) for user in users.split(1)])
        torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
        order = torch.randperm(len(users), generator=torch.Generator().manual_seed(0))
        shuffled = trained.model.transform(users[order])
        torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-6)

    def test_a_batch_may_name_a_user_twice(self, trained: Run) -> None:
        twice = trained.model.transform(torch.tensor([3, 7, 3]))
        torch.testing.assert_close(twice[0], twice[2])

    def test_bridges_are_generated_once_per_evaluation(
        self, trained: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        transform = trained.model.transform
        monkeypatch.setattr(
            trained.model, "transform", lambda u: asked.extend(u.tolist()) or transform(u)
        )
        trained.evaluate()
        trained.evaluate()  # the second one begins anew
        once = sorted(asked)[::2]
        assert sorted(asked) == sorted(once * 2)
        assert set(once) <= set(trained.dataset.split.test_users.tolist())


class TestTexts:
    @staticmethod
    def shuffled(tmp_path: Path) -> Path:
        """The pair with the source items' features handed out anew."""
        data_path = write_world(tiny_pair(), tmp_path)
        store = read_store(data_path / "tiny_movie", "tiny_movie", "text")
        order = np.random.default_rng(0).permutation(len(store.ids))
        write_store(
            data_path / "tiny_movie",
            "tiny_movie",
            "text",
            store.ids,
            np.asarray(store.matrix)[order],
            {key: value for key, value in store.info.items() if key not in ("dim", "format")},
        )
        return data_path

    def test_features_follow_their_item(self, trained: Run, tmp_path: Path) -> None:
        run = build(self.shuffled(tmp_path)).fit()
        moved = changed(snapshot(trained.model), snapshot(run.model))
        assert "text.features" in moved
        assert "meta_network.output.weight" in moved
        assert not {name for name in moved if name.startswith(("source.", "target."))}

    def test_ids_alone_read_no_texts(self, data_path: Path, tmp_path: Path) -> None:
        runs = [
            build(path, item_features="id").fit() for path in (data_path, self.shuffled(tmp_path))
        ]
        assert not changed(*(snapshot(run.model) for run in runs))
