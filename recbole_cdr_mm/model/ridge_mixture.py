"""The start of rankings: a mixture of ridge regressions from source to target rows."""

from __future__ import annotations

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
from recbole_cdr_mm.layers.ridge_members import RidgeMembers, regress, smooth_by
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.starting_floor import StartingFloor

_SOURCE_DIRECTIONS = 64  # of all users' source rows
_TARGET_DIRECTIONS = 16  # of the target rows of users of that domain alone
_TEXT_PENALTY = 3.0  # of the regression of items' weights on their texts


class RidgeMixture(StartingFloor):
    """What a cold-start user likes, by ridge regressions that were each left to prove themselves.

    Overlapped training users' target rows (1 for a positive, half for a rating below
    `positive_threshold`, else 0) are regressed on three profiles of their source histories: their
    source rows, these rows in the main directions of all source users' rows, and the texts of what
    they rated; with two penalties, and with target rows as they are or divided by the root of their
    sum. With the popularity among these users these are 13 predictions, and 9 without texts. Each
    comes again, smoothed: pulled to what users of the target domain alone are like, in the 16 main
    directions of their target rows. The last is the popularity among those.

    Each says what it would have said of a training user without that user's target row, in closed
    form. On these left-out predictions, of 4,096 users at most, stacked regressions fit how much
    each is believed for what it says of the positives, once with the smoothed ones and once
    without. Of the two and their mean that counts by which the left-out positives are ranked best;
    with few overlapped users it is mostly the former. The sum is one linear map from a user's
    profile to the target items.

    With texts, an item without a positive in training has the weights that its text lets expect, by
    a ridge regression on the texts of the others.

    The score is log(softplus(sum / e)), e the mean of all rows of positives: the order is that of
    the sum, and differences are those of log-probabilities, as the losses of few-shot have them. No
    bridge is trained on top: none that was tried added anything (docs/accuracy.md).

    Args:
        dataset: The pair.
        config: Gives history, row_rank and seed.
        texts: Whether the text profile is among the profiles, and target texts are read, of the
            domains that have texts.

    Raises:
        ConfigError: If there are fewer than two overlapped training users.

    Source: none; see `RidgeMembers`, `RidgeRegression` and `stack`.
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
        size = min(_SOURCE_DIRECTIONS, pair.n_source_items)
        self.rows = HistoryProfile(n_source_items, rank, "sum")
        self.directions = HistoryProfile(n_source_items, size, "root")
        self.texts: HistoryProfile | None = None
        self._features: ItemFeatures | None = None
        if texts and dataset.text_domains:
            self._features = dataset.features("text", dataset.text_domains)
            item_texts = self._texts(self._features)  # (I, d)
            n_features = item_texts.shape[1]
            self.texts = HistoryProfile(n_source_items, n_features, "unit", is_kept=False)
            self.texts.item_e.copy_(item_texts[:n_source_items])
        n_weights = 1 + sum(profile.item_e.shape[1] for profile in self._kinds().values())
        self.register_buffer("weight", torch.zeros(pair.n_items - self.first_item, n_weights))
        self.register_buffer("scale", torch.tensor(1.0))
        self._positive_only = config["history"] == "positive"
        self._histories = dataset.histories(positive_only=self._positive_only)
        self._seed = config["seed"]

    def _kinds(self) -> dict[str, HistoryProfile]:
        profiles = {"rows": self.rows, "directions": self.directions, "texts": self.texts}
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
        train, items = dataset.split.train, dataset.pair.items("target")
        positives = sparse_rows(train, self.users, items)  # (n, I)
        rated = sparse_rows(dataset.rated_train, self.users, items)  # (n, I)
        rows = ((positives + rated) / 2).coalesce()
        alone = sparse_rows(train, np.setdiff1d(train.user, self.users), items)  # (a, I)
        device = self.weight.device
        self._histories = self._histories.to(torch.device("cpu"))
        self.to("cpu")
        self._fit_profiles(dataset)
        users = torch.from_numpy(self.users)
        members = RidgeMembers(
            {
                name: regress(self._of_kind(profile, users), rows)
                for name, profile in self._kinds().items()
            },
            rows,
            positives,
            smooth_by(alone, _TARGET_DIRECTIONS, self._seed),
            self._seed,
        )
        weights = members.weights()
        self.scale.fill_(positives.sum() / positives.shape[0] / positives.shape[1])
        self.weight.copy_(members.combined(weights))
        self._fill_unseen(dataset)
        self.to(device)
        share = weights / weights.sum()
        return ", ".join(
            f"{name} {100 * value:.0f}%"
            for name, value in zip(members.names, share.tolist(), strict=True)
            if value > 0.005
        )

    def _fit_profiles(self, dataset: PairDataset) -> None:
        """The item vectors of which profiles are sums."""
        source = dataset.source_ratings(positive_only=self._positive_only)
        items = dataset.pair.items("source")
        everyone = sparse_rows(source, np.unique(source.user), items)  # (n, m)
        length = everyone.sum(1).to_dense().sqrt()  # (n,)
        at_unit_length = everyone * (1 / length).unsqueeze(1)  # (n, m)
        own = sparse_rows(source, self.users, items)
        for profile, rows in ((self.rows, own), (self.directions, at_unit_length)):
            profile.item_e[1:] = row_basis(rows, profile.item_e.shape[1], self._seed)

    def _fill_unseen(self, dataset: PairDataset) -> None:
        """Give items without a positive in training the weights that their texts let expect."""
        seen = torch.zeros(len(self.weight), dtype=torch.bool)
        seen[torch.from_numpy(dataset.split.train.item) - self.first_item] = True
        if self._features is not None and not seen.all():
            texts = self._texts(self._features)[self.first_item :]  # (I, d)
            self.weight[~seen] = expected_from_texts(
                texts, self.weight, seen, penalty=_TEXT_PENALTY
            )
