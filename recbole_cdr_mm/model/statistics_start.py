"""MetaMMCDR's floor of ratings: what statistics of users and items say, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.features import ItemFeatures
from recbole_cdr_mm.data.folds import SimulatedUsers
from recbole_cdr_mm.data.pair import Pair, Ratings
from recbole_cdr_mm.layers.adjacent_categories import AdjacentCategories, tilt
from recbole_cdr_mm.layers.fold_ridge import fit_fold_ridge
from recbole_cdr_mm.layers.item_texts import centred_texts
from recbole_cdr_mm.layers.rating_distribution import mean
from recbole_cdr_mm.layers.rating_statistics import (
    N_ITEM_COLUMNS,
    N_USER_COLUMNS,
    RatingRows,
    Texts,
    item_statistics,
    runs_of_values,
    text_directions,
    user_statistics,
)
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.floors import fit_domain_biases
from recbole_cdr_mm.model.starting_floor import StartingFloor

_MOST_DEVIATIONS = 4.0  # from the mean of a feature; what is further off counts as so far
_LEAST_DEVIATION = 1e-6  # of a feature that is nearly constant
_LEAST_PENALTY = 200.0  # of the distribution's weights, in rows
_SPREAD_PENALTY = 300.0  # of its spread's weights, in rows
_N_PRODUCTS = 5  # of statistics of an item and a user


class StatisticsStart(StartingFloor):
    """The average of three estimates of a cold-start user's rating, and a distribution around it.

    Each is clipped to the range of the training ratings:

    - BiasTransfer's mean + item bias + user's source bias;
    - this and a ridge regression of its errors on statistics of the user (source domain) and the
      item (target domain), see `item_statistics` and `user_statistics`;
    - the mean of an adjacent-categories model of the rating on the same statistics.

    The distribution is that of the third, tilted so that its mean is the average. Where there are
    too many rating values for a distribution, the average is that of the first two.

    Regression and model are fitted on simulated cold-start users, whose items' statistics are made
    without the target ratings of their own fold; a user with n ratings weighs sqrt(n). Statistics
    are standardised by these rows and clipped at four standard deviations. BiasTransfer's own score
    is among the features of both, and its weight is not penalised. The ridge penalty of the others
    leaves the smallest error on folds that are left out; the model's is the same in units of its
    log-likelihood, and at least 200 rows. A user without source ratings has the statistics of the
    average simulated user, an item without target ratings those of its text and of the domain.

    Args:
        dataset: The pair; its training part gives range and number of the rating values.
        config: Gives the keys of `fit_domain_biases`.
        values: The rating values that have probabilities, ascending (V,), or None.
        texts: Whether the biases of rarely rated items are shrunk towards what their texts say, in
            the domains that have texts.

    Source: none.

    Deviations: none.
    """

    item_table: Tensor
    user_table: Tensor
    extremes: Tensor
    centre: Tensor
    deviation: Tensor
    ridge_intercept: Tensor
    ridge_weights: Tensor

    def __init__(
        self,
        dataset: PairDataset,
        config: Mapping[str, Any],
        values: Tensor | None,
        *,
        texts: bool,
    ) -> None:
        super().__init__()
        self._config = config
        self._features: ItemFeatures | None = None
        if texts and dataset.text_domains:
            self._features = dataset.features("text", dataset.text_domains)
        pair, train = dataset.pair, dataset.split.train
        n_item = N_ITEM_COLUMNS + runs_of_values(torch.from_numpy(train.rating))[1]
        n_user = N_USER_COLUMNS + runs_of_values(torch.from_numpy(pair.source.rating))[1]
        n_features = 1 + n_item + n_user + _N_PRODUCTS
        # Column 0 is an item's or user's part of BiasTransfer, column 1 its bias.
        self.register_buffer("item_table", torch.zeros(pair.n_items, 1 + n_item))
        self.register_buffer("user_table", torch.zeros(pair.n_users, 1 + n_user))
        extremes = torch.tensor([train.rating.min(), train.rating.max()])
        self.register_buffer("extremes", extremes, persistent=False)
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))
        self.register_buffer("ridge_intercept", torch.tensor(0.0))
        self.register_buffer("ridge_weights", torch.zeros(n_features))
        self.categories = None if values is None else AdjacentCategories(values, n_features)

    # Fitting

    def fit(self, target: MF, dataset: PairDataset, simulated: SimulatedUsers | None) -> str:
        """Make the statistics, with all training ratings and without each fold's, and fit."""
        assert simulated is not None
        train, n_folds = dataset.split.train, simulated.n_folds
        rows = _rating_rows(train, dataset.pair)
        fold = simulated.fold[rows.user]  # (N,)
        texts = self._directions()

        def items_of(seen: Tensor) -> Tensor:
            """The items' table by some of the rows, (I, 1 + C)."""
            biases = fit_domain_biases(train.where(seen.numpy()), dataset.pair, self._config)
            shrinkage = self._config["item_shrinkage"]
            items = item_statistics(rows.where(seen), biases, shrinkage, texts)
            part = biases.mean + biases.item  # (I,)
            return torch.cat([part.unsqueeze(1), items.columns], dim=1)

        without = [items_of(fold != f) for f in range(n_folds)]
        tables = torch.stack([*without, items_of(torch.ones_like(fold, dtype=torch.bool))])
        users, has_ratings = self._users_table(dataset.pair, texts)  # (U, 1 + C), (U,)
        is_simulated = simulated.fold < n_folds  # (U,)
        users[~has_ratings] = users[is_simulated].mean(0)

        cold = rows.where(fold < n_folds)
        fold = simulated.fold[cold.user]  # (n,)
        fitted = self._fit_weights(cold, fold, n_folds, tables[fold, cold.item], users[cold.user])
        device = self.item_table.device
        self._met = simulated.met.to(device)  # (U,)
        self._item_tables = tables.float().to(device)  # (F + 1, I, 1 + C)
        self.item_table.copy_(tables[-1])
        self.user_table.copy_(users)
        return fitted

    def _fit_weights(
        self, rows: RatingRows, fold: Tensor, n_folds: int, items: Tensor, users: Tensor
    ) -> str:
        """Fit ridge regression and distribution on rows (n,) with these statistics, (n, 1 + C)."""
        raw = _join(items, users)  # (n, P)
        centre, deviation = raw.mean(0), raw.std(0, correction=0).clamp_min(_LEAST_DEVIATION)
        features = _standardised(raw, centre, deviation)
        weight = torch.bincount(rows.user)[rows.user].double().rsqrt()  # (n,)
        weight = weight / weight.mean()
        error = rows.rating - raw[:, 0]  # of BiasTransfer
        ridge = fit_fold_ridge(features, error, weight, fold, n_folds, n_free=1)
        self.centre.copy_(centre)
        self.deviation.copy_(deviation)
        self.ridge_intercept.copy_(ridge.intercept)
        self.ridge_weights.copy_(ridge.weights)
        if self.categories is not None:
            noise = (weight * (error - ridge.left_out).square()).mean() / self.categories.unit**2
            penalty = (noise * ridge.penalty).clamp_min(_LEAST_PENALTY).repeat(len(centre))  # (P,)
            penalty[0] = 0.0  # BiasTransfer itself
            self.categories.fit(
                features, rows.rating, weight, penalty=penalty, spread_penalty=_SPREAD_PENALTY
            )
        return f"ridge penalty {ridge.penalty:.4g} on {len(error)} rows of simulated users"

    def _users_table(self, pair: Pair, texts: Texts | None) -> tuple[Tensor, Tensor]:
        """The users' table (U, 1 + C), and who has source ratings, bool (U,)."""
        rows, config = _rating_rows(pair.source, pair), self._config
        biases = fit_domain_biases(pair.source, pair, config)
        items = item_statistics(rows, biases, config["item_shrinkage"], texts)
        columns = user_statistics(rows, items, config["user_shrinkage"])
        has_ratings = torch.bincount(rows.user, minlength=pair.n_users) > 0
        return torch.cat([biases.user.unsqueeze(1), columns], dim=1), has_ratings

    def _directions(self) -> Texts | None:
        if self._features is None:
            return None
        matrix, known = (
            torch.from_numpy(part) for part in (self._features.matrix, self._features.known)
        )
        return text_directions(centred_texts(matrix, known), known)

    # Scoring

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """The average of the estimates, (B,)."""
        return self._average(self.item_table[item], self.user_table[user])

    def of_simulated(self, user: Tensor, item: Tensor) -> Tensor:
        """The same by statistics of items without the fold's ratings, (B,)."""
        return self._average(self._item_tables[self._met[user], item], self.user_table[user])

    @property
    def values(self) -> Tensor | None:
        """The rating values that have probabilities, ascending (V,)."""
        return None if self.categories is None else self.categories.values

    def probabilities(self, user: Tensor, item: Tensor, expected: Tensor) -> Tensor:
        """The distribution, tilted to a mean.

        Args:
            user: User ids, int64 (B,); 0 for a user of whom nothing is known.
            item: Ids of target items, int64 (B,).
            expected: The mean ratings (B,).

        Returns:
            Probabilities of the rating values, float32 (B, V).
        """
        assert self.categories is not None  # asked where there are `values` alone
        raw = _join(self.item_table[item], self.user_table[user])  # (B, P)
        features = _standardised(raw, self.centre, self.deviation)
        return tilt(self.categories(features), self.categories.values, expected)

    def _average(self, items: Tensor, users: Tensor) -> Tensor:
        """Of the clipped estimates by rows of both tables, (B, 1 + C) and (B, 1 + C) to (B,)."""
        raw = _join(items, users)  # (B, P)
        features = _standardised(raw, self.centre, self.deviation)
        transferred = raw[:, 0]  # BiasTransfer
        regressed = transferred + self.ridge_intercept + features @ self.ridge_weights
        estimates = [each.clamp(*self.extremes) for each in (transferred, regressed)]
        if self.categories is not None:
            estimates.append(mean(self.categories(features), self.categories.values))
        return torch.stack(estimates).mean(0)


def _rating_rows(ratings: Ratings, pair: Pair) -> RatingRows:
    rating = torch.from_numpy(ratings.rating)
    run, n_runs = runs_of_values(rating)
    ids = torch.from_numpy(ratings.user), torch.from_numpy(ratings.item)
    return RatingRows(*ids, rating.double(), run, pair.n_users, pair.n_items, n_runs)


def _join(items: Tensor, users: Tensor) -> Tensor:
    """Features of pairs: BiasTransfer's score, both statistics, and products with the biases.

    Args:
        items: Rows of an items' table (B, 1 + C).
        users: Rows of the users' table (B, 1 + C).

    Returns:
        (B, P).
    """
    transferred = items[:, :1] + users[:, :1]  # (B, 1)
    # The bias of either with bias, log count and spread of the other.
    products = [users[:, 1:2] * items[:, 1:4], items[:, 1:2] * users[:, 2:4]]  # (B, 3), (B, 2)
    return torch.cat([transferred, items[:, 1:], users[:, 1:], *products], dim=1)


def _standardised(raw: Tensor, centre: Tensor, deviation: Tensor) -> Tensor:
    return ((raw - centre) / deviation).clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)
