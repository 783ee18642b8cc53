"""Few-shot: the initialisation stage, which trains cold-start users on by their first ratings.

What is revealed and what is tested is in test_pair.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from bridge_checks import BridgeChecks, PersonalisedReference, View
from model_checks import (
    TINY,
    Run,
    build_run,
    changed,
    command_line,
    names_of,
    numpy_state,
    pairs_of_both_kinds,
    result_of,
    run_mm,
    snapshot,
    tiny_pair,
    write_world,
)

from dataset_tools.synthetic import SyntheticPair
from recbole_cdr_mm.checkpoint import load_checkpoint
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.errors import ConfigError, StageError
from recbole_cdr_mm.quick_start import main
from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer

BRIDGES = ("PTUPCDR", "MetaMMCDR", "EMCDR", "SSCDR")
STARTS = ("transformed", "random", "mean", "target")
FEW: dict[str, Any] = {
    **TINY,
    "learning_rate": 0.03,
    "select_epoch": "last",
    "few_shot": 2,
    "few_shot_pool": 3,
    "few_shot_epochs": 4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "rating": {},
    "rating_paper": {"preset": "paper", "base_model": "GMF"},
    "rating_without_floor": {"start_from_floor": False, "simulate_cold_users": False},
    "ranking": {"eval_task": "ranking"},
    "ranking_paper": {"eval_task": "ranking", "preset": "paper", "base_model": "GMF"},
}
OFFSET = "few_shot.offset.rows.weight"
STARTING = {"few_shot.row", "few_shot.start_e", "few_shot.start_bias", "few_shot.keeps_floor"}
# A point of a metric space and a user who ranks by a product are drawn alike only inside the ball.
METRIC = {"model": "SSCDR", "sscdr_form": "metric", "eval_task": "ranking", "embedding_std": 1.0}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


@functools.cache
def fitted(data_path: Path, **values: Any) -> Run:
    """A trained model, PTUPCDR where nothing is said; each once a session, so leave it as it is."""
    return build_run(data_path, **{"model": "PTUPCDR", **FEW, **values}).fit()


def fitted_elsewhere(data_path: Path, **values: Any) -> Run:
    """The same, never from the cache."""
    return fitted.__wrapped__(data_path, **values)


def fitted_for_long(data_path: Path, *, epochs: int, **values: Any) -> Run:
    """A model whose initialisation stage has many epochs, of one batch each, and keeps none."""
    many = {"few_shot_epochs": epochs, "few_shot_learning_rate": 0.02, "few_shot_batch_size": 100}
    run = build_run(data_path, **{"model": "PTUPCDR", **FEW, **many, **values})
    run.trainer.fit(run.loaders["train"], None, saved=False)
    return run


def cold_users(run: Run) -> np.ndarray:
    return np.union1d(run.dataset.split.test_users, run.dataset.split.valid_users)


def revealed_of(run: Run, user: int) -> tuple[np.ndarray, np.ndarray]:
    """Items and ratings that are revealed of a user."""
    revealed = run.dataset.split.revealed
    rows = revealed.user == user
    return revealed.item[rows], revealed.rating[rows].astype(np.float64)


def target_items(run: Run) -> np.ndarray:
    return np.arange(run.dataset.pair.items("target").start, run.dataset.pair.n_items)


def with_other_ratings(run: Run, rows: Ratings) -> SyntheticPair:
    """The tiny pair, with other ratings in these rows and in no others."""
    pair, ids = tiny_pair(), run.dataset.pair
    tokens = set(zip(ids.user_tokens[rows.user], ids.item_tokens[rows.item], strict=True))
    inter = pair.target_inter.copy()
    chosen = [key in tokens for key in zip(inter["user_id"], inter["item_id"], strict=True)]
    assert sum(chosen) == len(rows) > 0
    inter.loc[chosen, "rating"] = inter.loc[chosen, "rating"] % 5 + 1
    return dataclasses.replace(pair, target_inter=inter)


class FewShotReference:
    """The users' vectors, scores and losses again, in NumPy, from a model's state."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.state = numpy_state(run)
        self.row = {user: n for n, user in enumerate(cold_users(run).tolist(), start=1)}
        self.counts = Counter(run.dataset.split.revealed.user.tolist())

    @property
    def is_rated(self) -> bool:
        """Whether ratings are fitted, not orders."""
        config = self.run.config
        return config["loss_type"] == "MSE" or config["eval_task"] == "rating"

    @property
    def shrinkage(self) -> float:
        """What is said, or what fits the loss."""
        given = self.run.config["few_shot_shrinkage"]
        return (5.0 if self.is_rated else 0.5) if given is None else given

    def offset(self, user: int) -> tuple[np.ndarray, float]:
        row = self.row[user]
        return (
            self.state["few_shot.offset.embedding"][row],
            self.state["few_shot.offset.bias"][row],
        )

    def start(self, user: int) -> tuple[np.ndarray, float]:
        row = self.row[user]
        return self.state["few_shot.start_e"][row], self.state["few_shot.start_bias"][row]

    def score(self, user: int, item: int, *, trained: bool = True) -> float:
        """Of the user as the stage left them, or as it found them."""
        (vector, bias), (offset, bias_offset) = self.start(user), self.offset(user)
        if trained:
            vector, bias = vector + offset, bias + bias_offset
        return self.floor(user, item) + bias + vector @ self.state["cold_item_e"][item]

    def floor(self, user: int, item: int) -> float:
        """The model's own floor of the user; of nobody, where the start knows no source ratings."""
        keeps_floor = self.run.config["few_shot_start"] == "transformed"
        ids = torch.tensor([user if keeps_floor else 0]), torch.tensor([item])
        return self.run.model.floor(*ids).item()

    def row_error(self, user: int, item: int, rating: float, others: list[int]) -> float:
        """The error of one revealed row; -log of the item's softmax where there are others."""
        own = self.score(user, item)
        if not others:
            return (rating - own) ** 2
        return np.log1p(sum(np.exp(self.score(user, other) - own) for other in others))

    def row_distance(self, user: int) -> float:
        """The share of one revealed row in its user's squared distance from the start."""
        offset, bias_offset = self.offset(user)
        return (np.sum(offset**2) + bias_offset**2) / self.counts[user]

    def mean_user(self) -> tuple[np.ndarray, float]:
        """Mean vector and bias of the users with target ratings in training."""
        pair, config = self.run.dataset.pair, self.run.config
        warm = np.unique(self.run.dataset.split.train.user)
        rows = np.where(warm <= pair.n_overlapped, warm, warm - pair.n_source_only)
        bias = self.state["target.users.bias"][rows].mean()
        if config["start_from_floor"] and config["eval_task"] == "rating":
            bias = 0.0  # biases are those of the floor, and 0 on average
        return self.state["target.users.embedding"][rows].mean(0), bias

    def ridge(self, user: int, vector: np.ndarray, bias: float) -> tuple[np.ndarray, float]:
        """What to add to vector and bias: regression of the revealed ratings on weights and a 1.

        Of a ranking: of a score that is by 1 above the given user's, and without the bias.
        """
        items, ratings = revealed_of(self.run, user)
        weights = self.state["cold_item_e"][items]
        rest = np.ones(len(items))
        if self.is_rated:
            floor = np.array([self.floor(user, item) for item in items])
            rest = ratings - floor - weights @ vector - bias
        has_bias = self.run.config["use_bias"] and self.is_rated
        design = np.column_stack([weights, np.full(len(items), float(has_bias))])
        gram = design.T @ design + self.shrinkage * np.eye(design.shape[1])
        *solved, of_bias = np.linalg.solve(gram, design.T @ rest)
        return np.array(solved), of_bias


def errors_and_distances(reference: FewShotReference, batch: Any) -> tuple[float, float]:
    """Means over a batch's rows."""
    columns = [batch[name].tolist() for name in ("user_id", "item_id", "rating")]
    negative: list[list[int]] = [[]] * len(columns[0])
    if "neg_item_id" in batch:
        negative = batch["neg_item_id"].tolist()
    errors = [reference.row_error(*row) for row in zip(*columns, negative, strict=True)]
    distances = [reference.row_distance(user) for user in columns[0]]
    return float(np.mean(errors)), float(np.mean(distances))


# The arithmetic


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("eval_task", ["rating", "ranking"])
@pytest.mark.parametrize("base_model", ["MF", "GMF"])
@pytest.mark.parametrize("model", BRIDGES)
class TestArithmetic:
    @pytest.fixture
    def run(self, data_path: Path, model: str, base_model: str, eval_task: str, preset: str) -> Run:
        values = {"model": model, "base_model": base_model, "eval_task": eval_task}
        # Some users have their rows in two batches, and the penalty counts in the preset `paper`.
        small = {"few_shot_batch_size": 7, "few_shot_shrinkage": 0.7, "few_shot_learning_rate": 0.1}
        return fitted(data_path, **values, preset=preset, **small)

    def test_scores_are_the_floor_and_the_product_with_the_users_own_vector(self, run: Run) -> None:
        reference = FewShotReference(run)
        users = np.repeat(cold_users(run), 5)
        items = np.resize(target_items(run), len(users))
        expected = [reference.score(u, i) for u, i in zip(users, items, strict=True)]
        np.testing.assert_allclose(run.scores(users, items), expected, rtol=1e-5, atol=1e-5)
        assert np.abs([reference.offset(u)[0] for u in reference.counts]).max(1).min() > 1e-3

    def test_the_loss_is_the_error_and_each_users_distance_once(self, run: Run) -> None:
        reference = FewShotReference(run)
        loader = run.model.stages(run.dataset, None)[-1].training.loader
        rows = []
        for batch in loader:
            error, distance = errors_and_distances(reference, batch)
            loss = run.model.stages(run.dataset, None)[-1].training.loss(batch)
            assert loss.item() == pytest.approx(error + 0.7 * distance, rel=1e-4)
            columns = [batch[name].tolist() for name in ("user_id", "item_id", "rating")]
            rows += zip(*columns, strict=True)
        revealed = run.dataset.split.revealed
        columns = [getattr(revealed, name).tolist() for name in ("user", "item", "rating")]
        assert sorted(rows) == sorted(zip(*columns, strict=True))
        assert ("neg_item_id" in batch) == (run.config["eval_task"] == "ranking")
        assert len(loader) > 1

    def test_the_stage_moves_the_users_offsets_and_nothing_else(self, run: Run) -> None:
        *others, (stage, before, after) = run.trainer.stages_seen
        assert stage.name == "initialisation"
        trains = names_of(run.model, stage.training.trains)
        assert trains == {OFFSET}
        assert after[OFFSET].shape[1] == run.config["embedding_size"] + run.config["use_bias"]
        moved = changed(before, after)
        assert OFFSET in moved
        assert moved <= trains | STARTING
        for _, earlier, later in others:
            assert not changed(earlier, later) & {OFFSET, *STARTING}


def test_the_bridges_own_item_weights_count(data_path: Path) -> None:
    """With `target_item_features` the vector is multiplied with the items' projected texts."""
    run = fitted(data_path, model="MetaMMCDR", target_item_features="both", few_shot_start="target")
    reference = FewShotReference(run)
    items = torch.from_numpy(target_items(run))
    with torch.no_grad():
        projected = run.model.target.weigh(run.model.text(items)).numpy()
    assert np.abs(projected).max() > 1e-2
    reference.state["cold_item_e"][target_items(run)] += projected
    mean_e, bias = reference.mean_user()
    users = np.repeat(cold_users(run), 5)
    chosen = np.resize(target_items(run), len(users))
    expected = [reference.score(u, i) for u, i in zip(users, chosen, strict=True)]
    np.testing.assert_allclose(run.scores(users, chosen), expected, rtol=1e-5, atol=1e-5)
    for user in cold_users(run):
        solved, _ = reference.ridge(user, mean_e, bias)
        np.testing.assert_allclose(reference.start(user)[0], mean_e + solved, atol=1e-4)


# Beside a run without few-shot


@pytest.mark.parametrize("setting", ["rating", "ranking_paper"])
@pytest.mark.parametrize("model", BRIDGES)
class TestBesideARunWithoutFewShot:
    def test_with_nothing_revealed_the_scores_are_the_bridges(
        self, data_path: Path, model: str, setting: str
    ) -> None:
        runs = [
            fitted(data_path, model=model, **{**SETTINGS[setting], "few_shot": n})
            for n in (None, 0)
        ]
        plain, nothing = (run.scores(*pairs_of_both_kinds(runs[0])) for run in runs)
        np.testing.assert_allclose(nothing, plain, rtol=1e-6, atol=1e-6)
        rows = [run.dataset.split.test for run in runs]
        assert len(rows[1]) < len(rows[0])

    def test_everything_else_and_everybody_else_stay_as_they_were(
        self, data_path: Path, model: str, setting: str
    ) -> None:
        plain, few = (
            fitted(data_path, model=model, **{**SETTINGS[setting], "few_shot": n})
            for n in (None, 2)
        )
        of_few = snapshot(few.model)
        own = {name: of_few.pop(name) for name in [*of_few] if name.startswith("few_shot.")}
        assert own.keys() == {OFFSET, *STARTING, "few_shot.users"}
        assert not changed(snapshot(plain.model), of_few)
        user, item = pairs_of_both_kinds(plain)
        has_moved = np.isin(user, few.dataset.split.revealed.user)
        before, after = plain.scores(user, item), few.scores(user, item)
        np.testing.assert_allclose(after[~has_moved], before[~has_moved], rtol=1e-6, atol=1e-6)
        assert (after[has_moved] != before[has_moved]).mean() > 0.9
        left_out = np.setdiff1d(cold_users(few), few.dataset.split.revealed.user)
        assert np.isin(left_out, user[~has_moved]).any()


# The stage


def test_the_stage_is_the_last_one_and_needs_the_bridge(data_path: Path) -> None:
    run = fitted(data_path)
    stages = run.model.stages(run.dataset, None)
    names = ["source", "target", "bridge", "initialisation"]
    assert [stage.name for stage in stages] == names
    assert stages[-1].requires == ("bridge",)
    assert [report.name for report in run.trainer.reports] == names
    assert run.model.trained_stages == names
    fresh = build_run(data_path, **{"model": "PTUPCDR", **FEW})
    fresh.model.trained_stages += ["source", "target"]
    with pytest.raises(StageError, match=r"stage `initialisation`: stage `bridge` is not trained"):
        fresh.trainer._run(stages[-1], None)
    plain = build_run(data_path, **{"model": "PTUPCDR", **FEW, "few_shot": None})
    assert [stage.name for stage in plain.model.stages(plain.dataset, None)] == names[:-1]


@pytest.mark.parametrize("setting", ["rating", "ranking_paper"])
def test_with_nothing_revealed_there_is_nothing_to_train(data_path: Path, setting: str) -> None:
    values = {**SETTINGS[setting], "select_epoch": "valid"}
    run = fitted(data_path, **{**values, "few_shot": 0})
    stage, _, after = run.trainer.stages_seen[-1]
    assert (stage.name, stage.training) == ("initialisation", None)
    assert not after[OFFSET].any()
    report = run.trainer.reports[-1]
    assert (report.epochs, report.examples) == (0, 0)
    metric = run.config["valid_metric"].lower()
    assert (
        report.valid_metric
        == run.evaluate("valid")[metric]
        == pytest.approx(
            fitted(data_path, **{**values, "few_shot": 1}).trainer.reports[-2].valid_metric
        )
    )


@pytest.mark.parametrize(
    ("values", "epochs", "batches", "learning_rate"),
    [
        ({"few_shot_epochs": 5, "few_shot_batch_size": 4}, 5, 8, 0.02),
        ({"few_shot_epochs": None, "few_shot_learning_rate": 0.1}, 3, 1, 0.1),
        ({"few_shot_epochs": None, "train_batch_size": 29}, 3, 2, 0.02),
        ({"preset": "paper", "few_shot_epochs": None}, 3, 1, 0.01),
    ],
)
def test_the_stage_has_its_own_epochs_batches_and_learning_rate(
    data_path: Path, values: dict[str, Any], epochs: int, batches: int, learning_rate: float
) -> None:
    run = fitted(data_path, **values)
    report, n_rows = run.trainer.reports[-1], len(run.dataset.split.revealed)
    assert n_rows == 30
    assert (report.epochs, report.best_epoch, report.examples) == (epochs, epochs, epochs * n_rows)
    training = run.model.stages(run.dataset, None)[-1].training
    assert (len(training.loader), training.learning_rate) == (batches, learning_rate)
    first = run.trainer.epochs_seen["initialisation", 1][OFFSET]
    if batches == 1:  # Adam's first step
        assert first.abs().max().item() == pytest.approx(learning_rate, rel=1e-3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 5.0),
        ({"eval_task": "ranking"}, 0.5),
        ({"eval_task": "ranking", "loss_type": "MSE"}, 5.0),
        ({"eval_task": "ranking", "loss_type": "CE"}, 0.5),
        ({"preset": "paper"}, 0.0),
        ({"eval_task": "ranking", "preset": "paper"}, 0.0),
    ],
)
def test_the_shrinkage_fits_the_loss_where_nothing_is_said(
    data_path: Path, values: dict[str, Any], expected: float
) -> None:
    run = fitted(data_path, **values, few_shot_learning_rate=0.1)
    training = run.model.stages(run.dataset, None)[-1].training
    (batch,) = training.loader
    error, distance = errors_and_distances(FewShotReference(run), batch)
    found = (training.loss(batch).item() - error) / distance
    assert found == pytest.approx(expected, rel=0.01, abs=1e-4)


def test_without_validation_users_only_the_test_users_are_trained_on(data_path: Path) -> None:
    run = fitted(data_path, valid_user_ratio=0, select_epoch="valid")
    assert run.model.few_shot.users.tolist() == run.dataset.split.test_users.tolist()
    report = run.trainer.reports[-1]
    assert (report.epochs, report.best_epoch) == (4, 4)


def test_validation_users_choose_the_epoch(data_path: Path) -> None:
    """A step that is far too long helps nobody, so the state before training counts."""
    values = {"few_shot_learning_rate": 30.0, "few_shot_epochs": 2, "select_epoch": "valid"}
    run = fitted(data_path, **values)
    assert run.trainer.reports[-1].best_epoch == 0
    assert not snapshot(run.model)[OFFSET].any()
    assert run.trainer.reports[-1].valid_metric == run.evaluate("valid")["rmse"]
    last = fitted(data_path, **{**values, "select_epoch": "last"})
    assert last.evaluate("valid")["rmse"] > run.evaluate("valid")["rmse"]


# The four starts


class TestStarts:
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_transformed(self, data_path: Path, setting: str) -> None:
        run = fitted(data_path, **SETTINGS[setting])
        reference, users = FewShotReference(run), cold_users(run)
        with torch.no_grad():
            vectors = run.model.transform(torch.from_numpy(users)).numpy()
        assert np.abs(vectors).max() > 1e-3
        for user, vector in zip(users, vectors, strict=True):
            start_e, start_bias = reference.start(user)
            np.testing.assert_allclose(start_e, vector, rtol=1e-5, atol=1e-6)
            assert start_bias == 0
        assert reference.state["few_shot.keeps_floor"]

    @pytest.mark.parametrize("setting", ["rating", "ranking_paper"])
    def test_random(self, data_path: Path, setting: str) -> None:
        values = {**SETTINGS[setting], "few_shot_start": "random"}
        run = fitted(data_path, **values, embedding_size=16, embedding_std=0.3)
        start_e = run.model.few_shot.start_e[1:].numpy()
        assert start_e.shape == (len(cold_users(run)), 16)
        n = start_e.size
        assert abs(start_e.mean()) <= 5 * 0.3 / np.sqrt(n)
        assert abs(start_e.std() - 0.3) <= 5 * 0.3 / np.sqrt(2 * n)
        assert len(np.unique(start_e)) == n
        assert not run.model.few_shot.start_bias.any()

    def test_random_depends_on_the_seed_alone(self, data_path: Path) -> None:
        def start_e(**values: Any) -> list[list[float]]:
            run = fitted(data_path, **{"few_shot_start": "random", **values})
            return run.model.few_shot.start_e.tolist()

        first = start_e()
        assert start_e(model="EMCDR", epochs=1, few_shot=1, few_shot_epochs=1) == first
        assert start_e(split_seed=3) == first  # other users, and the same numbers
        torch.manual_seed(5)
        assert start_e(base_model="GMF") == first
        assert start_e(seed=1) != first

    def test_random_is_not_what_the_model_has_drawn_already(self, data_path: Path) -> None:
        fresh = build_run(data_path, **{"model": "PTUPCDR", **FEW})
        drawn = set(fresh.model.source.users.table.rows.weight.flatten().tolist())
        start_e = fitted(data_path, few_shot_start="random").model.few_shot.start_e[1:]
        assert len(set(start_e.flatten().tolist()) & drawn) <= 1

    @pytest.mark.parametrize("setting", SETTINGS)
    def test_mean(self, data_path: Path, setting: str) -> None:
        run = fitted(data_path, **SETTINGS[setting], few_shot_start="mean")
        reference = FewShotReference(run)
        mean_e, mean_bias = reference.mean_user()
        assert np.abs(mean_e).max() > 1e-3
        assert setting != "rating_without_floor" or abs(mean_bias) > 0.003
        for user in cold_users(run):
            start_e, start_bias = reference.start(user)
            np.testing.assert_allclose(start_e, mean_e, atol=1e-6)
            assert start_bias == pytest.approx(mean_bias, abs=1e-6)

    @pytest.mark.parametrize(
        ("setting", "shrinkage"), [*((setting, None) for setting in SETTINGS), ("rating", 0.3)]
    )
    def test_target(self, data_path: Path, setting: str, shrinkage: float | None) -> None:
        values = {"few_shot_shrinkage": shrinkage, "embedding_std": 1.0, "few_shot_start": "target"}
        run = fitted(data_path, **SETTINGS[setting], **values)
        reference = FewShotReference(run)
        mean_e, mean_bias = reference.mean_user()
        distances = {}
        for user in cold_users(run):
            start_e, start_bias = reference.start(user)
            solved, of_bias = reference.ridge(user, mean_e, mean_bias)
            np.testing.assert_allclose(start_e, mean_e + solved, rtol=1e-3, atol=1e-4)
            assert start_bias == pytest.approx(mean_bias + of_bias, rel=1e-3, abs=1e-4)
            distances[user] = np.abs(start_e - mean_e).max()
        assert min(distances[user] for user in reference.counts) > 1e-3
        without = [distances[user] for user in distances if user not in reference.counts]
        np.testing.assert_allclose(without, np.zeros(len(without)), atol=1e-6)
        assert without

    @pytest.mark.parametrize("setting", ["rating", "rating_paper", "rating_without_floor"])
    def test_target_without_shrinkage_explains_the_revealed_ratings(
        self, data_path: Path, setting: str
    ) -> None:
        values = {"few_shot_shrinkage": 0.0, "embedding_std": 1.0, "few_shot_start": "target"}
        run = fitted(data_path, **SETTINGS[setting], **values)
        assert revealed_error(run, trained=False) < 1e-3

    @pytest.mark.parametrize("setting", ["rating", "rating_paper", "ranking_paper"])
    def test_target_with_nothing_revealed_is_mean(self, data_path: Path, setting: str) -> None:
        runs = [
            fitted(data_path, **{**SETTINGS[setting], "few_shot": 0, "few_shot_start": start})
            for start in ("target", "mean")
        ]
        target, mean = (run.model.few_shot for run in runs)
        torch.testing.assert_close(target.start_e, mean.start_e)
        torch.testing.assert_close(target.start_bias, mean.start_bias)

    @pytest.mark.parametrize("setting", ["ranking", "ranking_paper"])
    def test_target_of_a_ranking_turns_towards_what_users_like(
        self, data_path: Path, setting: str
    ) -> None:
        run = fitted(
            data_path, **SETTINGS[setting], few_shot_start="target", few_shot_shrinkage=0.1
        )
        reference = FewShotReference(run)
        mean_e, _ = reference.mean_user()
        gains = [
            (reference.start(user)[0] - mean_e) @ reference.state["cold_item_e"][item]
            for user in reference.counts
            for item in revealed_of(run, user)[0]
        ]
        assert np.mean(gains) > 0

    def test_ranking_by_ratings_has_the_ratings_themselves(self, data_path: Path) -> None:
        values = {"eval_task": "ranking", "loss_type": "MSE", "few_shot_start": "target"}
        run = fitted(data_path, **values)
        reference = FewShotReference(run)
        mean_e, mean_bias = reference.mean_user()
        for user in reference.counts:
            solved, of_bias = reference.ridge(user, mean_e, mean_bias)
            np.testing.assert_allclose(reference.start(user)[0], mean_e + solved, atol=1e-5)
            assert reference.start(user)[1] == pytest.approx(mean_bias + of_bias, abs=1e-4)


# What training does


def revealed_error(run: Run, *, trained: bool) -> float:
    """Mean squared error of the revealed ratings; of a ranking, how far other items are above."""
    reference, errors = FewShotReference(run), []
    for user in reference.counts:
        for item, rating in zip(*revealed_of(run, user), strict=True):
            score = reference.score(user, item, trained=trained)
            if run.config["eval_task"] == "rating":
                errors.append((rating - score) ** 2)
            else:
                others = [reference.score(user, i, trained=trained) for i in target_items(run)]
                errors.append(np.mean(others) - score)
    return float(np.mean(errors))


class TestTraining:
    @pytest.mark.parametrize("start", STARTS)
    @pytest.mark.parametrize("setting", ["rating", "ranking"])
    def test_the_error_of_the_revealed_ratings_falls(
        self, data_path: Path, setting: str, start: str
    ) -> None:
        run = fitted(data_path, **SETTINGS[setting], few_shot_start=start)
        errors = [revealed_error(run, trained=trained) for trained in (False, True)]
        assert errors[1] < errors[0] - 1e-4

    @pytest.mark.parametrize(
        "values",
        [
            {"few_shot_shrinkage": 5.0},
            {"few_shot_shrinkage": 0.5, "few_shot_start": "random", "embedding_std": 1.0},
            {"preset": "paper", "few_shot_shrinkage": 1.0, "base_model": "GMF"},
        ],
    )
    def test_it_ends_where_a_ridge_regression_from_the_start_ends(
        self, data_path: Path, values: dict[str, Any]
    ) -> None:
        run = fitted_for_long(data_path, epochs=400, **values)
        reference, largest = FewShotReference(run), 0.0
        for user in cold_users(run):
            solved = np.append(*reference.ridge(user, *reference.start(user)))
            found = np.append(*reference.offset(user))
            np.testing.assert_allclose(found, solved, rtol=0.02, atol=5e-3)
            largest = max(largest, np.abs(solved).max())
        assert largest > 0.2

    @pytest.mark.parametrize("setting", ["rating", "rating_paper"])
    def test_with_a_large_shrinkage_nothing_moves(self, data_path: Path, setting: str) -> None:
        moved = {}
        for shrinkage in (0.0, 1e6):
            values = {**SETTINGS[setting], "few_shot_shrinkage": shrinkage}
            run = fitted_for_long(data_path, epochs=50, **values)
            moved[shrinkage] = snapshot(run.model)[OFFSET].abs().max()
        assert moved[1e6] < 0.005 < 0.3 < moved[0.0]  # Adam cannot but sway a little

    def test_users_with_nothing_revealed_stay_at_the_start(self, data_path: Path) -> None:
        run = fitted(data_path)
        revealed = FewShotReference(run).counts.keys()
        rows = 1 + np.flatnonzero(~np.isin(cold_users(run), [*revealed]))
        assert len(rows)
        assert not snapshot(run.model)[OFFSET][rows].any()


# What may be known, and of whom


class TestLeaks:
    @pytest.mark.parametrize("select_epoch", ["valid", "last"])
    @pytest.mark.parametrize("setting", ["rating", "ranking_paper"])
    def test_tested_ratings_of_test_users_change_nothing(
        self, data_path: Path, tmp_path: Path, setting: str, select_epoch: str
    ) -> None:
        values = {**SETTINGS[setting], "select_epoch": select_epoch, "few_shot_start": "target"}
        run = fitted(data_path, **values)
        # In a ranking a rating below the threshold is no row, so all of the test users' are taken.
        behind = whole_split(run).test
        other = write_world(with_other_ratings(run, behind), tmp_path)
        again = fitted_elsewhere(other, **values)
        assert again.evaluate() != run.evaluate()
        assert not changed(snapshot(run.model), snapshot(again.model))

    def test_tested_ratings_of_validation_users_only_choose_the_epoch(
        self, data_path: Path, tmp_path: Path
    ) -> None:
        values = {"few_shot_start": "target", "select_epoch": "valid"}
        run = fitted(data_path, **values)
        other = write_world(with_other_ratings(run, run.dataset.split.valid), tmp_path)
        again = fitted_elsewhere(other, **values)
        assert again.evaluate("valid") != run.evaluate("valid")
        assert {stage for stage, _ in run.trainer.epochs_seen} >= {"bridge", "initialisation"}
        last = {"select_epoch": "last", "few_shot_start": "target"}
        states = [fitted_elsewhere(path, **last) for path in (data_path, other)]
        assert not changed(*(snapshot(run.model) for run in states))

    @pytest.mark.parametrize(
        ("kind", "start"), [*(("test", start) for start in STARTS), ("valid", "target")]
    )
    def test_revealed_ratings_change_the_vectors_of_these_users_alone(
        self, data_path: Path, tmp_path: Path, kind: str, start: str
    ) -> None:
        run = fitted(data_path, few_shot_start=start)
        revealed, split = run.dataset.split.revealed, run.dataset.split
        users = np.intersect1d(getattr(split, f"{kind}_users"), revealed.user)[::2]
        rows = revealed.where(np.isin(revealed.user, users))
        other = write_world(with_other_ratings(run, rows), tmp_path)
        again = fitted_elsewhere(other, few_shot_start=start)
        before, after = snapshot(run.model), snapshot(again.model)
        starting = {"few_shot.start_e", "few_shot.start_bias"} if start == "target" else set()
        assert changed(before, after) == {OFFSET, *starting}
        expected = 1 + np.searchsorted(cold_users(run), users)
        for name in (OFFSET, *starting):
            moved = (before[name] != after[name]).view(len(before[name]), -1).any(1)
            assert torch.nonzero(moved).squeeze(1).tolist() == expected.tolist(), name

    def test_ratings_of_training_users_change_the_target_start(
        self, data_path: Path, tmp_path: Path
    ) -> None:
        """So that it is not the comparison that sees nothing."""
        run = fitted(data_path, few_shot_start="target")
        train = run.dataset.split.train
        other = write_world(
            with_other_ratings(run, train.where(train.user == train.user[0])), tmp_path
        )
        again = fitted_elsewhere(other, few_shot_start="target")
        assert "few_shot.start_e" in changed(snapshot(run.model), snapshot(again.model))


def whole_split(run: Run) -> Any:
    """The split before the positives' filter of a ranking."""
    values = {key: run.config[key] for key in ("few_shot", "few_shot_pool")}
    folder = Path(run.config["data_path"]).parent
    return build_run(folder, **{"model": "GlobalMean", **values}).dataset.split


# The metric form of SSCDR, and ranking


def in_the_ball(vector: np.ndarray) -> np.ndarray:
    return vector / max(1.0, np.linalg.norm(vector))


def test_few_shot_in_a_metric_space(data_path: Path) -> None:
    """Without `embedding_std: 1` no vector leaves the unit ball, and all is as elsewhere."""
    run = fitted(data_path, **{**METRIC, "embedding_std": 0.1})
    reference = FewShotReference(run)
    users = np.repeat(cold_users(run), 5)
    items = np.resize(target_items(run), len(users))
    expected = [reference.score(u, i) for u, i in zip(users, items, strict=True)]
    np.testing.assert_allclose(run.scores(users, items), expected, rtol=1e-5, atol=1e-5)
    assert names_of(run.model, run.trainer.stages_seen[-1][0].training.trains) == {OFFSET}


def test_the_mean_user_of_a_metric_space_is_the_mean_of_its_points(data_path: Path) -> None:
    run = fitted(data_path, **METRIC, few_shot_start="mean")
    state, pair = FewShotReference(run).state, run.dataset.pair
    warm = np.unique(run.dataset.split.train.user)
    rows = np.where(warm <= pair.n_overlapped, warm, warm - pair.n_source_only)
    points = [in_the_ball(vector) for vector in state["target.users.embedding"][rows]]
    np.testing.assert_allclose(state["few_shot.start_e"][1], np.mean(points, axis=0), atol=1e-5)


@pytest.mark.parametrize("start", ["transformed", "random"])
def test_few_shot_users_of_a_metric_space_are_points_of_the_unit_ball(
    data_path: Path, start: str
) -> None:
    values = {"few_shot_start": start, "few_shot_learning_rate": 1.0}
    run = fitted(data_path, **METRIC, **values)
    reference, items = FewShotReference(run), target_items(run)
    points = np.array([in_the_ball(v) for v in reference.state["cold_item_e"][items] / 2])
    for user in cold_users(run):
        own = in_the_ball(reference.start(user)[0] + reference.offset(user)[0])
        by_distance = np.argsort(np.square(own - points).sum(1), kind="stable")
        by_score = np.argsort(-run.scores(np.full(len(items), user), items), kind="stable")
        assert by_score.tolist() == by_distance.tolist()


@pytest.mark.parametrize("n_revealed", [0, 2])
@pytest.mark.parametrize("model", ["PTUPCDR", "Popularity"])
def test_items_of_what_is_set_aside_are_no_candidates_of_their_users(
    data_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, n_revealed: int
) -> None:
    """Whatever is revealed of it; else trained vectors would put it on top, as so many misses."""
    values = {"eval_task": "ranking", "few_shot": n_revealed, "few_shot_pool": 3}
    own = {key: value for key, value in FEW.items() if model == "PTUPCDR" or key in values}
    run = build_run(data_path, **{"model": model, **own, **values}).fit()
    score, ranked = run.trainer._full_sort_batch_eval, {}

    def watched(batch: Any) -> Any:
        result = score(batch)
        ranked.update(zip(batch[0]["user_id"].tolist(), torch.isfinite(result[1]), strict=True))
        return result

    monkeypatch.setattr(run.trainer, "_full_sort_batch_eval", watched)
    run.evaluate()
    split, whole = run.dataset.split, whole_split(run)
    assert sorted(ranked) == np.unique(split.test.user).tolist()
    for user, is_candidate in ranked.items():
        aside = whole.aside.item[whole.aside.user == user]  # liked or not
        assert len(aside) == 3
        expected = np.setdiff1d(target_items(run), aside)
        assert np.flatnonzero(is_candidate).tolist() == expected.tolist()
        assert np.isin(split.test.item[split.test.user == user], expected).all()


# The shared checks


class FewShotBridge(PersonalisedReference):
    """PTUPCDR from its own parameters, and what few-shot adds to it."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.few_shot = FewShotReference(run)

    def transformed(self, user: int) -> np.ndarray:
        vector = super().transformed(user)
        is_few = user in self.few_shot.row
        return vector + self.few_shot.offset(user)[0] if is_few else vector

    def cold(self, view: View, user_e: np.ndarray, user: int, item: int) -> float:
        bias = self.few_shot.offset(user)[1] if user in self.few_shot.row else 0.0
        return super().cold(view, user_e, user, item) + bias


class TestFewShotPTUPCDR(BridgeChecks):
    config: ClassVar = {"model": "PTUPCDR", **FEW, "learning_rate": 0.05}
    reference = FewShotBridge
    transformed = FewShotBridge.transformed
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "mapping": {"bridge_loss": "mapping"},
        "paper": {"preset": "paper"},
    }

    # Two of the shared checks change revealed ratings too, which are there to be read.

    def test_hidden_ratings_of_test_users_do_not_leak(
        self, data_path: Path, trained: Run, tmp_path: Path
    ) -> None:
        other = write_world(with_other_ratings(trained, trained.dataset.split.test), tmp_path)
        run = self.build(other).fit()
        assert run.evaluate() != trained.evaluate()
        assert not changed(snapshot(trained.model), snapshot(run.model))

    def test_ratings_of_validation_users_only_choose_the_epoch(
        self, data_path: Path, trained: Run, tmp_path: Path
    ) -> None:
        other = write_world(with_other_ratings(trained, trained.dataset.split.valid), tmp_path)
        runs = [self.build(path, select_epoch="valid").fit() for path in (data_path, other)]
        was, now = (run.trainer.epochs_seen for run in runs)
        in_both = [epoch for epoch in was if epoch in now and epoch[0] != "initialisation"]
        assert {stage for stage, _ in in_both} == {"source", "target", "bridge"}
        assert not any(changed(was[epoch], now[epoch]) for epoch in in_both)


# Checkpoints


class Stopped(Exception):
    """What ends a run in the middle, in place of a kill."""


@pytest.mark.parametrize(
    ("epoch", "values"),
    [
        (1, {}),  # nothing of the stage is kept
        (3, {"select_epoch": "last", "few_shot_batch_size": 7}),
        (3, {"few_shot_start": "random"}),
        (3, {"few_shot_start": "target", "base_model": "GMF"}),
        (2, {"eval_task": "ranking", "few_shot_start": "mean", "preset": "paper"}),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_result(
    data_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    values: dict[str, Any],
) -> None:
    given = {"model": "PTUPCDR", **FEW, "select_epoch": "valid", **values}
    (tmp_path / "whole").mkdir()
    whole = result_of(data_path, tmp_path / "whole", **given)
    train = StagedTrainer._train_one_epoch

    def train_and_stop(trainer: Any, stage: Any, training: Any, report: Any) -> None:
        train(trainer, stage, training, report)
        if stage.name == "initialisation" and report.epochs == epoch:
            raise Stopped

    monkeypatch.setattr(StagedTrainer, "_train_one_epoch", train_and_stop)
    with pytest.raises(Stopped):
        result_of(data_path, tmp_path, **given)
    monkeypatch.undo()
    (file,) = (tmp_path / "saved").iterdir()
    kept = load_checkpoint(file)["progress"]["reports"][-1]
    last = ("bridge", 3) if epoch == 1 else ("initialisation", epoch - 1)
    assert (kept["name"], kept["epochs"]) == last
    assert result_of(data_path, tmp_path, **given, resume=True) == whole
    assert whole["stages"][-1]["epochs"] >= epoch


def test_a_checkpoint_of_another_few_shot_is_refused(
    data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"model": "EMCDR", **FEW}
    result_of(data_path, tmp_path, **given)
    (file,) = (tmp_path / "saved").iterdir()
    for values, message in (
        ({"few_shot": 1}, "was trained on other ratings, or another split of them"),
        ({"few_shot_start": "mean"}, "few_shot_start (transformed there, mean here)"),
    ):
        assert main(command_line(data_path, tmp_path, **{**given, **values}, resume=file)) == 2
        assert message in capsys.readouterr().err


# Models without the stage


OTHERS: dict[str, dict[str, Any]] = {
    "BiasTransfer": {},
    "CalibratedTransfer": {},
    "TargetMF": {**TINY, "select_epoch": "last"},
    "CMF": {**TINY, "select_epoch": "last"},
    "FM": {"epochs": 1},
    "BPR": {"epochs": 1, "eval_task": "ranking"},
    "Popularity": {"eval_task": "ranking"},
}


@functools.cache
def bridge_result(data_path: Path, few_shot: int | None) -> dict[str, Any]:
    return run_mm(data_path, **{"model": "EMCDR", **FEW, "few_shot": few_shot})


@pytest.mark.parametrize("model", OTHERS)
def test_models_without_the_stage_run_on_the_same_tested_rows(
    data_path: Path, tmp_path: Path, model: str
) -> None:
    results, states = {}, {}
    for n in (None, 0, 2):
        folder = tmp_path / str(n)
        values = {"few_shot": n, "few_shot_pool": 3, "checkpoint_dir": str(folder)}
        results[n] = run_mm(data_path, model=model, **OTHERS[model], **values)
        assert results[n]["data"] == bridge_result(data_path, n)["data"]
        file = next(f for f in folder.iterdir() if not f.name.endswith(".last.pth"))
        states[n] = load_checkpoint(file)["state_dict"]
    assert states[None]
    for n in (0, 2):
        assert not changed(states[None], states[n])
        assert results[n]["test"] == results[0]["test"] != results[None]["test"]


def test_the_result_counts_what_is_revealed_and_who_is_left_out(data_path: Path) -> None:
    plain, *few = (bridge_result(data_path, n)["data"] for n in (None, 0, 1, 2))
    assert [data["revealed_ratings"] for data in few] == [0, 15, 30]
    assert plain["revealed_ratings"] == plain["test_users_left_out"] == 0
    counts = tiny_pair().target_inter["user_id"].value_counts()
    run = fitted(data_path)
    tokens = run.dataset.pair.user_tokens
    left_out = sum(counts[tokens[user]] <= 3 for user in run.dataset.split.test_users)
    assert [data["test_users_left_out"] for data in few] == [left_out] * 3
    assert left_out > 0
    assert len({data["test_ratings"] for data in few}) == 1
    n_set_aside = sum(min(counts[tokens[user]], 3) for user in run.dataset.split.test_users)
    assert few[0]["test_ratings"] == plain["test_ratings"] - n_set_aside
    assert f"30 ratings revealed (2 of each user); {left_out} test users have" in str(run.dataset)


# Bad input


@pytest.mark.parametrize(
    ("bad", "message", "good"),
    [
        ({"few_shot": -1}, r"`few_shot: -1` must be \(int >= 0 or null\)", {"few_shot": 0}),
        ({"few_shot": 1.5}, r"`few_shot: 1\.5` must be \(int >= 0 or null\)", {"few_shot": 1}),
        ({"few_shot": "two"}, r"`few_shot: two` must be \(int >= 0 or null\)", {"few_shot": 2}),
        (
            {"few_shot": 9, "few_shot_pool": 8},
            r"`few_shot: 9` reveals more .* `few_shot_pool: 8` sets aside\. .*_pool=9 or more\.",
            {"few_shot": 8, "few_shot_pool": 8},
        ),
        (
            {"few_shot_pool": 30},
            r"`few_shot_pool: 30` leaves no rating to measure: no test user has more than \d+ targ",
            {"few_shot_pool": 8},
        ),
        ({"few_shot_pool": 0}, r"`few_shot_pool: 0` must be \(int > 0\)", {"few_shot_pool": 2}),
        (
            {"few_shot_start": "foo"},
            r"`few_shot_start: foo` must be \(transformed \| random \| mean \| target\)",
            {"few_shot_start": "random"},
        ),
        (
            {"few_shot_star": "mean"},
            r"unknown key `few_shot_star`\. Did you mean `few_shot_start`\?",
            {"few_shot_start": "mean"},
        ),
        ({"few_shot_epochs": 0}, r"`few_shot_epochs: 0` must be", {"few_shot_epochs": 1}),
        ({"few_shot_shrinkage": -1}, r"`few_shot_shrinkage: -1` must", {"few_shot_shrinkage": 1}),
        (
            {"model": "BiasTransfer"},  # which has none of the keys of the stage
            r"unknown key `few_shot_start`\.",
            {"model": "SSCDR"},
        ),
    ],
)
def test_a_mistake_ends_in_one_line(
    data_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    bad: dict[str, Any],
    message: str,
    good: dict[str, Any],
) -> None:
    given = {"model": "EMCDR", "epochs": 1, "few_shot": 2, "few_shot_start": "transformed"}
    assert main(command_line(data_path, tmp_path, **{**given, **bad})) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    assert line.startswith("ConfigError: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)
    left = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    # Only RecBole's log may stay: of a run that began, it says with which values.
    assert {path for path in left if path.parts[0] != "log"} == set()
    result = result_of(data_path, tmp_path, **{**given, **good})
    assert np.isfinite([*result["test"].values()]).all()


def test_more_revealed_than_set_aside_is_refused_from_python_too(data_path: Path) -> None:
    values = {"model": "GlobalMean", "few_shot_pool": 3}
    with pytest.raises(ConfigError, match="`few_shot: 4` reveals more"):
        run_mm(data_path, **values, few_shot=4)
    assert run_mm(data_path, **values, few_shot=3)["test"]
