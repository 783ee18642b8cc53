"""RecBole's own models on a pair: all of them, in each task they claim, and what they refuse."""

from __future__ import annotations

import importlib
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import recbole
import torch
from model_checks import noise
from recbole.model.abstract_recommender import ContextRecommender, GeneralRecommender
from recbole.model.context_aware_recommender.fm import FM

from dataset_tools.synthetic import make_pair, write_pair
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.samplers import TrainingSampler
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.collector import ColdStartCollector
from recbole_cdr_mm.evaluation.ranking import Candidates, break_ties
from recbole_cdr_mm.quick_start import main, run_recbole_mm
from recbole_cdr_mm.recbole_models import (
    RECBOLE_MODELS,
    _refusal,
    build_model,
    check_config,
    markdown_table,
)
from recbole_cdr_mm.trainer import recbole_trainer

ROOT = Path(__file__).resolve().parents[1]
N_ITEMS = 40
TASKS = {
    "ranking": list(RECBOLE_MODELS),
    "rating": [name for name, model in RECBOLE_MODELS.items() if not model.no_ratings],
}
# Models that the tiny pair is too small for as they are.
SMALLER: dict[str, dict[str, Any]] = {
    "DGCF": {"train_batch_size": 128},
    "NCL": {"num_clusters": 5},
    "RaCT": {"pretrain_epochs": 1, "metrics_k": 20},
}

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recbole_models")
    pair = make_pair(
        "demo",
        n_overlapped=80,
        n_source_only=10,
        n_target_only=20,
        n_source_items=N_ITEMS,
        n_target_items=N_ITEMS,
        source_ratings_per_user=10,
        target_ratings_per_user=10,
        integer_ratings=True,
        seed=3,
    )
    write_pair(pair, folder, "pair")
    return folder


def settings(data_path: Path, **values: Any) -> dict[str, Any]:
    return {
        "data_path": str(data_path),
        "checkpoint_dir": "saved",
        "epochs": 1,
        "topk": [10, 20],
        "show_progress": False,
        "state": "ERROR",
        "use_gpu": False,
        **values,
    }


@pytest.fixture
def run(data_path: Path) -> Run:
    def run_model(model: str, task: str, **values: Any) -> dict[str, Any]:
        config = settings(data_path, eval_task=task, **values)
        return run_recbole_mm(model, "pair", config_dict=config)

    return run_model


@pytest.fixture(scope="module")
def floors(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What our own floors give on the same split, by task."""
    folder = str(tmp_path_factory.mktemp("floors"))
    return {
        task: run_recbole_mm(
            model, "pair", config_dict=settings(data_path, eval_task=task, checkpoint_dir=folder)
        )
        for model, task in (("Popularity", "ranking"), ("GlobalMean", "rating"))
    }


@dataclass
class Recommended:
    """The scores of all evaluated batches, as RecBole's metrics see them."""

    scores: list[torch.Tensor] = field(default_factory=list)


@pytest.fixture
def recommended(monkeypatch: pytest.MonkeyPatch) -> Recommended:
    seen = Recommended()
    collect = ColdStartCollector.eval_batch_collect

    def spy(self: ColdStartCollector, scores: torch.Tensor, *args: Any) -> None:
        seen.scores.append(scores)
        collect(self, scores, *args)

    monkeypatch.setattr(ColdStartCollector, "eval_batch_collect", spy)
    return seen


def pair_of(data_path: Path, model: str, **values: Any) -> PairDataset:
    return PairDataset(MMConfig(model, "pair", config_dict=settings(data_path, **values)))


def is_finite(metrics: dict[str, float]) -> bool:
    return bool(metrics) and all(math.isfinite(value) for value in metrics.values())


# Discovery


def models_of(folder: str, base: type) -> set[str]:
    """The model classes in the files of one of RecBole's folders."""
    files = sorted((Path(recbole.__file__).parent / "model" / folder).glob("[!_]*.py"))
    found = set()
    for file in files:
        module = importlib.import_module(f"recbole.model.{folder}.{file.stem}")
        found |= {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base) and name.lower() == file.stem
        }
    assert len(found) == len(files) > 0
    return found


@pytest.mark.parametrize(
    ("folder", "base", "kind"),
    [
        ("general_recommender", GeneralRecommender, "general"),
        ("context_aware_recommender", ContextRecommender, "context-aware"),
    ],
)
def test_the_table_holds_all_models_of_recbole(folder: str, base: type, kind: str) -> None:
    listed = {name for name, model in RECBOLE_MODELS.items() if model.kind == kind}
    assert listed == models_of(folder, base)


def test_the_readme_lists_all_models() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    for start, rates in (("| rating and ranking |", True), ("| ranking only |", False)):
        (row,) = (line for line in lines if line.startswith(start))
        for kind, cell in zip(("general", "context-aware"), row.split("|")[2:4], strict=True):
            named = [
                name
                for name, model in RECBOLE_MODELS.items()
                if model.kind == kind and (not model.no_ratings) == rates
            ]
            assert cell.strip() == ", ".join(named)


def test_the_docs_hold_the_table() -> None:
    assert markdown_table() in (ROOT / "docs" / "recbole_models.md").read_text(encoding="utf-8")


# Each model in each task


@pytest.mark.parametrize("model", TASKS["ranking"])
def test_ranks(
    model: str, run: Run, floors: dict[str, dict[str, Any]], recommended: Recommended
) -> None:
    library = RECBOLE_MODELS[model].library
    if library and importlib.util.find_spec(library) is None:
        with pytest.raises(ConfigError, match=f"{model} needs the library `{library}`"):
            run(model, "ranking")
        return
    result = run(model, "ranking", **SMALLER.get(model, {}))
    assert is_finite(result["test"])
    assert is_finite(result["valid"])
    for key in ("data", "rows"):
        assert result[key] == floors["ranking"][key]
    assert result["config"]["data_fingerprint"] == floors["ranking"]["config"]["data_fingerprint"]
    assert recommended.scores
    first_target_item = 1 + N_ITEMS
    for scores in recommended.scores:
        assert torch.isneginf(scores[:, :first_target_item]).all()
        assert torch.isfinite(scores[:, first_target_item:]).all()


@pytest.mark.parametrize("model", TASKS["rating"])
def test_predicts_ratings(model: str, run: Run, floors: dict[str, dict[str, Any]]) -> None:
    result = run(model, "rating", save_predictions="rows.npz")
    rows = np.load("rows.npz")
    assert is_finite(result["test"])
    for key in ("data", "rows"):
        assert result[key] == floors["rating"][key]
    assert len(rows["prediction"]) == result["rows"]["test"]
    assert rows["prediction"].min() >= 1
    assert rows["prediction"].max() <= 5
    error = rows["prediction"].astype(float) - rows["rating"]
    assert result["test"]["RMSE"] == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-5)


@pytest.mark.parametrize("model", TASKS["rating"])
def test_training_brings_ratings_close_to_the_mean_or_closer(
    model: str, run: Run, floors: dict[str, dict[str, Any]]
) -> None:
    values = {"learning_rate": 0.01, "train_batch_size": 256}
    untrained = run(model, "rating", epochs=1, **values | {"learning_rate": 1e-12})["test"]["RMSE"]
    trained = run(model, "rating", epochs=8, **values)["test"]["RMSE"]
    assert trained < untrained
    assert trained < 1.15 * floors["rating"]["test"]["RMSE"]


@pytest.mark.parametrize("model", sorted(RECBOLE_MODELS.keys() - set(TASKS["rating"])))
def test_says_why_it_predicts_no_ratings(model: str, run: Run) -> None:
    expected = f"{model} {RECBOLE_MODELS[model].no_ratings}. Give --eval_task=ranking."
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        run(model, "rating")


def test_the_command_prints_the_reason_and_exits_with_2(
    data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model=BPR", "--dataset=pair", f"--data_path={data_path}"]) == 2
    assert capsys.readouterr().err == (
        "ConfigError: BPR is trained on pairs of items and predicts no ratings."
        " Give --eval_task=ranking.\n"
    )


def test_a_class_of_the_users_own_may_try() -> None:
    class BPR(FM):
        """Has the name of a model that predicts no ratings."""

    check_config(BPR, {"eval_task": "rating"})


# Which rows are trained on


def test_target_domain_alone_trains_on_no_source_row(run: Run) -> None:
    alone, both = (run("FM", "rating", train_domains=domains) for domains in ("target", "both"))
    assert alone["stages"][0]["examples"] == alone["rows"]["train"]
    assert both["stages"][0]["examples"] == both["rows"]["train"] + both["rows"]["source"]


@pytest.mark.parametrize("train_domains", ["target", "both"])
def test_source_ratings_matter_only_where_they_are_trained_on(
    train_domains: str, run: Run, data_path: Path, tmp_path: Path
) -> None:
    for name in ("pair", "pair_movie", "pair_cd"):
        (tmp_path / name).mkdir()
        for file in (data_path / name).iterdir():
            text = file.read_text(encoding="utf-8")
            if file.name == "pair_movie.inter":
                header, *lines = (line.split("\t") for line in text.splitlines())
                place = header.index("rating:float")
                for line in lines:
                    line[place] = str(6 - float(line[place]))
                text = "".join("\t".join(line) + "\n" for line in [header, *lines])
            (tmp_path / name / file.name).write_text(text, encoding="utf-8")
    config = settings(tmp_path, eval_task="rating", train_domains=train_domains)
    turned = run_recbole_mm("FM", "pair", config_dict=config)
    as_it_was = run("FM", "rating", train_domains=train_domains)
    assert (turned["test"] == as_it_was["test"]) == (train_domains == "target")


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_negatives_of_the_target_domain_alone_are_target_items(
    distribution: str, data_path: Path
) -> None:
    arguments = {"distribution": distribution, "sample_num": 1, "alpha": 1.0, "dynamic": False}
    data = pair_of(
        data_path,
        "BPR",
        eval_task="ranking",
        train_domains="target",
        train_neg_sample_args=arguments,
    )
    train = data.build()[0]
    users = train.inter_feat["user_id"]
    sampler = TrainingSampler(data.config, train).set_phase("train")
    negatives = sampler.sample_by_user_ids(users, None, 20).numpy()
    assert negatives.min() > N_ITEMS
    rated = set(zip(users.tolist(), train.inter_feat["item_id"].tolist(), strict=True))
    assert rated.isdisjoint(zip(np.tile(users, 20).tolist(), negatives.tolist(), strict=True))


def test_negatives_of_both_domains_are_items_of_both(data_path: Path) -> None:
    data = pair_of(data_path, "BPR", eval_task="ranking")
    sampler = TrainingSampler(data.config, data.build()[0])
    assert set(sampler.sampling(2000)) == set(range(1, 1 + 2 * N_ITEMS))


# Labels and stars


def test_labels_lie_between_0_and_1(data_path: Path) -> None:
    train = pair_of(data_path, "FM", eval_task="rating").build()[0].inter_feat
    np.testing.assert_allclose(train["label"], (train["rating"] - 1) / 4)
    assert set(train["label"].tolist()) == {0, 0.25, 0.5, 0.75, 1}


# Ties and masks


def test_ties_are_broken_at_random(run: Run, recommended: Recommended, data_path: Path) -> None:
    """EASE on the target domain alone knows nothing of cold-start users: all their scores are 0."""
    split = pair_of(data_path, "EASE", eval_task="ranking").split
    positives = np.bincount(split.test.user)
    positives = positives[positives > 0]
    gain = 1 / np.log2(np.arange(2, 12))
    ideal = np.array([gain[:n].sum() for n in positives])
    expected = np.mean(positives / N_ITEMS * gain.sum() / ideal)

    seeds = range(30)
    ndcg = [
        run("EASE", "ranking", train_domains="target", seed=seed)["test"]["NDCG@10"]
        for seed in seeds
    ]
    error = np.std(ndcg) / len(seeds) ** 0.5
    assert abs(np.mean(ndcg) - expected) < 4 * error
    best = torch.cat([scores.topk(10).indices for scores in recommended.scores])
    counts = torch.bincount(best.flatten(), minlength=1 + 2 * N_ITEMS)[1 + N_ITEMS :]
    assert counts.min() > 0.6 * counts.float().mean()
    assert counts.max() < 1.4 * counts.float().mean()


def test_source_items_are_no_candidates(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """EASE finds the source items that a cold-start user has nearer than any target item."""
    masked = run("EASE", "ranking", reg_weight=1.0)["test"]
    monkeypatch.setattr(Candidates, "only", lambda candidates, scores, user: scores)
    unmasked = run("EASE", "ranking", reg_weight=1.0)["test"]
    assert masked["Hit@10"] > 0.5
    assert unmasked["Recall@10"] < masked["Recall@10"] / 2


def test_different_scores_keep_their_order() -> None:
    starts = np.float32([-3e38, -1.0, -1e-30, -1e-45, 0.0, 1e-45, 1e-38, 0.5, 1.0, 1e30])
    values = {s for start in starts for s in (start, np.nextafter(start, np.float32(np.inf)))}
    ordered = torch.tensor(np.sort(np.float32(list(values))))
    for seed in range(50):
        ties = break_ties(ordered[None].clone(), noise(ordered[None], seed))
        assert (ties.diff() > 0).all()


def test_equal_scores_come_in_different_orders() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0], [2.5, 2.5, -torch.inf], [-1.0, -1.0, -1.0]])
    orders = {
        tuple(map(tuple, break_ties(scores, noise(scores, s)).argsort().tolist()))
        for s in range(1000)
    }
    assert len(orders) == 6 * 2 * 6


# Beyond accuracy

BEYOND = ["ItemCoverage", "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage"]


def test_metrics_beyond_accuracy_are_about_target_items(
    run: Run, data_path: Path, recommended: Recommended
) -> None:
    values = {"metrics": ["NDCG", *BEYOND], "topk": [10, N_ITEMS]}
    result = run("Popularity", "ranking", **values)["test"]
    split = pair_of(data_path, "Popularity", eval_task="ranking").split
    counts = np.bincount(split.train.item, minlength=1 + 2 * N_ITEMS)[1 + N_ITEMS :]
    n_test = len(np.unique(split.test.user))
    lists = torch.cat([s.topk(10).indices for s in recommended.scores])[-n_test:].numpy()
    assert result["ItemCoverage@10"] == pytest.approx(len(np.unique(lists)) / N_ITEMS)
    assert result[f"ItemCoverage@{N_ITEMS}"] == 1
    assert result["AveragePopularity@10"] == pytest.approx(np.sort(counts)[-10:].mean())
    assert result[f"GiniIndex@{N_ITEMS}"] == pytest.approx(0)
    assert result[f"TailPercentage@{N_ITEMS}"] == pytest.approx(0.1)
    assert result["TailPercentage@10"] == 0


@pytest.mark.parametrize("model", ["BPR", "EASE", "RaCT", "FM"])
@pytest.mark.parametrize("metric", BEYOND)
def test_each_metric_beyond_accuracy_runs_alone(metric: str, model: str, run: Run) -> None:
    values = {"metrics": [metric], "valid_metric": f"{metric}@10", **SMALLER.get(model, {})}
    assert is_finite(run(model, "ranking", **values)["test"])


def test_no_more_items_are_recommended_than_there_are(run: Run) -> None:
    with pytest.raises(ConfigError, match=f"more than the {N_ITEMS} target items"):
        run("BPR", "ranking", topk=[10, N_ITEMS + 1])


# What is refused

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("NNCF", "ranking", {"neigh_info_method": "knn"}, "Give --neigh_info_method=random or --"),
    ("DMF", "rating", {"inter_matrix_type": "rating"}, "Give --inter_matrix_type=01"),
    ("NAIS", "rating", {"train_domains": "target"}, "Give --train_domains=both"),
    ("KD_DAGFM", "rating", {"teacher": "print(1)"}, "Give --teacher=CrossNet or --teacher=CIN"),
    ("FM", "rating", {"numerical_features": ["rating"]}, "no numbers beside them"),
    ("DGCF", "ranking", {"train_domains": "target"}, "Give --train_batch_size="),
    ("DMF", "ranking", {"user_hidden_size_list": [8]}, "DMF refuses its configuration: `assert"),
    ("CDAE", "ranking", {"hid_activation": "gelu"}, "CDAE refuses its configuration: Invalid"),
    ("RaCT", "ranking", {"train_stage": "finetune", "pre_model_path": "x.pth"}, "no file `x.pth`"),
    ("FISM", "ranking", {"alpha": 0.5, "train_domains": "target"}, "scores of cold-start users"),
    ("MultiVAE", "ranking", {"learning_rate": 1.0, "epochs": 9}, "training loss is no number"),
]


@pytest.mark.parametrize(
    ("model", "task", "values", "text"),
    REFUSED,
    ids=[f"{m}-{t}-{next(iter(v))}" for m, t, v, _ in REFUSED],
)
def test_refuses_with_one_clear_error(
    model: str, task: str, values: dict[str, Any], text: str, run: Run
) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        run(model, task, **values)


@pytest.mark.parametrize(
    ("model", "task", "values"),
    [
        ("NNCF", "ranking", {"neigh_info_method": "random"}),
        ("DMF", "ranking", {"inter_matrix_type": "rating"}),
        ("NAIS", "ranking", {"train_domains": "target"}),
        ("KD_DAGFM", "rating", {"teacher": "CIN"}),
        ("FISM", "ranking", {"alpha": 0.5}),
        ("CDAE", "ranking", {"hid_activation": "tanh"}),
    ],
)
def test_takes_what_differs_in_one_thing(
    model: str, task: str, values: dict[str, Any], run: Run
) -> None:
    assert is_finite(run(model, task, **values)["test"])


def test_the_batch_size_that_dgcf_is_told_fits(run: Run) -> None:
    with pytest.raises(ConfigError) as error:
        run("DGCF", "ranking", train_domains="target")
    fits = int(re.findall(r"--train_batch_size=(\d+)", str(error.value))[0])
    result = run("DGCF", "ranking", train_domains="target", train_batch_size=fits)
    assert is_finite(result["test"])


@pytest.mark.parametrize("model", ["EASE", "ADMMSLIM", "AsymKNN", "NNCF"])
def test_says_how_much_memory_is_needed_before_it_is_taken(
    model: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 4000

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(ConfigError, match=rf"{model} needs about [\d.]+ GiB .* GiB are available"):
        run(model, "ranking")


def test_an_error_that_is_no_refusal_stays_what_it_is(data_path: Path) -> None:
    def raise_here() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug") as error:
        raise_here()
    assert _refusal(error.value) is None

    data = pair_of(data_path, "FM", eval_task="rating")
    data.config["embedding_size"] = "ten"  # past the door, so no user can have given it
    with pytest.raises(TypeError):
        build_model(data.config, data.build()[0])


def test_ract_trains_in_three_runs(run: Run) -> None:
    values = {"pretrain_epochs": 2, "metrics_k": 20}
    path = ""
    for stage in ("actor_pretrain", "critic_pretrain", "finetune"):
        before = set(Path("saved").glob("*"))
        result = run("RaCT", "ranking", train_stage=stage, pre_model_path=path, **values)
        written = set(Path("saved").glob("*.pth")) - before
        (path,) = (str(file) for file in written if not file.name.endswith(".last.pth"))
        assert is_finite(result["test"])
    assert result["stages"][0]["epochs"] == 1


# Going on


class KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def killed_in_epoch(epoch: int) -> Iterator[None]:
    """End what runs in the block when an epoch is trained, before anything of it is kept."""
    train_epoch = recbole_trainer.ResumableEpochs._train_epoch

    def train(self: Any, data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        loss = train_epoch(self, data, epoch_idx, *args, **kwargs)
        if epoch_idx == epoch:
            raise KilledError
        return loss

    with (
        mock.patch.object(recbole_trainer.ResumableEpochs, "_train_epoch", train),
        pytest.raises(KilledError),
    ):
        yield


def without_clock(result: dict[str, Any]) -> dict[str, Any]:
    stages = [
        {key: value for key, value in stage.items() if "second" not in key}
        for stage in result["stages"]
    ]
    return {"stages": stages, "valid": result["valid"], "test": result["test"]}


@pytest.mark.parametrize(
    ("model", "task", "learning_rate"),
    [
        ("BPR", "ranking", 0.01),
        ("BPR", "ranking", 1.0),  # the best epoch comes before the end
        ("FM", "rating", 0.01),
        ("FM", "rating", 1.0),
        ("RecVAE", "ranking", 0.01),  # has two optimisers
        ("MultiVAE", "ranking", 0.01),  # counts its batches
        ("DiffRec", "ranking", 0.01),  # keeps a history of losses
    ],
)
def test_a_killed_run_goes_on_to_the_same_end(
    model: str, task: str, learning_rate: float, run: Run
) -> None:
    values = {"epochs": 6, "learning_rate": learning_rate, "train_batch_size": 256}
    unkilled = run(model, task, checkpoint_dir="unkilled", **values)
    with killed_in_epoch(3):
        run(model, task, **values)
    resumed = run(model, task, resume=True, **values)
    assert without_clock(resumed) == without_clock(unkilled)


def test_goes_on_from_a_checkpoint_of_another_folder(run: Run) -> None:
    values = {"epochs": 5, "learning_rate": 1.0}
    unkilled = run("FM", "rating", checkpoint_dir="unkilled", **values)
    with killed_in_epoch(3):
        run("FM", "rating", checkpoint_dir="killed", **values)
    (last,) = Path("killed").glob("*.last.pth")
    resumed = run("FM", "rating", checkpoint_dir="elsewhere", resume=str(last), **values)
    assert without_clock(resumed) == without_clock(unkilled)


def test_a_run_killed_by_the_system_goes_on_to_the_same_end(run: Run, data_path: Path) -> None:
    values = {"epochs": 4, "learning_rate": 0.01}
    code = f"""
import os, signal
from recbole_cdr_mm import compat
compat.apply()
from recbole_cdr_mm.quick_start import run_recbole_mm
from recbole_cdr_mm.trainer import recbole_trainer
train_epoch = recbole_trainer.ResumableEpochs._train_epoch
def train(self, data, epoch_idx, *args, **kwargs):
    if epoch_idx == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(self, data, epoch_idx, *args, **kwargs)
recbole_trainer.ResumableEpochs._train_epoch = train
run_recbole_mm("BPR", "pair", config_dict={settings(data_path, eval_task="ranking", **values)})
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    resumed = run("BPR", "ranking", resume=True, **values)
    unkilled = run("BPR", "ranking", checkpoint_dir="unkilled", **values)
    assert without_clock(resumed) == without_clock(unkilled)


def test_without_validation_users_the_last_epoch_counts(run: Run) -> None:
    result = run("BPR", "ranking", epochs=3, valid_user_ratio=0)
    assert result["valid"] is None
    assert result["stages"][0]["best_epoch"] == 3


def test_nothing_is_kept_where_nothing_is_to_be_saved(data_path: Path) -> None:
    config = settings(data_path, eval_task="ranking", epochs=3)
    run_recbole_mm("BPR", "pair", config_dict=config, saved=False)
    assert not list(Path("saved").glob("*"))
