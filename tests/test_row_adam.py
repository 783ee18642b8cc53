from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import run_mm, tiny_pair, write_world
from torch import nn

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.trainer.row_adam import RowAdam

BATCHES = [[1, 4, 4], [1], [2, 1], [4, 2, 2, 2]]


def trained(
    optimiser_of: Any, *, sparse: bool, batches: list[list[int]] = BATCHES
) -> tuple[np.ndarray, np.ndarray]:
    """A table and a dense weight after steps on the squared lengths of (rows * weight - 1)."""
    torch.manual_seed(0)
    table, weight = nn.Embedding(6, 3, sparse=sparse), nn.Parameter(torch.ones(3))
    optimiser = optimiser_of([table.weight, weight], lr=0.1)
    for rows in batches:
        optimiser.zero_grad()
        (table(torch.tensor(rows)) * weight - 1).square().sum().backward()
        optimiser.step()
    return table.weight.detach().numpy().copy(), weight.detach().numpy().copy()


def test_is_adam_for_dense_gradients_and_where_all_rows_are_met() -> None:
    every = [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0, 0], [0, 1, 2, 3, 4, 5]]
    wanted = trained(torch.optim.Adam, sparse=False, batches=every)
    for sparse in (False, True):
        found = trained(RowAdam, sparse=sparse, batches=every)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


def test_moves_the_rows_that_were_met_by_their_own_moments() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(6, 3).weight.detach().numpy().astype(np.float64)
    weight = np.ones(3)
    moments = {name: [np.zeros_like(table), np.zeros(3)] for name in ("first", "second")}
    for step, rows in enumerate(BATCHES, start=1):
        error = table[rows] * weight - 1
        gradient = np.zeros_like(table)
        np.add.at(gradient, rows, 2 * error * weight)
        gradients = [gradient, (2 * error * table[rows]).sum(0)]
        for place, (value, g) in enumerate(zip((table, weight), gradients, strict=True)):
            met = sorted(set(rows)) if place == 0 else slice(None)
            m, v = moments["first"][place], moments["second"][place]
            m[met] = 0.9 * m[met] + 0.1 * g[met]
            v[met] = 0.999 * v[met] + 0.001 * g[met] ** 2
            value[met] -= (
                0.1 * (m[met] / (1 - 0.9**step)) / (np.sqrt(v[met] / (1 - 0.999**step)) + 1e-8)
            )
    found = trained(RowAdam, sparse=True)
    np.testing.assert_allclose(found[0], table, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], weight, rtol=1e-4)
    torch.manual_seed(0)
    start = nn.Embedding(6, 3)
    assert np.array_equal(found[0][[0, 3, 5]], start.weight.detach().numpy()[[0, 3, 5]])


def test_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(6, 3, sparse=True)

    def step(optimiser: RowAdam, rows: list[int]) -> None:
        optimiser.zero_grad()
        (table(torch.tensor(rows)) - 1).square().sum().backward()
        optimiser.step()

    optimiser = RowAdam(table.parameters(), lr=0.1)
    step(optimiser, [1, 2])
    state, before = copy.deepcopy(optimiser.state_dict()), table.weight.detach().clone()
    step(optimiser, [2, 3])
    after = table.weight.detach().clone()
    with torch.no_grad():
        table.weight.copy_(before)
    again = RowAdam(table.parameters(), lr=0.1)
    again.load_state_dict(state)
    step(again, [2, 3])
    assert torch.equal(table.weight, after)


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight_decay": 0.1}, r"`weight_decay: 0.1` .*Give reg_weight.*--learner=adam"),
        (
            {"clip_grad_norm": {"max_norm": 1.0}},
            r"`clip_grad_norm: \{'max_norm': 1.0\}` .*--learner=adam",
        ),
    ],
)
def test_what_needs_all_rows_is_refused(
    data_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_mm(data_path, model="TargetMF", epochs=1, **given)
    run_mm(data_path, model="TargetMF", epochs=1, learner="adam", **given)
