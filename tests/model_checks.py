"""Checks that hold for every model, and what it takes to run a model in a test.

A model's test file is mostly a declaration:

    class TestEMCDRLinear(ModelChecks):
        config = {"model": "EMCDR", "mapping_function": "linear"}
        solves = ("one_linear_map",)  # planted worlds it must learn
        expected_to_fail = ("two_groups",)  # one map for all cannot; strict xfail
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.quick_start import run_recbole
from recbole.utils import init_seed
from torch import Tensor, nn

from dataset_tools.feature_store import matrix_hash, write_store
from dataset_tools.synthetic import (
    SyntheticPair,
    domain_names,
    make_pair,
    write_pair,
    write_planted_features,
)
from recbole_cdr_mm import compat
from recbole_cdr_mm.checkpoint import load_checkpoint
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import SimulatedUsers, draw_folds
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.errors import ConfigError, StageError
from recbole_cdr_mm.layers.rating_distribution import RatingDistribution, median
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.property_files import property_files
from recbole_cdr_mm.quick_start import load_data_and_model, main, run_recbole_mm
from recbole_cdr_mm.register import register
from recbole_cdr_mm.schema import Key, read_properties
from recbole_cdr_mm.stage import Stage
from recbole_cdr_mm.trainer.resume import run_config
from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer

QUIET: dict[str, Any] = {"use_gpu": False, "show_progress": False, "state": "ERROR"}
TINY: dict[str, Any] = {"embedding_size": 4, "epochs": 3, "train_batch_size": 128}
# Enough to learn the planted worlds in a few seconds.
PLANTED: dict[str, Any] = {
    "embedding_size": 4,
    "epochs": 15,
    "train_batch_size": 512,
    "learning_rate": 0.02,
}
SOLVED = 0.7  # of BiasTransfer's RMSE; what a planted world's solution is far below

State = dict[str, Tensor]


# Pairs


def tiny_pair(structure: str = "demo", *, seed: int = 0) -> SyntheticPair:
    """80 users, 40 and 120 items, whole stars; some items lack texts, some are rarely rated."""
    return make_pair(
        structure,
        n_overlapped=60,
        n_source_only=10,
        n_target_only=10,
        n_source_items=40,
        n_target_items=120,
        source_ratings_per_user=8,
        target_ratings_per_user=8,
        integer_ratings=True,
        seed=seed,
    )


def write_world(pair: SyntheticPair, data_path: Path, name: str = "tiny", dim: int = 4) -> Path:
    """Write a pair with its planted text features, and image features that say nothing."""
    write_pair(pair, data_path, name)
    write_planted_features(pair, data_path, name, dim)
    for domain, (ids, matrix) in zip(
        domain_names(name), planted_images(pair).values(), strict=True
    ):
        info = {
            "encoder": "planted",
            "revision_or_hash": "none",
            "pooling": "none",
            "fields": [],
            "counts": {},
            "content_hash": matrix_hash(ids, matrix),
        }
        write_store(data_path / domain, domain, "image", ids, matrix, info)
    return data_path


def planted_images(pair: SyntheticPair) -> dict[str, tuple[list[str], np.ndarray]]:
    """Items that have an image, nine in ten, and features that say nothing, by domain."""
    rng = np.random.default_rng(pair.seed)
    images = {}
    for domain, items in (("source", pair.source_items), ("target", pair.target_items)):
        ids = items["item_id"][rng.random(len(items)) < 0.9].tolist()
        images[domain] = (ids, rng.standard_normal((len(ids), 6)).astype(np.float32))
    return images


def with_target_ratings(pair: SyntheticPair, change: Any, users: set[str]) -> SyntheticPair:
    """The pair with other target ratings of some users."""
    inter = pair.target_inter.copy()
    rows = inter["user_id"].isin(users)
    inter.loc[rows, "rating"] = change(inter.loc[rows, "rating"])
    return dataclasses.replace(pair, target_inter=inter)


# Runs


def model_properties(name: str) -> tuple[dict[str, object], dict[str, Key]]:
    """Values and keys of a model's property files."""
    values: dict[str, object] = {}
    keys: dict[str, Key] = {}
    for file in property_files(find_models()[name]):
        own_values, own_keys = read_properties(file)
        values |= own_values
        keys |= own_keys
    return values, keys


class WatchedTrainer(StagedTrainer):
    """Remembers the model's state before and after each stage, and after each epoch."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.stages_seen: list[tuple[Stage, State, State]] = []
        self.epochs_seen: dict[tuple[str, int], State] = {}

    def _run(self, stage: Stage, resumed: dict[str, Any] | None) -> None:
        before = snapshot(self.model)
        super()._run(stage, resumed)
        self.stages_seen.append((stage, before, snapshot(self.model)))

    def _train_one_epoch(self, stage: Stage, training: Any, report: Any) -> None:
        super()._train_one_epoch(stage, training, report)
        self.epochs_seen[stage.name, report.epochs] = snapshot(self.model)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The parts of one run, as `run_recbole_mm` puts them together."""

    config: MMConfig
    dataset: PairDataset
    loaders: dict[str, Any]
    model: Any
    trainer: WatchedTrainer

    def fit(self) -> Run:
        """Train."""
        self.trainer.fit(self.loaders["train"], self.loaders["valid"] or None)
        return self

    def evaluate(self, part: str = "test") -> dict[str, float]:
        """Measure the model as it is."""
        result = self.trainer.evaluate(self.loaders[part], load_best_model=False)
        assert result is not None
        return dict(result)

    def scores(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """What `predict` says of pairs."""
        self.model.eval()
        batch = Interaction({"user_id": torch.from_numpy(user), "item_id": torch.from_numpy(item)})
        with torch.no_grad():
            return self.model.predict(batch).numpy().astype(np.float64)


def build_run(data_path: Path, dataset: str = "tiny", **values: Any) -> Run:
    """Put a run together without training it."""
    from recbole.data import create_samplers
    from recbole.data.utils import get_dataloader

    compat.apply()
    register()
    config = MMConfig(
        dataset=dataset,
        config_dict={
            **QUIET,
            "data_path": str(data_path),
            "checkpoint_dir": str(data_path / "saved"),
            **values,
        },
    )
    pair = PairDataset(config)
    parts = pair.build()
    samplers = create_samplers(config, pair, parts)
    loaders = {
        phase: get_dataloader(config, phase)(config, part, sampler, shuffle=phase == "train")
        for phase, part, sampler in zip(("train", "valid", "test"), parts, samplers, strict=True)
    }
    init_seed(config["seed"], config["reproducibility"])
    model = config.model_class(config, parts[0])
    return Run(config, parts[0], loaders, model, WatchedTrainer(config, model))


def run_mm(data_path: Path, dataset: str = "tiny", **values: Any) -> dict[str, Any]:
    """`run_recbole_mm` on a pair of the tests."""
    folders = {"data_path": str(data_path), "checkpoint_dir": str(data_path / "saved")}
    return run_recbole_mm(dataset=dataset, config_dict={**QUIET, **folders, **values})


def command_line(data_path: Path, folder: Path, **values: Any) -> list[str]:
    """Arguments of a run on `tiny` whose checkpoints and result lie in a folder."""
    folder.mkdir(exist_ok=True)
    everything = {
        "dataset": "tiny",
        "data_path": data_path,
        "checkpoint_dir": folder / "saved",
        "result_json": folder / "result.json",
        **QUIET,
        **values,
    }
    return [f"--{key}={value}" for key, value in everything.items()]


def result_of(data_path: Path, folder: Path, **values: Any) -> dict[str, Any]:
    """The result of a command line, without what differs between any two runs."""
    assert main(command_line(data_path, folder, **values)) == 0
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for stage in result["stages"]:
        del stage["seconds"], stage["examples_per_second"]
    return result


def snapshot(model: nn.Module) -> State:
    """A copy of parameters and buffers, those that no checkpoint holds among them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def changed(before: State, after: State) -> set[str]:
    """Names of what is not bit-identical."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def names_of(model: nn.Module, parameters: tuple[nn.Parameter, ...]) -> set[str]:
    """Names of parameters."""
    chosen = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def pairs_of_both_kinds(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Users and target items: test, validation, training and source-only users."""
    split = run.dataset.split
    parts = [split.test, split.valid, split.train.where(np.arange(len(split.train)) < 40)]
    user = np.concatenate([part.user for part in parts])
    item = np.concatenate([part.item for part in parts])
    source_only = 1 + run.dataset.pair.n_overlapped
    return np.append(user, [source_only, source_only]), np.append(item, item[:2])


def tokens_of(run: Run, part: str) -> set[str]:
    """Tokens of the `test` or `valid` users."""
    users = getattr(run.dataset.split, f"{part}_users")
    return set(run.dataset.pair.user_tokens[users])


def simulated_users(run: Run, *, is_met: bool = True) -> SimulatedUsers:
    """The folds that a run has drawn."""
    dataset, n_folds = run.dataset, run.config["simulation_folds"]
    fold = draw_folds(dataset.pair, dataset.split, n_folds, run.config["seed"])
    return SimulatedUsers(fold, n_folds, is_met)


def numpy_state(run: Run) -> dict[str, np.ndarray]:
    """The state_dict; of each table `embedding`, its vectors, and `bias` (n,), 0 without biases."""
    state = {}
    for name, value in run.model.state_dict().items():
        state[name] = value.numpy().astype(np.float64)
        if name.endswith(".rows.weight"):
            owner, rows = name.removesuffix(".rows.weight").removesuffix(".table"), state.pop(name)
            n_vector = rows.shape[1] - run.config["use_bias"]
            state[f"{owner}.embedding"] = rows[:, :n_vector]
            state[f"{owner}.bias"] = rows[:, n_vector:].sum(1)
    return state


# Plain NumPy, slow and obvious


def naive_biases(
    rows: Ratings, *, rounds: int = 10, item_shrinkage: float = 3.0, user_shrinkage: float = 5.0
) -> tuple[float, dict[int, float], dict[int, float]]:
    """Mean, user biases and item biases by alternating shrunken means, one at a time."""
    rating = rows.rating.astype(np.float64)
    mean = rating.mean()
    by_user = {u: np.flatnonzero(rows.user == u) for u in np.unique(rows.user)}
    by_item = {i: np.flatnonzero(rows.item == i) for i in np.unique(rows.item)}
    user_bias, item_bias = dict.fromkeys(by_user, 0.0), dict.fromkeys(by_item, 0.0)
    for _ in range(rounds):
        for i, places in by_item.items():
            rest = [rating[n] - mean - user_bias[rows.user[n]] for n in places]
            item_bias[i] = sum(rest) / (len(rest) + item_shrinkage)
        for u, places in by_user.items():
            rest = [rating[n] - mean - item_bias[rows.item[n]] for n in places]
            user_bias[u] = sum(rest) / (len(rest) + user_shrinkage)
    return mean, user_bias, item_bias


def naive_calibration(run: Run) -> tuple[float, float, float, np.ndarray]:
    """CalibratedTransfer's a, b and c, and the folds (U,).

    Each fold's users are left out of the statistics that they are rated with.
    """
    dataset, n_folds = run.dataset, run.config["simulation_folds"]
    train = dataset.split.train
    fold = draw_folds(dataset.pair, dataset.split, n_folds, run.config["seed"]).numpy()
    _, source_bias, _ = naive_biases(dataset.pair.source)
    design, rating = [], []
    for f in range(n_folds):
        mean, _, item_bias = naive_biases(train.where(fold[train.user] != f))
        for u, i, r in zip(train.user, train.item, train.rating, strict=True):
            if fold[u] == f:
                design.append([1.0, mean + item_bias.get(i, 0.0), source_bias[u]])
                rating.append(float(r))
    a, b, c = np.linalg.lstsq(np.array(design), np.array(rating), rcond=None)[0]
    return a, b, c, fold


def naive_distribution(
    run: Run, fit: Callable[[Ratings], Callable[[int, int], float]]
) -> RatingDistribution:
    """The distribution that fits simulated cold users, each scored by a floor fitted without them.

    `fit` gives, for target rows, what scores a cold-start user and an item.
    """
    dataset, n_folds = run.dataset, run.config["simulation_folds"]
    train = dataset.split.train
    fold = draw_folds(dataset.pair, dataset.split, n_folds, run.config["seed"]).numpy()
    score, rating = [], []
    for f in range(n_folds):
        floor = fit(train.where(fold[train.user] != f))
        for u, i, r in zip(train.user, train.item, train.rating, strict=True):
            if fold[u] == f:
                score.append(floor(u, i))
                rating.append(r)
    distribution = RatingDistribution(torch.from_numpy(np.unique(train.rating)))
    distribution.fit(torch.tensor(score, dtype=torch.float64), torch.tensor(rating))
    return distribution


def assert_same_distribution(one: RatingDistribution, two: RatingDistribution) -> None:
    """Compare the probabilities given scores of all heights."""
    score = torch.linspace(1, 5, 9)
    torch.testing.assert_close(
        one.probabilities(score), two.probabilities(score), atol=1e-4, rtol=0
    )


# Planted worlds


@functools.cache
def planted_world(base: Path, structure: str) -> tuple[Path, SyntheticPair]:
    """A world of the size that `PLANTED` fits, on disk; made once a session."""
    pair = make_pair(
        structure,
        n_overlapped=600,
        n_source_only=50,
        n_target_only=50,
        n_source_items=600,
        n_target_items=150,
        source_ratings_per_user=30,
        target_ratings_per_user=30,
        seed=1,
    )
    return write_world(pair, base / "planted" / structure, "planted"), pair


@functools.cache
def planted_rmse(base: Path, structure: str, **values: Any) -> float:
    """RMSE on the test users of a planted world; each run once a session."""
    data_path, _ = planted_world(base, structure)
    model_keys = model_properties(values["model"])[1]
    known = {key: value for key, value in PLANTED.items() if key in model_keys}
    return build_run(data_path, "planted", **{**values, **known}).fit().evaluate()["rmse"]


class ModelChecks:
    """What every model must pass.

    Attributes:
        config: The model, and the keys that make it small.
        solves: Planted worlds in which its RMSE must be far below BiasTransfer's.
        expected_to_fail: Planted worlds in which it cannot be.
    """

    config: ClassVar[dict[str, Any]]
    solves: ClassVar[tuple[str, ...]] = ()
    expected_to_fail: ClassVar[tuple[str, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "planted" in metafunc.fixturenames:
            cannot = pytest.mark.xfail(raises=AssertionError, reason="the model cannot learn it")
            worlds = [*self.solves]
            worlds += [pytest.param(world, marks=cannot) for world in self.expected_to_fail]
            none = pytest.param(None, marks=pytest.mark.skip(reason="declares no planted world"))
            metafunc.parametrize("planted", worlds or [none])
        if "eval_task" in metafunc.fixturenames:
            metafunc.parametrize("eval_task", self.tasks())

    @classmethod
    def model_class(cls) -> type[CrossDomainRecommender]:
        return find_models()[cls.config["model"]]

    @classmethod
    def tasks(cls) -> tuple[str, ...]:
        """The task that the class declares, else all that the model can do."""
        declared = cls.config.get("eval_task")
        return (declared,) if declared else cls.model_class().eval_tasks

    @classmethod
    def build(cls, data_path: Path, **values: Any) -> Run:
        return build_run(data_path, **{"eval_task": cls.tasks()[0], **cls.config, **values})

    @pytest.fixture(scope="class")
    @classmethod
    def data_path(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, data_path: Path) -> Run:
        return cls.build(data_path).fit()

    # Config

    def test_builds_by_name_from_its_yaml_alone(self, data_path: Path) -> None:
        name = self.config["model"]
        run = build_run(data_path, model=name, eval_task=self.model_class().eval_tasks[0])
        assert type(run.model) is self.model_class()
        for key, value in model_properties(name)[0].items():
            assert run.config[key] == value, key

    def test_config_round_trip(self, data_path: Path) -> None:
        config = self.build(data_path).config
        keys = model_properties(self.config["model"])[1]
        keys |= read_properties(PROPERTIES / "overall.yaml")[1]
        values = {key: run_config(config)[key] for key in keys if key in run_config(config)}
        again = build_run(data_path, model=self.config["model"], **values).config
        assert run_config(again) == run_config(config)

    def test_unknown_key_is_refused(self, data_path: Path) -> None:
        self.build(data_path, epochs=2)
        with pytest.raises(ConfigError, match=r"unknown key `epohcs`\. Did you mean `epochs`\?"):
            self.build(data_path, epohcs=2)

    # Stages

    def test_from_the_final_stage_on_it_predicts(self, trained: Run) -> None:
        stages = trained.model.stages(trained.dataset, None)
        few_shot = ["initialisation"] if trained.config["few_shot"] is not None else []
        last = [stage.name for stage in stages][-1 - len(few_shot) :]
        assert last == [self.model_class().final_stage, *few_shot]
        assert [report.name for report in trained.trainer.reports] == [s.name for s in stages]

    def test_row_0_is_zero_from_initialising_on(self, trained: Run) -> None:
        tables = [n for n, m in trained.model.named_modules() if isinstance(m, nn.Embedding)]
        _, first, _ = trained.trainer.stages_seen[0]
        for state in (first, *(after for _, _, after in trained.trainer.stages_seen)):
            for table in tables:
                row = state[f"{table}.weight"][0]
                assert torch.equal(row, torch.zeros_like(row)), table

    def test_a_stage_moves_only_what_it_trains(self, trained: Run) -> None:
        for stage, before, after in trained.trainer.stages_seen:
            trains = names_of(trained.model, stage.training.trains) if stage.training else set()
            parameters = {name for name, _ in trained.model.named_parameters()}
            moved = changed(before, after)
            assert moved & parameters <= trains
            assert stage.prepare is not None or not moved - parameters
        moved_at_all = set().union(
            *(changed(before, after) for _, before, after in trained.trainer.stages_seen)
        )
        for stage, before, _ in trained.trainer.stages_seen:
            for (name, _), state in trained.trainer.epochs_seen.items():
                moved_at_all |= changed(before, state) if name == stage.name else set()
        wanted = {n for n, p in trained.model.named_parameters() if p.requires_grad}
        assert wanted <= moved_at_all

    def test_gradients_reach_exactly_what_a_stage_trains(self, trained: Run) -> None:
        model = trained.model

        def validate() -> float:
            return trained.evaluate("valid")[trained.config["valid_metric"].lower()]

        for stage in model.stages(trained.dataset, validate if trained.loaders["valid"] else None):
            model.train()
            if stage.prepare is not None:
                before = snapshot(model)
                stage.prepare()
                model.train()
                assert not changed(before, snapshot(model)), "`prepare` must be repeatable"
            if stage.training is None:
                continue
            model.zero_grad(set_to_none=True)
            with trained.trainer._only_training(stage.training.trains):
                for batch in stage.training.loader:
                    stage.training.loss(batch).backward()
            reached = {
                name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
            }
            assert reached == names_of(model, stage.training.trains)
        model.zero_grad(set_to_none=True)

    def test_evaluation_leaves_the_model_as_it_is(self, trained: Run) -> None:
        before = snapshot(trained.model)
        first = trained.evaluate()
        assert trained.evaluate() == first
        assert not changed(before, snapshot(trained.model))
        assert all(parameter.grad is None for parameter in trained.model.parameters())

    # Predictions

    def test_predicting_untrained_is_an_error(self, data_path: Path, trained: Run) -> None:
        run = self.build(data_path)
        batch = Interaction({"user_id": torch.tensor([1]), "item_id": torch.tensor([50])})
        final = self.model_class().final_stage
        text = re.escape(f"{self.config['model']}.predict: stage `{final}` is not trained.")
        with pytest.raises(StageError, match=text):
            run.model.predict(batch)
        with pytest.raises(StageError, match=text):
            run.model.full_sort_predict(batch)
        for stage in trained.model.stages(trained.dataset, None):
            if stage.name == final:
                break
            run.model.trained_stages.append(stage.name)
            with pytest.raises(StageError, match=text):
                run.model.predict(batch)
        assert np.isfinite(trained.scores(np.array([1]), np.array([50]))).all()

    def test_one_pair_at_a_time_equals_the_batch(self, trained: Run) -> None:
        user, item = pairs_of_both_kinds(trained)
        batch = trained.scores(user, item)
        alone = [trained.scores(user[n : n + 1], item[n : n + 1])[0] for n in range(len(user))]
        np.testing.assert_allclose(alone, batch, rtol=1e-6, atol=1e-6)
        order = np.random.default_rng(0).permutation(len(user))
        np.testing.assert_allclose(
            trained.scores(user[order], item[order]), batch[order], rtol=1e-6, atol=1e-6
        )

    def test_full_sort_equals_predict(self, trained: Run) -> None:
        pair = trained.dataset.pair
        users = torch.arange(1, pair.n_users)
        with torch.no_grad():
            flat = trained.model.full_sort_predict(Interaction({"user_id": users}))
        scores = flat.view(len(users), pair.n_items).numpy()
        first = pair.items("target").start
        assert np.isneginf(scores[:, :first]).all()
        items = np.arange(first, pair.n_items)
        expected = trained.scores(
            np.repeat(users.numpy(), len(items)), np.tile(items, len(users))
        ).reshape(len(users), -1)
        np.testing.assert_allclose(scores[:, first:], expected, rtol=1e-6, atol=1e-6)

    def test_warm_users_are_those_with_target_ratings_in_training(self, trained: Run) -> None:
        warm = torch.nonzero(trained.model.is_warm).squeeze(1).tolist()
        assert warm == sorted(set(trained.dataset.split.train.user.tolist()))
        split = trained.dataset.split
        assert not {*split.test_users.tolist(), *split.valid_users.tolist()} & set(warm)

    # Whole runs

    def test_same_seed_same_bits(self, data_path: Path, trained: Run) -> None:
        again = self.build(data_path).fit()
        assert not changed(snapshot(trained.model), snapshot(again.model))
        assert again.evaluate() == trained.evaluate()

    def test_save_and_load(self, data_path: Path, trained: Run) -> None:
        fresh = self.build(data_path)
        checkpoint = load_checkpoint(trained.trainer.saved_model_file)
        fresh.model.load_state_dict(checkpoint["state_dict"])
        fresh.model.load_other_parameter(checkpoint["other_parameter"])
        pairs = pairs_of_both_kinds(trained)
        np.testing.assert_array_equal(fresh.scores(*pairs), trained.scores(*pairs))

    def test_hidden_ratings_of_test_users_do_not_leak(
        self, data_path: Path, trained: Run, tmp_path: Path
    ) -> None:
        if len(trained.dataset.split.revealed):
            pytest.skip("some are revealed here; test_few_shot.py looks at the others")
        other = with_target_ratings(tiny_pair(), lambda r: 6 - r, tokens_of(trained, "test"))
        run = self.build(write_world(other, tmp_path)).fit()
        assert run.dataset.split.test.rating.tolist() != trained.dataset.split.test.rating.tolist()
        assert not changed(snapshot(trained.model), snapshot(run.model))

    def test_ratings_of_validation_users_only_choose_the_epoch(
        self, data_path: Path, trained: Run, tmp_path: Path
    ) -> None:
        if len(trained.dataset.split.revealed):
            pytest.skip("some are revealed here, and learned from")
        other = with_target_ratings(tiny_pair(), lambda r: r % 5 + 1, tokens_of(trained, "valid"))
        choosing = {"select_epoch": "valid"} if "select_epoch" in trained.config.keys else {}
        runs = [
            self.build(path, **choosing).fit() for path in (data_path, write_world(other, tmp_path))
        ]
        ratings, states = (
            [run.dataset.split.valid.rating.tolist() for run in runs],
            [run.trainer.epochs_seen or {("", 0): snapshot(run.model)} for run in runs],
        )
        assert ratings[0] != ratings[1]
        assert states[0].keys() == states[1].keys()
        for epoch, state in states[0].items():
            assert not changed(state, states[1][epoch]), epoch

    def test_runs_each_of_its_tasks(self, data_path: Path, eval_task: str) -> None:
        result = run_mm(data_path, **{**self.config, "eval_task": eval_task})
        metrics = {"rating": {"MAE", "RMSE"}, "ranking": {"Recall@10", "NDCG@10"}}[eval_task]
        for part in ("valid", "test"):
            assert metrics <= result[part].keys()
            assert np.isfinite([*result[part].values()]).all()

    def test_runs_in_stock_recbole(self, data_path: Path) -> None:
        task = self.tasks()[0]
        values = {**QUIET, **self.config, "eval_task": task, "data_path": str(data_path)}
        values["checkpoint_dir"] = str(data_path / "stock")
        register()
        # RecBole's own function opens a log file and never closes it, which pytest makes an error.
        with mock.patch("recbole.quick_start.quick_start.init_logger"):
            stock = run_recbole(dataset="tiny", config_dict=values)["test_result"]
        ours = run_mm(data_path, **{**self.config, "eval_task": task})["test"]
        assert dict(stock) == {name.lower(): value for name, value in ours.items()}

    def test_refuses_other_tasks(self, data_path: Path) -> None:
        for task in {"rating", "ranking"} - {*self.model_class().eval_tasks}:
            with pytest.raises(ConfigError, match=f"{self.config['model']} does .* only. Give"):
                self.build(data_path, eval_task=task)

    def test_learns_a_planted_world(
        self, tmp_path_factory: pytest.TempPathFactory, planted: str
    ) -> None:
        base = tmp_path_factory.getbasetemp()
        floor = planted_rmse(base, planted, model="BiasTransfer")
        rmse = planted_rmse(base, planted, **self.config)
        assert rmse < SOLVED * floor


class DistributionChecks:
    """What every model with a rating distribution must pass, beside `ModelChecks`."""

    def test_probabilities(self, trained: Run) -> None:
        user, item = map(torch.from_numpy, pairs_of_both_kinds(trained))
        values = trained.model.rating_values
        assert values.tolist() == sorted(set(trained.dataset.split.train.rating.tolist()))
        trained.model.eval()
        with torch.no_grad():
            found = trained.model.rating_probabilities(user, item)
            alone = trained.model.rating_probabilities(user[7:8], item[7:8])
        assert found.shape == (len(user), len(values))
        assert (found >= 0).all()
        torch.testing.assert_close(found.sum(1), torch.ones(len(user)))
        torch.testing.assert_close(alone, found[7:8])

    def test_predicts_the_point_estimate_asked_for(self, data_path: Path) -> None:
        for name in ("mean", "median"):
            run = self.build(data_path, point_estimate=name).fit()  # type: ignore[attr-defined]
            user, item = pairs_of_both_kinds(run)
            ids = torch.from_numpy(user), torch.from_numpy(item)
            scores = run.scores(user, item)
            with torch.no_grad():
                expected = run.model.rate(*ids)
                if name == "median":
                    probabilities = run.model.rating_probabilities(*ids)
                    expected = median(probabilities, run.model.rating_values)
            np.testing.assert_array_equal(scores, expected.numpy().astype(np.float64))

    @pytest.mark.parametrize("name", ["mean", "median"])
    def test_estimates_are_those_of_the_saved_rows(
        self, data_path: Path, tmp_path: Path, name: str
    ) -> None:
        file = tmp_path / "predictions.npz"
        values = {**self.config, "point_estimate": name}  # type: ignore[attr-defined]
        result = run_mm(data_path, **values, eval_task="rating", save_predictions=str(file))
        for part in ("valid", "test"):
            assert result["estimates"][part][name] == result[part]
        estimates = result["estimates"]["test"]
        with np.load(file, allow_pickle=False) as saved:
            rows = dict(saved)
        np.testing.assert_array_equal(rows["prediction"], rows[name])
        rating = rows["rating"]
        for estimate in ("mean", "median"):
            error = rows[estimate].astype(np.float64) - rating
            assert estimates[estimate]["MAE"] == pytest.approx(np.abs(error).mean(), abs=2e-6)
            rmse = np.sqrt(np.mean(error**2))
            assert estimates[estimate]["RMSE"] == pytest.approx(rmse, abs=2e-6)
        inside = (rows["low"] <= rating) & (rating <= rows["high"])
        assert estimates["interval"] == {
            "level": 0.8,
            "probability": pytest.approx(rows["probability"].mean(), abs=1e-6),
            "coverage": pytest.approx(inside.mean()),
            "width": pytest.approx((rows["high"] - rows["low"]).mean()),
        }
        assert (rows["probability"] >= 0.8 - 1e-5).all()

    def test_comes_back_from_the_checkpoint(self, data_path: Path, trained: Run) -> None:
        _, model, *_ = load_data_and_model(trained.trainer.saved_model_file)
        ids = [torch.from_numpy(column) for column in pairs_of_both_kinds(trained)]
        with torch.no_grad():
            found, expected = (m.rating_probabilities(*ids) for m in (model, trained.model.eval()))
        assert torch.equal(found, expected)


class FloorChecks:
    """What every floor of ratings must pass, beside `ModelChecks`."""

    def test_a_constant_moves_every_prediction_by_itself(self, tmp_path: Path) -> None:
        pair = tiny_pair()
        moved = dataclasses.replace(
            pair,
            source_inter=pair.source_inter.assign(rating=pair.source_inter["rating"] + 2.5),
            target_inter=pair.target_inter.assign(rating=pair.target_inter["rating"] + 2.5),
        )
        wide = {"rating_range": [0, 20]}  # so that nothing is clipped
        runs = [
            self.build(write_world(each, tmp_path / name), **wide).fit()  # type: ignore[attr-defined]
            for name, each in (("as_it_is", pair), ("moved", moved))
        ]
        before, after = (run.scores(*pairs_of_both_kinds(run)) for run in runs)
        np.testing.assert_allclose(after, before + 2.5, rtol=1e-5)
        first, second = (run.evaluate() for run in runs)
        assert first == pytest.approx(second, abs=1e-5)


def noise(scores: torch.Tensor, seed: int) -> torch.Tensor:
    """What `break_ties` orders ties by."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(scores.shape, generator=generator, dtype=torch.float64)
