"""Item weights of the target domain as cold-start users meet them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import SimulatedUsers
from recbole_cdr_mm.data.pair import Pair
from recbole_cdr_mm.layers.ridge import solve_vectors
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.floors import fit_domain_biases


@dataclass(frozen=True, eq=False)
class ColdView:
    """What a bridged vector is scored with.

    A view has one row per fold of simulated cold users, made without their target ratings, and as
    its last row the one for users who are really cold.

    Attributes:
        item_e: Weights of the items, (F + 1, I, k).
        met: Which row a user meets in training, int64 (U,).
    """

    item_e: Tensor
    met: Tensor


def plain_view(target: MF, pair: Pair) -> ColdView:
    """The target model's own weights, the same for all.

    Args:
        target: The trained target model.
        pair: The pair.
    """
    device = target.mean.device
    ids = pair.items("target")
    items = torch.arange(ids.start, ids.stop, device=device)
    with torch.no_grad():
        weight = target.weight(items)  # (n, k)
    item_e = torch.nn.functional.pad(weight, (0, 0, ids.start, 0)).unsqueeze(0)  # (1, I, k)
    return ColdView(item_e, torch.zeros(pair.n_users, dtype=torch.int64, device=device))


def cross_fitted_view(
    target: MF, dataset: PairDataset, config: Mapping[str, Any], simulated: SimulatedUsers
) -> ColdView:
    """Item weights made without each fold's target ratings, and with all.

    They are ridge regressions on the target model's user vectors, held fixed, so that all rows of
    the view share the space into which the bridge leads.

    Args:
        target: The trained target model.
        dataset: The pair; only its training part is read.
        config: Gives item_vector_shrinkage, and the keys of `fit_domain_biases`.
        simulated: The folds. Where nobody meets them there is the row with all alone.
    """
    pair, train = dataset.pair, dataset.split.train
    first, device = pair.items("target").start, target.mean.device
    user, item = torch.from_numpy(train.user), torch.from_numpy(train.item)

    def weights(rows: Tensor) -> Tensor:
        seen = train.where(rows.numpy())
        biases = fit_domain_biases(seen, pair, config)
        expected = biases.mean + biases.user[user[rows]] + biases.item[item[rows]]
        residual = (torch.from_numpy(seen.rating) - expected).float()  # (n,)
        with torch.no_grad():
            solved = solve_vectors(
                target.users.vectors(user[rows].to(device)),
                item[rows].to(device) - first,
                residual.to(device),
                n_groups=pair.n_items - first,
                reg_weight=config["item_vector_shrinkage"],
            )
        return torch.nn.functional.pad(solved, (0, 0, first, 0))  # (I, k)

    with_all = weights(torch.ones_like(user, dtype=torch.bool))  # (I, k)
    if not simulated.is_met:
        nowhere = torch.zeros(pair.n_users, dtype=torch.int64, device=device)
        return ColdView(with_all.unsqueeze(0), nowhere)
    of_folds = [weights(simulated.fold[user] != f) for f in range(simulated.n_folds)]
    return ColdView(torch.stack([*of_folds, with_all]), simulated.met.to(device))
