"""MetaMMCDR: Eq. 1-7 in plain NumPy from its state_dict, and what its bridge may know."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from bridge_checks import BridgeChecks, PersonalisedReference, View
from model_checks import (
    TINY,
    DistributionChecks,
    ModelChecks,
    Run,
    build_run,
    changed,
    naive_calibration,
    pairs_of_both_kinds,
    planted_images,
    run_mm,
    simulated_users,
    snapshot,
    tiny_pair,
    write_world,
)

from dataset_tools.cli import main
from dataset_tools.encode.image import DIM
from dataset_tools.feature_store import matrix_hash, read_store, write_store
from dataset_tools.synthetic import write_pair
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.history import Histories
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.errors import ConfigError, DataFormatError
from recbole_cdr_mm.layers.rating_distribution import mean
from recbole_cdr_mm.model.ridge_mixture import RidgeMixture
from recbole_cdr_mm.model.statistics_start import StatisticsStart

NO_FLOOR = {"start_from_floor": False, "simulate_cold_users": False}


class MetaReference(PersonalisedReference):
    """What MetaMMCDR reads of items."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.images = dict(zip(*planted_images(tiny_pair())["source"], strict=True))

    def image(self, item: int) -> np.ndarray:
        """The projected image of a source item."""
        scale = np.sqrt(np.mean(np.array([*self.images.values()]) ** 2))
        token = self.pair.item_tokens[item]
        if token not in self.images:
            return self.state["image.missing"]
        return self.layer("image.linear", self.images[token] / scale)

    @property
    def texts_of(self) -> tuple[str, ...]:
        """The domains whose texts the projection reads."""
        read = {
            "source": self.config["item_features"] in ("text", "both", "all"),
            "target": self.config["target_item_features"] in ("text", "both"),
        }
        return tuple(domain for domain, is_read in read.items() if is_read)

    def history_vector(self, item: int) -> np.ndarray:
        """Source vector, text and image, or some of them."""
        features = self.config["item_features"]
        vector = np.zeros(self.config["embedding_size"])
        if features in ("id", "both", "all"):
            vector = vector + self.item_vector(item)
        if features in ("text", "both", "all"):
            vector = vector + self.text(item, "text", self.texts_of)
        if features in ("image", "all"):
            vector = vector + self.image(item)
        return vector

    def floor(self, view: View, user: int, item: int) -> float:
        """The model's own; test_statistics_start.py and test_ridge_mixture.py test them."""
        floor = self.run.model.floor
        if not isinstance(floor, StatisticsStart | RidgeMixture):
            return super().floor(view, user, item)
        score = floor if view.without_fold is None else floor.of_simulated
        return score(torch.tensor([user]), torch.tensor([item])).item()

    def item_weight(self, view: View, item: int) -> np.ndarray:
        """Eq. 7's bold v: the target model's vector, the text, or both."""
        reads = self.config["target_item_features"]
        weight = np.zeros(self.config["embedding_size"])
        if reads in ("id", "both"):
            weight = weight + view.item_e[item]
        if reads in ("text", "both"):
            weight = weight + self.weigh(self.text(item, "text", self.texts_of))
        return weight


class TestMetaMMCDR(BridgeChecks, DistributionChecks):
    config: ClassVar = {"model": "MetaMMCDR", **TINY, "select_epoch": "last"}
    solves = ("one_linear_map", "two_groups")
    reference = MetaReference
    transformed = MetaReference.transformed
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "id": {"item_features": "id"},
        "both": {"item_features": "both"},
        "image": {"item_features": "image"},
        "all": {"item_features": "all"},
        "all_not_rating_aware": {"item_features": "all", "rating_aware": False},
        "not_rating_aware": {"rating_aware": False},
        "positive": {"history": "positive"},
        "positive_often_empty": {
            "history": "positive",
            "positive_threshold": 5,
            "history_length": 1,
        },
        "last_three": {"history_length": 3},
        "last_three_positive": {"history_length": 3, "history": "positive"},
        "no_floor": NO_FLOOR,
        "no_floor_no_bias": {**NO_FLOOR, "use_bias": False},
        "not_simulated": {"simulate_cold_users": False},
        "mapping": {"bridge_loss": "mapping"},
        "ranking": {"eval_task": "ranking"},
        "target_text": {"target_item_features": "text"},
        "target_both": {"target_item_features": "both"},
        "target_text_alone": {"target_item_features": "text", "item_features": "id"},
        "target_both_no_floor": {"target_item_features": "both", **NO_FLOOR},
        "pretrain_text": {"pretrain_item_features": "text"},
        "pretrain_both": {"pretrain_item_features": "both", "item_features": "both"},
        "pretrain_both_no_floor": {"pretrain_item_features": "both", **NO_FLOOR},
        "paper": {"preset": "paper"},
        "paper_all": {"preset": "paper", "item_features": "all"},
    }


class TestMetaMMCDRPaper(BridgeChecks):
    config: ClassVar = {"model": "MetaMMCDR", **TINY, "preset": "paper"}
    reference = MetaReference
    transformed = MetaReference.transformed


class TestMetaMMCDRMapping(BridgeChecks):
    config: ClassVar = {
        "model": "MetaMMCDR",
        **TINY,
        "bridge_loss": "mapping",
        "item_features": "both",
        "select_epoch": "last",
    }
    solves = ("one_linear_map", "two_groups")
    reference = MetaReference
    transformed = MetaReference.transformed


class TestMetaMMCDRRanking(ModelChecks):
    config: ClassVar = {"model": "MetaMMCDR", **TINY, "eval_task": "ranking"}

    @pytest.mark.parametrize(
        ("values", "advice"),
        [
            ({"item_features": "image"}, "--item_features=id"),
            ({"target_item_features": "both"}, "--target_item_features=id"),
        ],
    )
    def test_features_that_nothing_would_read(
        self, data_path: Path, values: dict[str, Any], advice: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"none is trained .* Give {advice}"):
            self.build(data_path, **values)
        self.build(data_path, **values, start_from_floor=False)


def build(data_path: Path, **values: Any) -> Run:
    return TestMetaMMCDR.build(data_path, **{"learning_rate": 0.03, **values})


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data_path: Path) -> Run:
    return build(data_path).fit()


@pytest.mark.parametrize(
    ("values", "is_kept"),
    [
        ({}, True),
        (NO_FLOOR, False),
        ({"preset": "paper"}, False),
        ({"eval_task": "ranking"}, False),
    ],
    ids=["default", "no_floor", "paper", "ranking"],
)
def test_a_floor_of_ratings_is_kept_until_it_is_beaten(
    data_path: Path, values: dict[str, Any], is_kept: bool
) -> None:
    run = build_run(data_path, **{**TINY, "model": "MetaMMCDR", **values})
    *pretraining, bridge = run.model.stages(run.dataset, lambda: 0.0)
    assert bridge.keeps_start is is_kept
    assert not any(stage.keeps_start for stage in pretraining)


class TestArithmetic:
    def test_some_source_items_have_no_text(self, trained: Run) -> None:
        known = trained.model.text.known[: trained.dataset.pair.items("source").stop]
        read = trained.dataset.pair.source.item
        assert 0 < (~known[1:]).sum() < len(known) / 4
        assert not known[read].all()

    def test_empty_histories_share_a_characteristic_of_zero(self, data_path: Path) -> None:
        run = build(data_path, **TestMetaMMCDR.variants["positive_often_empty"]).fit()
        source = run.dataset.pair.source
        without = np.setdiff1d(np.unique(source.user), source.user[source.rating >= 5])
        assert len(without) > 0
        assert not run.model.characteristic(torch.from_numpy(without)).any()

    def test_simulation_needs_the_floor(self, data_path: Path) -> None:
        with pytest.raises(ConfigError, match="needs `start_from_floor: True`"):
            build(data_path, start_from_floor=False)
        build(data_path, start_from_floor=False, eval_task="ranking")  # has neither

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
        reference = MetaReference(run)
        *_, fold = naive_calibration(run)
        views = {f: reference.view(f if simulate else None) for f in range(5)}
        users = batch["user_id"].tolist()
        errors = [
            r - reference.cold(views[fold[u]], reference.transformed(u), u, i)
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
        reference = MetaReference(run)
        target = reference.state["target.users.embedding"]
        for batch in stage.training.loader:
            loss = stage.training.loss(batch).item()
            distances = [
                np.sum((reference.transformed(u) - target[u]) ** 2)
                for u in batch["user_id"].tolist()
            ]
            assert loss == pytest.approx(np.mean(distances), rel=1e-4)

    def test_ranking_loss_compares_with_a_negative_of_the_same_user(self, data_path: Path) -> None:
        run = build(data_path, eval_task="ranking", bridge_reg_weight=0.0, **NO_FLOOR).fit()
        stage = run.model.stages(run.dataset, None)[-1]
        run.model.train()
        batch = next(iter(stage.training.loader))
        reference = MetaReference(run)
        view = reference.view()
        columns = [batch[name].tolist() for name in ("user_id", "item_id", "neg_item_id")]
        margins = [
            reference.cold(view, reference.transformed(u), u, i)
            - reference.cold(view, reference.transformed(u), u, j)
            for u, i, (j,) in zip(*columns, strict=True)
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
        before = trained.model.cold_view(trained.dataset, simulated_users(trained))
        after = trained.model.cold_view(
            with_other_ratings_of(trained, user), simulated_users(trained)
        )
        own = int(before.met[user])
        assert own < 5
        assert torch.equal(before.met, after.met)
        assert torch.equal(before.item_e[own], after.item_e[own])
        for other in {*range(6)} - {own}:
            assert not torch.equal(before.item_e[other], after.item_e[other])

    def test_without_simulation_they_are(self, data_path: Path, trained: Run, user: int) -> None:
        run = build(data_path, simulate_cold_users=False).fit()
        before = run.model.cold_view(run.dataset, simulated_users(run, is_met=False))
        after = run.model.cold_view(
            with_other_ratings_of(run, user), simulated_users(run, is_met=False)
        )
        met = int(before.met[user])
        assert met == 0 == len(before.item_e) - 1
        assert not torch.equal(before.item_e[met], after.item_e[met])

    def test_cold_users_meet_all_of_training(self, trained: Run) -> None:
        view = trained.model.cold_view(trained.dataset, simulated_users(trained))
        assert torch.equal(view.item_e[-1], trained.model.cold_item_e)
        split = trained.dataset.split
        assert (view.met[split.test_users] == 5).all()
        assert (view.met[split.valid_users] == 5).all()

    def test_more_folds_than_users(self, data_path: Path) -> None:
        with pytest.raises(ConfigError, match="simulation_folds 500 needs as many overlapped"):
            build(data_path, simulation_folds=500).fit()


class TestDistribution:
    """The floor's, tilted to the score."""

    @pytest.mark.parametrize(
        "values", [{}, {"few_shot": 2, "few_shot_pool": 3, "few_shot_start": "target"}]
    )
    def test_its_mean_is_the_score(self, data_path: Path, values: dict[str, Any]) -> None:
        run = build(data_path, **values).fit()
        user, item = (torch.from_numpy(column) for column in pairs_of_both_kinds(run))
        run.model.eval()
        with torch.no_grad():
            score = run.model.rate(user, item)
            found = mean(run.model.rating_probabilities(user, item), run.model.rating_values)
            floor = run.model.floor(user, item)
        torch.testing.assert_close(found, score.clamp(2.015, 4.985), atol=1e-3, rtol=0)
        assert (score - floor).abs().max() > 0.01
        assert run.model.is_warm[user].any()

    def test_there_is_none_without_the_floor(self, data_path: Path) -> None:
        for values in ({"preset": "paper"}, NO_FLOOR):
            assert build(data_path, **values).model.rating_values is None
            text = "`point_estimate: median` needs a distribution, which only the floor has"
            with pytest.raises(ConfigError, match=text):
                build(data_path, **values, point_estimate="median")
        result = run_mm(data_path, **{**TestMetaMMCDR.config, "preset": "paper", "epochs": 1})
        assert result["estimates"] is None


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


class TestImages:
    """From Amazon's binary file to a model that reads it."""

    @staticmethod
    def write(data_path: Path, *, degrees_of_freedom: int = 30) -> Path:
        """A pair whose items have names of ten letters, as Amazon's, and images for most."""
        pair = tiny_pair()
        renamed = {
            name: frame.assign(item_id=frame["item_id"].str.rjust(10, "B"))
            for name, frame in vars(pair).items()
            if name in ("source_inter", "target_inter", "source_items", "target_items")
        }
        pair = dataclasses.replace(pair, **renamed)
        write_pair(pair, data_path, "tiny")
        rng = np.random.default_rng(0)
        with_image = pair.source_items["item_id"].tolist()[3:]
        matrix = rng.standard_t(degrees_of_freedom, (len(with_image), DIM)).astype("<f4")
        file = data_path / "image_features_Movies_and_TV.b"
        file.write_bytes(
            b"".join(
                item.encode() + row.tobytes() for item, row in zip(with_image, matrix, strict=True)
            )
        )
        main(["image", f"--features={file}", "--dataset=tiny_movie", f"--data_path={data_path}"])
        return data_path

    def test_amazons_file_is_read_by_the_bridge(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        values = {**TestMetaMMCDR.config, "learning_rate": 0.03, "item_features": "image"}
        values |= {"state": "INFO"}
        first = build_run(self.write(tmp_path / "a"), **values).fit()
        assert first.model.image.features.shape == (first.dataset.pair.n_items, DIM)
        assert "tiny_movie: 3 of 40 items have no image; they share one learned" in caplog.text
        other = self.write(tmp_path / "b", degrees_of_freedom=5)
        moved = changed(*(snapshot(run.model) for run in (first, build_run(other, **values).fit())))
        assert {"image.features", "meta_network.output.weight"} <= moved

    def test_an_edited_store_is_refused(self, tmp_path: Path) -> None:
        data_path = self.write(tmp_path)
        values = {**TestMetaMMCDR.config, "item_features": "image"}
        build_run(data_path, **values)
        file = data_path / "tiny_movie" / "tiny_movie.image.npy"
        matrix = np.load(file)
        matrix[0, 0] += 1
        np.save(file, matrix)
        text = (
            r"tiny_movie\.image\.npy: its rows or items are not those that were written\. Make it"
        )
        with pytest.raises(DataFormatError, match=text):
            build_run(data_path, **values)

    def test_a_store_of_other_items_is_refused(self, tmp_path: Path) -> None:
        data_path = write_world(tiny_pair(), tmp_path)
        values = {**TestMetaMMCDR.config, "item_features": "image"}
        build_run(data_path, **values)
        matrix = np.zeros((1, 6), dtype=np.float32)
        info = read_store(data_path / "tiny_movie", "tiny_movie", "image").info
        info = {k: v for k, v in info.items() if k not in ("dim", "dtype")}
        info["content_hash"] = matrix_hash(["elsewhere"], matrix)
        write_store(data_path / "tiny_movie", "tiny_movie", "image", ["elsewhere"], matrix, info)
        with pytest.raises(DataFormatError, match="has no row for any item of tiny_movie"):
            build_run(data_path, **values)
