"""What ratings say of items and of users, in numbers that hold for new ones too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dataset_tools.biases import Biases
from recbole_cdr_mm.layers.fold_ridge import fit_fold_ridge

_MOST_RUNS = 5  # of neighbouring rating values, whose shares are counted
_PSEUDO_RATINGS = 5.0  # of the domain's average, with which shares, spreads and means are shrunk
N_ITEM_COLUMNS = 4  # beside the log shares
N_USER_COLUMNS = 7  # likewise
_DIRECTIONS = 64  # of texts
_ITEMS_AT_ONCE = 1 << 16  # whose texts are turned into float64
_TEXT_FOLDS = 5  # of items
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class RatingRows:
    """Ratings of one domain, on the CPU.

    Attributes:
        user: User ids, int64 (N,).
        item: Item ids, int64 (N,).
        rating: Float64 (N,).
        run: Which of n_runs runs of neighbouring rating values each is in, int64 (N,).
        n_users: U.
        n_items: I.
        n_runs: S.
    """

    user: Tensor
    item: Tensor
    rating: Tensor
    run: Tensor
    n_users: int
    n_items: int
    n_runs: int

    def where(self, mask: Tensor) -> RatingRows:
        """The rows for which a mask of shape (N,) is true."""
        user, item, rating, run = (
            self.user[mask],
            self.item[mask],
            self.rating[mask],
            self.run[mask],
        )
        return RatingRows(user, item, rating, run, self.n_users, self.n_items, self.n_runs)

    def of_users(self, value: Tensor) -> Tensor:
        """Sums of the rows' values by user, float64 (N,) to (U,)."""
        return torch.bincount(self.user, weights=value, minlength=self.n_users)

    def of_items(self, value: Tensor) -> Tensor:
        """Sums of the rows' values by item, float64 (N,) to (I,)."""
        return torch.bincount(self.item, weights=value, minlength=self.n_items)

    def log_shares(self, group: Tensor, n_groups: int) -> Tensor:
        """Logarithms of the shares of the runs among the ratings of users or items.

        Args:
            group: Which user or item each row is counted for, int64 (N,).
            n_groups: U or I.

        Returns:
            Float64 (U or I, S); those of the domain where there are no ratings.
        """
        place = group * self.n_runs + self.run  # (N,)
        counts = torch.bincount(place, minlength=n_groups * self.n_runs).double()
        counts = counts.view(n_groups, self.n_runs)
        overall = (counts.sum(0) + 1 / self.n_runs) / (len(self.run) + 1)  # (S,), none of them 0
        shrunken = counts + _PSEUDO_RATINGS * overall  # (G, S)
        return (shrunken / shrunken.sum(1, keepdim=True)).log()


def runs_of_values(rating: Tensor) -> tuple[Tensor, int]:
    """Cut a scale into runs of neighbouring values: each value by itself, or five of some.

    Args:
        rating: (N,).

    Returns:
        The run of each rating, int64 (N,), and the number of runs.

    >>> runs_of_values(torch.tensor([1.0, 5.0, 3.0]))
    (tensor([0, 2, 1]), 3)
    """
    values, place = torch.unique(rating, return_inverse=True)
    n_runs = min(len(values), _MOST_RUNS)
    return place * n_runs // len(values), n_runs


@dataclass(frozen=True, eq=False)
class Texts:
    """Directions in which items' texts differ most.

    Attributes:
        directions: Float64 (I, D); zeros without text.
        known: Which items have a text, bool (I,).
    """

    directions: Tensor
    known: Tensor


def text_directions(texts: Tensor, known: Tensor) -> Texts:
    """The principal directions of texts, 64 or as many as there are.

    Args:
        texts: Centred texts of all items, float32 (I, d); zeros without text.
        known: Which items have a text, bool (I,).
    """
    vectors = torch.linalg.eigh((texts.T @ texts).double()).eigenvectors  # (d, d), ascending
    main = vectors[:, -_DIRECTIONS:]  # (d, D)
    parts = [part.double() @ main for part in texts.split(_ITEMS_AT_ONCE)]
    return Texts(torch.cat(parts), known)


def text_prior(texts: Texts, mean: Tensor, count: Tensor, shrinkage: float) -> Tensor:
    """What items' texts say of their biases, by a ridge regression on the directions.

    Of a rated item the prediction is made without its own fold of items, so that what it is
    combined with, the item's own ratings, is not in it.

    Args:
        texts: The items' texts.
        mean: Mean of the ratings of each item less what the users explain, float64 (I,).
        count: Ratings of each item, float64 (I,).
        shrinkage: Variance of a rating over that of the biases, in ratings.

    Returns:
        Float64 (I,); 0 without text.
    """
    rated = texts.known & (count > 0)
    known = count[rated]  # (n,)
    # One over the variance of a mean; without shrinkage that of the biases alone, any will do.
    weight = shrinkage * known / (shrinkage + known) if shrinkage else torch.ones_like(known)
    fold = torch.arange(len(weight)) % _TEXT_FOLDS
    ridge = fit_fold_ridge(texts.directions[rated], mean[rated], weight, fold, _TEXT_FOLDS)
    prior = torch.where(texts.known, ridge(texts.directions), 0.0)
    prior[rated] = ridge.left_out
    return prior


@dataclass(frozen=True, eq=False)
class ItemStatistics:
    """What a domain's ratings say of its items.

    Attributes:
        mean: Of all ratings.
        bias: Of items, shrunk towards what their texts say where there are texts, float64 (I,).
        log_count: Logarithm of 1 + the number of ratings, float64 (I,).
        columns: Float64 (I, S + 4): bias, log count, spread, log shares of the runs of values,
            squared bias. Of an item without ratings: what its text says, and the domain's average.
    """

    mean: float
    bias: Tensor
    log_count: Tensor
    columns: Tensor


def item_statistics(
    rows: RatingRows, biases: Biases[Tensor], shrinkage: float, texts: Texts | None
) -> ItemStatistics:
    """Describe a domain's items.

    Args:
        rows: The domain's ratings.
        biases: Fitted on them.
        shrinkage: Of the item biases, in ratings.
        texts: The items' texts; None: biases are shrunk towards 0.
    """
    count = rows.of_items(torch.ones_like(rows.rating))  # (I,)
    unexplained = rows.rating - biases.mean - biases.user[rows.user]  # (N,)
    total = rows.of_items(unexplained)  # (I,)
    prior = torch.zeros_like(total)
    if texts is not None:
        prior = text_prior(texts, total / count.clamp_min(1), count, shrinkage)
    bias = (total + shrinkage * prior) / (count + shrinkage).clamp_min(_LEAST)
    spread = _spread(unexplained - bias[rows.item], rows.of_items, count)
    log_count = count.log1p()
    columns = [
        bias,
        log_count,
        spread,
        *rows.log_shares(rows.item, rows.n_items).unbind(1),
        bias.square(),
    ]
    return ItemStatistics(biases.mean, bias, log_count, torch.stack(columns, dim=1))


def user_statistics(rows: RatingRows, items: ItemStatistics, shrinkage: float) -> Tensor:
    """Describe a domain's users by how they rate, and by what.

    Args:
        rows: The domain's ratings.
        items: The domain's items, by the same ratings.
        shrinkage: Of the users' biases, in ratings.

    Returns:
        Float64 (U, S + 7): bias, log count, spread, log shares of the runs of values, mean bias and
        mean popularity of the items rated, squared bias, and bias times log count less the average
        user's.
    """
    count = rows.of_users(torch.ones_like(rows.rating))  # (U,)
    unexplained = rows.rating - items.mean - items.bias[rows.item]  # (N,)
    bias = rows.of_users(unexplained) / (count + shrinkage).clamp_min(_LEAST)
    popularity = items.log_count[rows.item]  # (N,)
    log_count = count.log1p()
    columns = [
        bias,
        log_count,
        _spread(unexplained - bias[rows.user], rows.of_users, count),
        *rows.log_shares(rows.user, rows.n_users).unbind(1),
        rows.of_users(items.bias[rows.item]) / (count + _PSEUDO_RATINGS),
        rows.of_users(popularity - popularity.mean()) / (count + _PSEUDO_RATINGS),
        bias.square(),
        bias * (log_count - log_count[count > 0].mean()),
    ]
    return torch.stack(columns, dim=1)


def _spread(error: Tensor, sums: Callable[[Tensor], Tensor], count: Tensor) -> Tensor:
    """Root mean squares of users' or items' errors, shrunk towards that of all, (N,) to (G,)."""
    squares = error.square()
    total = sums(squares) + _PSEUDO_RATINGS * squares.mean()
    return (total / (count + _PSEUDO_RATINGS)).sqrt()
