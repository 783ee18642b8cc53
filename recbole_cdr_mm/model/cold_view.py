"""What a cold-start user meets in the target domain, as a base model leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import draw_folds
from recbole_cdr_mm.data.pair import Pair
from recbole_cdr_mm.layers.ridge import solve_vectors
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.floors import fit_domain_biases, fit_floor


@dataclass(frozen=True, eq=False)
class ColdView:
    """The target domain as a cold-start user meets it: what the bridged vector is scored with.

    A view has one row per fold of simulated cold users, made without their target ratings, and as
    its last row the one for users who are really cold.

    Attributes:
        item_floor: Score of each item before the user is known, (F + 1, I).
        item_e: Weights of the items, (F + 1, I, k).
        user_floor: What is added for a user, (U,).
        fold: Which row a user meets in training, int64 (U,).
        weights: a, b and c of the calibrated floor, for the log; none in a plain view.
    """

    item_floor: Tensor
    item_e: Tensor
    user_floor: Tensor
    fold: Tensor
    weights: tuple[float, ...] = ()

    def to(self, device: torch.device) -> ColdView:
        """The same view on another device."""
        names = ("item_floor", "item_e", "user_floor", "fold")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def plain_view(target: MF, pair: Pair) -> ColdView:
    """The target model's own intercepts and weights, the same for all.

    Args:
        target: The trained target model.
        pair: The pair.
    """
    device = target.mean.device
    ids = pair.items("target")
    items = torch.arange(ids.start, ids.stop, device=device)
    with torch.no_grad():
        weight = target.weight(items)  # (n, k)
        floor = torch.zeros(1, pair.n_items, device=device)
        vectors = torch.zeros(1, pair.n_items, weight.shape[1], device=device)
        floor[0, items], vectors[0, items] = target.intercept(items), weight
    nobody = torch.zeros(pair.n_users, device=device)
    return ColdView(floor, vectors, nobody, nobody.long())


def calibrated_view(
    target: MF,
    dataset: PairDataset,
    config: Mapping[str, Any],
    *,
    simulate: bool,
    device: torch.device,
) -> ColdView:
    """Calibrated floor and item weights, made without each fold's target ratings, and with all.

    The weights are ridge regressions on the target model's user vectors, held fixed, so that all
    rows of the view share the space into which the bridge leads.

    Args:
        target: The trained target model.
        dataset: The pair; only its training part is read.
        config: Gives simulation_folds, item_vector_shrinkage, seed, and the keys of
            `fit_domain_biases`.
        simulate: Whether there are rows for the folds; else everybody meets the one with all.
        device: Where the regressions are solved.
    """
    pair, train, n_folds = dataset.pair, dataset.split.train, config["simulation_folds"]
    first = pair.items("target").start
    fold = draw_folds(pair, dataset.split, n_folds, config["seed"])
    floor = fit_floor(dataset, fold, n_folds, config)
    user, item = torch.from_numpy(train.user), torch.from_numpy(train.item)

    def weights(rows: Tensor) -> Tensor:
        seen = train.where(rows.numpy())
        biases = fit_domain_biases(seen, pair, config)
        expected = biases.mean + biases.user[user[rows]] + biases.item[item[rows]]
        residual = (torch.from_numpy(seen.rating) - expected).float()  # (n,)
        with torch.no_grad():
            solved = solve_vectors(
                target.users(user[rows].to(device)),
                item[rows].to(device) - first,
                residual.to(device),
                n_groups=pair.n_items - first,
                reg_weight=config["item_vector_shrinkage"],
            )
        return torch.nn.functional.pad(solved, (0, 0, first, 0))  # (I, k)

    with_all = weights(torch.ones_like(user, dtype=torch.bool))  # (I, k)
    if not simulate:
        nowhere = torch.zeros_like(fold)
        parts = (floor.item[-1:].float(), with_all.unsqueeze(0), floor.user.float(), nowhere)
        return ColdView(*parts, floor.weights)
    of_folds = [weights(fold[user] != f) for f in range(n_folds)]
    item_e = torch.stack([*of_folds, with_all])  # (F + 1, I, k)
    return ColdView(floor.item.float(), item_e, floor.user.float(), fold, floor.weights)
