"""What a bridge starts from: a score that the bridged vector's product is added to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import SimulatedUsers
from recbole_cdr_mm.layers.all_pairs import score_all_pairs
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.floors import fit_floor


class StartingFloor(nn.Module):
    """The score of a cold-start user before the bridge adds to it, fitted in closed form.

    Attributes:
        takes_bridge: Whether a bridge is trained on top; else cold-start users get this score.
    """

    takes_bridge: ClassVar[bool] = True

    @abstractmethod
    def fit(self, target: MF, dataset: PairDataset, simulated: SimulatedUsers | None) -> str:
        """Fit the floor.

        Args:
            target: The trained target model.
            dataset: The pair; only its training part is read.
            simulated: The folds of simulated cold-start users; None with `eval_task: ranking` or
                without `start_from_floor`.

        Returns:
            What was fitted, for the log.
        """

    @abstractmethod
    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score target items for cold-start users.

        Args:
            user: User ids, int64 (B,); 0 for a user of whom nothing is known.
            item: Ids of target items, int64 (B,).

        Returns:
            Scores (B,).
        """

    def score_all(self, user: Tensor, items: slice) -> Tensor:
        """Score all target items for cold-start users: here pair by pair.

        Args:
            user: User ids, int64 (b,); 0 for a user of whom nothing is known.
            items: The ids of the target items, n of them.

        Returns:
            Scores (b, n).
        """
        item = torch.arange(items.start, items.stop, device=user.device)  # (n,)
        return score_all_pairs(self, user, item)

    def of_simulated(self, user: Tensor, item: Tensor) -> Tensor:
        """Score them for users in training, without their own ratings, (B,) and (B,) to (B,).

        Asked of a floor that `takes_bridge`, and while the bridge is trained.
        """
        raise NotImplementedError  # nobody asks a floor that takes no bridge


class AdditiveFloor(StartingFloor):
    """A part of the item and a part of the user, added up."""

    item: Tensor
    user: Tensor

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.register_buffer("item", torch.zeros(n_items))
        self.register_buffer("user", torch.zeros(n_users))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Item part and user part, (B,)."""
        return self.item[item] + self.user[user]

    def score_all(self, user: Tensor, items: slice) -> Tensor:
        """The same of all target items, (b, n)."""
        return self.item[items] + self.user[user].unsqueeze(1)


class PlainStart(AdditiveFloor):
    """The target model's own intercepts, the same for all users."""

    def fit(self, target: MF, dataset: PairDataset, simulated: SimulatedUsers | None) -> str:
        """Take the intercepts over."""
        ids = dataset.pair.items("target")
        items = torch.arange(ids.start, ids.stop, device=self.item.device)
        with torch.no_grad():
            self.item[items] = target.intercept(items)
        return "the target model's intercepts"

    def of_simulated(self, user: Tensor, item: Tensor) -> Tensor:
        """The same, (B,)."""
        return self(user, item)


class CalibratedStart(AdditiveFloor):
    """CalibratedTransfer's floor.

    Args:
        n_users: U.
        n_items: I.
        config: Gives the keys of `fit_domain_biases`.
    """

    def __init__(self, n_users: int, n_items: int, config: Mapping[str, Any]) -> None:
        super().__init__(n_users, n_items)
        self._config = config

    def fit(self, target: MF, dataset: PairDataset, simulated: SimulatedUsers | None) -> str:
        """Fit item and user part, and the item part without the target ratings of each fold."""
        assert simulated is not None
        floor = fit_floor(dataset, simulated.fold, simulated.n_folds, self._config)
        device = self.item.device
        self._met = simulated.met.to(device)  # (U,)
        self._item_without = floor.item.float().to(device)  # (F + 1, I)
        self.item.copy_(floor.item[-1])
        self.user.copy_(floor.user)
        return "a {:.4f}, b {:.4f}, c {:.4f}".format(*floor.weights)

    def of_simulated(self, user: Tensor, item: Tensor) -> Tensor:
        """The item part without the fold's ratings, and the user part, (B,)."""
        return self._item_without[self._met[user], item] + self.user[user]
