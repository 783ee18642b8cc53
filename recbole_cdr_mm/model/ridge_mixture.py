"""The start of rankings: a mixture of ridge regressions from source to target rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.features import ItemFeatures
from recbole_cdr_mm.data.folds import SimulatedUsers
from recbole_cdr_mm.data.sparse_rows import sparse_rows
from recbole_cdr_mm.data.split import overlapped_training_users
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.history_profile import HistoryProfile, row_basis, score_profiles
from recbole_cdr_mm.layers.item_texts import centred_texts, expected_from_texts
from recbole_cdr_mm.layers.ridge_regression import RidgeRegression, decompose
from recbole_cdr_mm.layers.stacking import stack
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.starting_floor import StartingFloor

_PENALTIES = (3.0, 30.0)  # of the ridge regressions, in mean squared lengths of a row
_EXPONENTS = (0.0, 0.5)  # a user's target row is divided by its number of positives to this power
_DIRECTIONS = 64  # of all users' source rows
_TEXT_PENALTY = 3.0  # of the regression of items' weights on their texts
_STACKED_USERS = 4096  # are enough for 14 weights
_USERS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class _Bridge:
    """Ridge regressions on one kind of profile.

    Attributes:
        ridge: The decomposition of the training users' profiles.
        moments: F' Y of each exponent, float32 (E, r, I).
        means: Mean target row of each exponent (E, I).
    """

    ridge: RidgeRegression
    moments: Tensor
    means: Tensor


class RidgeMixture(StartingFloor):
    """What a cold-start user likes, by ridge regressions that were each left to prove themselves.

    Overlapped training users' target rows (1 for a positive, else 0) are regressed on three
    profiles of their source histories: their source rows, these rows in the main directions of all
    source users' rows, and the texts of what they liked; with two penalties, and with target rows
    as they are or divided by the root of the user's number of positives. With the popularity among
    these users, and among users of the target domain alone, these are 14 predictions, and 10
    without texts. Each says what it would have said of a training user without that user's target
    row, in closed form. On these left-out predictions, of 4,096 users at most, a stacked regression
    fits how much each is believed. The sum is one linear map from a user's profile to the target
    items.

    With texts, an item without a positive in training has the weights that its text lets expect, by
    a ridge regression on the texts of the others.

    The score is log(softplus(sum / e)), e the mean of all target rows: the order is that of the
    sum, and differences are those of log-probabilities, as the losses of few-shot have them. No
    bridge is trained on top: none that was tried added anything (docs/accuracy.md).

    Args:
        dataset: The pair.
        config: Gives row_rank and seed.
        texts: Whether the text profile is among the profiles, and target texts are read, of the
            domains that have texts.

    Raises:
        ConfigError: If there are fewer than two overlapped training users.

    Source: none; Breiman 1996 for the stacking, and see `RidgeRegression`.
    """

    takes_bridge: ClassVar[bool] = False
    weight: Tensor
    scale: Tensor

    def __init__(self, dataset: PairDataset, config: Any, *, texts: bool) -> None:
        super().__init__()
        pair = dataset.pair
        n_source_items = 1 + pair.n_source_items
        self.users = overlapped_training_users(pair, dataset.split)
        if len(self.users) < 2:
            raise ConfigError(
                "The floor of rankings needs two overlapped training users with a target rating of"
                f" positive_threshold {config['positive_threshold']} or more; there are"
                f" {len(self.users)}. Lower it, or the ratios of test and validation users, raise"
                " overlap_ratio, or give --start_from_floor=False."
            )
        self.first_item = n_source_items
        rank = min(config["row_rank"], len(self.users), pair.n_source_items)
        size = min(_DIRECTIONS, pair.n_source_items)
        self.rows = HistoryProfile(n_source_items, rank, "sum")
        self.directions = HistoryProfile(n_source_items, size, "root")
        self.likes: HistoryProfile | None = None
        self._features: ItemFeatures | None = None
        if texts and dataset.text_domains:
            self._features = dataset.features("text", dataset.text_domains)
            item_texts = self._texts(self._features)  # (I, d)
            self.likes = HistoryProfile(n_source_items, item_texts.shape[1], "unit", is_kept=False)
            self.likes.item_e.copy_(item_texts[:n_source_items])
        n_weights = 1 + sum(profile.item_e.shape[1] for profile in self._kinds().values())
        self.register_buffer("weight", torch.zeros(pair.n_items - self.first_item, n_weights))
        self.register_buffer("scale", torch.tensor(1.0))
        self._histories, self._seed = dataset.histories(), config["seed"]

    def _kinds(self) -> dict[str, HistoryProfile]:
        profiles = {"rows": self.rows, "directions": self.directions, "texts": self.likes}
        return {name: profile for name, profile in profiles.items() if profile is not None}

    @staticmethod
    def _texts(features: ItemFeatures) -> Tensor:
        """Centred texts of all items, (I, d)."""
        return centred_texts(torch.from_numpy(features.matrix), torch.from_numpy(features.known))

    # Scores

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Score target items for cold-start users, (B,) and (B,) to (B,)."""
        users, place = torch.unique(user, return_inverse=True)
        profile, item = self.profile(users), item - self.first_item
        return self._log_probability(score_profiles(profile, self.weight, place, item))

    def score_all(self, user: Tensor, items: slice) -> Tensor:
        """Score all target items for cold-start users, (b,) to (b, n)."""
        return self._log_probability(self.profile(user) @ self.weight.T)

    def _log_probability(self, expected: Tensor) -> Tensor:
        """Logs of expected rows, up to a number that all share, of any shape."""
        expected = expected / self.scale
        # Far below 0 the softplus is exp(expected).
        return torch.where(expected < -20, expected, softplus(expected).log())

    def profile(self, user: Tensor) -> Tensor:
        """All profiles of users side by side, and a 1 for the intercept, (B,) to (B, p + 1)."""
        parts = [self._of_kind(profile, user) for profile in self._kinds().values()]
        return torch.cat([*parts, parts[0].new_ones(len(user), 1)], dim=1)

    def _of_kind(self, profile: HistoryProfile, user: Tensor) -> Tensor:
        self._histories = self._histories.to(user.device)
        item, _, row = self._histories.of(user)
        return profile(item, row, len(user))

    # Fit

    @torch.no_grad()
    def fit(self, target: MF, dataset: PairDataset, simulated: SimulatedUsers | None) -> str:
        """Fit profiles, regressions and their mixture."""
        pair, train = dataset.pair, dataset.split.train
        rows = sparse_rows(train, self.users, pair.items("target"))  # (n, I)
        alone = train.where(~np.isin(train.user, self.users))
        counts = np.bincount(alone.item - self.first_item, minlength=rows.shape[1])
        others = torch.from_numpy(counts / max(1, len(np.unique(alone.user))))  # (I,)
        device = self.weight.device
        self._histories = self._histories.to(torch.device("cpu"))
        self.to("cpu")
        self._fit_profiles(dataset)
        users = torch.from_numpy(self.users)
        bridges = [
            self._regress(self._of_kind(profile, users), rows) for profile in self._kinds().values()
        ]
        weights = stack(_LeftOut(bridges, rows, others, self._seed).parts())
        self.scale.fill_(rows.sum() / rows.shape[0] / rows.shape[1])
        self.weight.copy_(_combine(bridges, weights, others))
        self._fill_unseen(dataset)
        self.to(device)
        share = weights / weights.sum()
        return ", ".join(
            f"{name} {100 * value:.0f}%"
            for name, value in zip(self._names(), share.tolist(), strict=True)
            if value > 0.005
        )

    def _names(self) -> list[str]:
        own = [
            f"{name}/{penalty:g}/{exponent:g}"
            for name in self._kinds()
            for exponent in _EXPONENTS
            for penalty in _PENALTIES
        ]
        return [*own, "popular", "popular elsewhere"]

    def _fit_profiles(self, dataset: PairDataset) -> None:
        """The item vectors of which profiles are sums."""
        source, items = dataset.pair.source, dataset.pair.items("source")
        everyone = sparse_rows(source, np.unique(source.user), items)  # (n, m)
        length = everyone.sum(1).to_dense().sqrt()  # (n,)
        at_unit_length = everyone * (1 / length).unsqueeze(1)  # (n, m)
        own = sparse_rows(source, self.users, items)
        for profile, rows in ((self.rows, own), (self.directions, at_unit_length)):
            profile.item_e[1:] = row_basis(rows, profile.item_e.shape[1], self._seed)

    @staticmethod
    def _regress(profile: Tensor, rows: Tensor) -> _Bridge:
        """Decompose profiles (n, p), and relate them to target rows (n, I)."""
        ridge = decompose(profile)
        count = rows.sum(1).to_dense()  # (n,)
        moments, means = [], []
        for exponent in _EXPONENTS:
            share = (count**-exponent).unsqueeze(1)  # (n, 1)
            moments.append((rows.T @ (share * ridge.features)).T.float())  # (r, I)
            means.append((rows.T @ share).squeeze(1) / len(share))  # (I,)
        return _Bridge(ridge, torch.stack(moments), torch.stack(means))

    def _fill_unseen(self, dataset: PairDataset) -> None:
        """Give items without a positive in training the weights that their texts let expect."""
        seen = torch.zeros(len(self.weight), dtype=torch.bool)
        seen[torch.from_numpy(dataset.split.train.item) - self.first_item] = True
        if self._features is not None and not seen.all():
            texts = self._texts(self._features)[self.first_item :]  # (I, d)
            self.weight[~seen] = expected_from_texts(
                texts, self.weight, seen, penalty=_TEXT_PENALTY
            )


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """Predictions of the training users' target rows, each without that row.

    Attributes:
        bridges: The regressions.
        rows: Target rows, sparse (n, I).
        others: Popularity among other users (I,).
        seed: Draws the users whose predictions are made, where there are many.
    """

    bridges: list[_Bridge]
    rows: Tensor
    others: Tensor
    seed: int

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Predictions (M, b, I) and true rows (b, I), some users at a time, each in one place."""
        n = self.rows.shape[0]
        leverages = [[b.ridge.leverages(penalty) for penalty in _PENALTIES] for b in self.bridges]
        means = [bridge.means.float() for bridge in self.bridges]  # (E, I)
        n_predictions = len(self.bridges) * len(_EXPONENTS) * len(_PENALTIES) + 2
        made = means[0].new_empty(n_predictions, _USERS_AT_ONCE, len(self.others))  # (M, b, I)
        drawn = torch.arange(n)
        if n > _STACKED_USERS:
            drawn = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))
        for users in drawn[:_STACKED_USERS].split(_USERS_AT_ONCE):
            value = self.rows.index_select(0, users).to_dense().float()  # (b, I)
            count = value.sum(1, keepdim=True)  # (b, 1)
            predictions = iter(made[:, : len(users)])  # of (b, I) each
            for b, bridge in enumerate(self.bridges):
                features = bridge.ridge.features[users]  # (b, r)
                for e, exponent in enumerate(_EXPONENTS):
                    own = value * count**-exponent  # (b, I)
                    for p, penalty in enumerate(_PENALTIES):
                        shrunk = (features * bridge.ridge.shrinkage(penalty)).float()  # (b, r)
                        leverage = leverages[b][p][users].float().unsqueeze(1)  # (b, 1)
                        prediction = next(predictions)
                        torch.addmm(means[b][e], shrunk, bridge.moments[e], out=prediction)
                        prediction.sub_(leverage * own).div_(1 - leverage)
            next(predictions).copy_((means[0][0] - value / n) / (1 - 1 / n))
            next(predictions).copy_(self.others)
            yield made[:, : len(users)], value


def _combine(bridges: list[_Bridge], weights: Tensor, others: Tensor) -> Tensor:
    """The mixture as one matrix, with the intercepts as its last column, (I, p + 1)."""
    *of_bridges, popular, elsewhere = weights.tolist()
    each = iter(of_bridges)
    maps = []
    intercept = popular * bridges[0].means[0] + elsewhere * others  # (I,)
    for bridge in bridges:
        summed = torch.zeros_like(bridge.moments[0])  # (r, I)
        for moment, mean in zip(bridge.moments, bridge.means, strict=True):
            for penalty in _PENALTIES:
                w = next(each)
                summed += w * bridge.ridge.shrinkage(penalty).float().unsqueeze(1) * moment
                intercept = intercept + w * mean
        rotated = bridge.ridge.rotation.float() @ summed  # (p, I)
        intercept = intercept - bridge.ridge.centre.float() @ rotated
        maps.append(rotated)
    return torch.cat([*maps, intercept.unsqueeze(0)]).T.float()
