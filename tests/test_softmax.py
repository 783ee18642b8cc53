"""`loss_type: CE` against plain NumPy: base models, bridges and the few-shot stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bridge_checks import PersonalisedReference, Reference
from model_checks import (
    PLANTED,
    TINY,
    Run,
    build_run,
    planted_world,
    result_of,
    tiny_pair,
    write_world,
)
from test_cmf import score as score_of_cmf
from test_cmf import squared_norms
from test_emcdr import transformed as mapped
from test_few_shot import FewShotReference, errors_and_distances, fitted, target_items
from test_metammcdr import NO_FLOOR, MetaReference
from test_resume import kill

CE: dict[str, Any] = {"eval_task": "ranking", "loss_type": "CE"}
DENOMINATORS: dict[str, dict[str, Any]] = {
    "all": {**CE, "ce_negatives": None},
    "seven": {**CE, "ce_negatives": 7},
}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


@pytest.fixture(params=DENOMINATORS)
def denominator(request: pytest.FixtureRequest) -> dict[str, Any]:
    return DENOMINATORS[request.param]


def build(data_path: Path, **values: Any) -> Run:
    return build_run(data_path, **{**TINY, "learning_rate": 0.03, "select_epoch": "last", **values})


def rows_of(batch: Any, everything: Callable[[int], np.ndarray]) -> list[tuple[int, int, Any]]:
    """User, item and the items of the denominator of each row."""
    users, items = batch["user_id"].tolist(), batch["item_id"].tolist()
    others = [everything(item) for item in items]
    if "neg_item_id" in batch:
        negative = batch["neg_item_id"].tolist()
        others = [np.array([item, *row]) for item, row in zip(items, negative, strict=True)]
    return list(zip(users, items, others, strict=True))


def cross_entropy(score: Callable[[int, int], float], user: int, item: int, among: Any) -> float:
    """-log of the softmax, one score at a time."""
    return float(np.log(sum(np.exp(score(user, other)) for other in among)) - score(user, item))


def test_no_more_negatives_are_drawn_than_there_are_items(data_path: Path) -> None:
    run = build(data_path, model="TargetMF", **CE, ce_negatives=100_000)
    items = run.dataset.pair.items("target")
    assert run.model.n_negatives == items.stop - items.start < 120
    assert build(data_path, model="TargetMF", **CE, ce_negatives=7).model.n_negatives == 7


# Base models


@pytest.mark.parametrize("base_model", ["MF", "GMF"])
@pytest.mark.parametrize("values", [{}, {"pretrain_item_features": "both"}], ids=str)
def test_of_a_base_model(
    data_path: Path, denominator: dict[str, Any], base_model: str, values: dict[str, Any]
) -> None:
    run = build(
        data_path, model="TargetMF", base_model=base_model, reg_weight=0.3, **denominator, **values
    ).fit()
    (stage,) = run.model.stages(run.dataset, None)
    batch = next(iter(stage.training.loader))[:20]
    base = run.model.target

    def score(user: int, item: int) -> float:
        return base(torch.tensor([user]), torch.tensor([item])).item()

    rows = rows_of(batch, lambda _: target_items(run))
    expected = np.mean([cross_entropy(score, *row) for row in rows])
    norms = base.score_with_norms(batch["user_id"], batch["item_id"])[1].mean().item()
    assert stage.training.loss(batch).item() == pytest.approx(expected + 0.3 * norms, rel=1e-4)


def test_of_both_domains_each_with_its_own_items(
    data_path: Path, denominator: dict[str, Any]
) -> None:
    weights = {"source_loss_weight": 0.25, "reg_weight": 0.3}
    run = build(data_path, model="CMF", base_model="GMF", **weights, **denominator).fit()
    (stage,) = run.model.stages(run.dataset, None)
    batch = next(iter(stage.training.loader))
    first, n_items = run.dataset.pair.items("target").start, run.dataset.pair.n_items
    domains = {False: np.arange(1, first), True: np.arange(first, n_items)}
    rows = rows_of(batch, lambda item: domains[item >= first])
    losses = [
        cross_entropy(lambda u, i: score_of_cmf(run, u, i), *row)
        + 0.3 * squared_norms(run, *row[:2])
        for row in rows
    ]
    is_target = batch["item_id"].numpy() >= first
    assert 0 < is_target.sum() < len(is_target)
    expected = np.average(losses, weights=np.where(is_target, 1.0, 0.25))
    assert stage.training.loss(batch).item() == pytest.approx(expected, rel=1e-4)


def test_items_rise_that_are_liked_more_than_they_are_expected(data_path: Path) -> None:
    """The gradient on an item's bias is its expected number of positives less the true one."""
    run = build(data_path, model="TargetMF", reg_weight=0.0, **DENOMINATORS["all"]).fit()
    (stage,) = run.model.stages(run.dataset, None)
    batch = next(iter(stage.training.loader))
    base, items = run.model.target, torch.from_numpy(target_items(run))
    run.model.zero_grad()
    stage.training.loss(batch).backward()
    expected = np.zeros(len(items))
    for user, item in zip(batch["user_id"], batch["item_id"], strict=True):
        share = np.exp(base(user.expand(len(items)), items).detach().numpy().astype(np.float64))
        expected += share / share.sum() - (items == item).numpy()
    found = base.items.table.rows.weight.grad.to_dense()[1:, -1]
    np.testing.assert_allclose(found, expected / len(batch), atol=1e-6)
    assert found.sum().item() == pytest.approx(0, abs=1e-6)


def test_negatives_are_none_of_the_users_positives(data_path: Path) -> None:
    run = build(data_path, model="PTUPCDR", **CE)
    parts = {"source": run.dataset.pair.source, "target": run.dataset.split.train}
    for stage in run.model.stages(run.dataset, None):
        domain = "source" if stage.name == "source" else "target"
        ids, rows = run.dataset.pair.items(domain), parts[domain]
        known = set(zip(rows.user.tolist(), rows.item.tolist(), strict=True))
        for batch in stage.training.loader:
            negative = batch["neg_item_id"]
            assert negative.shape == (len(batch), 100)
            assert ids.start <= negative.min() <= negative.max() < ids.stop
            pairs = zip(batch["user_id"].tolist(), negative.tolist(), strict=True)
            assert not known & {(user, item) for user, items in pairs for item in items}


# Bridges


@pytest.mark.parametrize(
    ("values", "kind", "transformed"),
    [
        ({"model": "PTUPCDR"}, PersonalisedReference, PersonalisedReference.transformed),
        (
            {"model": "PTUPCDR", "preset": "paper", "base_model": "GMF"},
            PersonalisedReference,
            PersonalisedReference.transformed,
        ),
        ({"model": "EMCDR", "bridge_loss": "task"}, Reference, mapped),
        (
            {"model": "MetaMMCDR", "target_item_features": "both", **NO_FLOOR},
            MetaReference,
            MetaReference.transformed,
        ),
    ],
    ids=["PTUPCDR", "PTUPCDR-GMF", "EMCDR-task", "MetaMMCDR"],
)
def test_of_a_bridge(
    data_path: Path,
    denominator: dict[str, Any],
    values: dict[str, Any],
    kind: type[Reference],
    transformed: Callable[[Any, int], np.ndarray],
) -> None:
    run = build(data_path, bridge_reg_weight=0.4, **denominator, **values).fit()
    stage = run.model.stages(run.dataset, None)[-1]
    run.model.train()
    batch = next(iter(stage.training.loader))
    reference = kind(run)
    view = reference.view()
    bridged = {user: transformed(reference, user) for user in {*batch["user_id"].tolist()}}

    def score(user: int, item: int) -> float:
        return reference.cold(view, bridged[user], user, item)

    rows = rows_of(batch, lambda _: target_items(run))[:30]
    batch = batch[:30]
    users = {user for user, *_ in rows}
    penalty = np.mean([np.sum(bridged[user] ** 2) for user in users])
    expected = np.mean([cross_entropy(score, *row) for row in rows]) + 0.4 * penalty
    assert stage.training.loss(batch).item() == pytest.approx(expected, rel=1e-4)


# Few-shot


@pytest.mark.parametrize("model", ["PTUPCDR", "MetaMMCDR"])  # floors of items, and of pairs
@pytest.mark.parametrize("start", ["transformed", "mean"])
def test_of_the_initialisation_stage(
    data_path: Path, denominator: dict[str, Any], model: str, start: str
) -> None:
    own = {"few_shot_start": start, "few_shot_shrinkage": 0.7, "few_shot_learning_rate": 0.1}
    run = fitted(data_path, model=model, **own, **denominator)
    (batch,) = run.model.stages(run.dataset, None)[-1].training.loader
    loss = run.model.stages(run.dataset, None)[-1].training.loss(batch).item()
    reference = FewShotReference(run)
    rows = rows_of(batch, lambda _: target_items(run))
    expected = np.mean([cross_entropy(reference.score, *row) for row in rows])
    batch["neg_item_id"] = torch.zeros(len(batch), 0, dtype=torch.int64)
    _, distance = errors_and_distances(reference, batch)
    assert loss == pytest.approx(expected + 0.7 * distance, rel=1e-4)


# Whole runs


def test_learns_as_much_as_bpr(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One linear map carries cold-start users' tastes over; which items they rated is luck."""
    data_path, _ = planted_world(tmp_path_factory.getbasetemp(), "one_linear_map")

    def recall(**values: Any) -> float:
        values = {"eval_task": "ranking", **PLANTED, **values}
        return build_run(data_path, "planted", **values).fit().evaluate()["recall@20"]

    without_transfer = recall(model="TargetMF")
    bridge = {"model": "EMCDR", "bridge_loss": "task"}
    pairs, *softmax = (recall(**bridge, **values) for values in ({}, *DENOMINATORS.values()))
    assert min(softmax) > max(0.95 * pairs, 1.15 * without_transfer)


@pytest.mark.parametrize("stage", ["target", "bridge"])
def test_goes_on_after_a_kill(
    data_path: Path, tmp_path: Path, denominator: dict[str, Any], stage: str
) -> None:
    values = {"model": "PTUPCDR", **TINY, "epochs": 4, **denominator}
    whole = result_of(data_path, tmp_path / "whole", **values)
    kill(data_path, tmp_path, stage, values)
    assert result_of(data_path, tmp_path, **values, resume=True) == whole
