"""Ridge regressions of target rows on several profiles, and the mixture of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_cdr_mm.layers.history_profile import row_basis
from recbole_cdr_mm.layers.ndcg import ndcg
from recbole_cdr_mm.layers.ridge_regression import RidgeRegression, decompose
from recbole_cdr_mm.layers.stacking import stack

_PENALTIES = (3.0, 30.0)  # of the regressions, in mean squared lengths of a profile
_EXPONENTS = (0.0, 0.5)  # a user's target row is divided by its sum to this power
_STACKED_USERS = 4096  # are enough for 27 weights
_RANKED_USERS = 1024  # are enough to choose one of three mixtures
_PLACES = 200  # of a ranking that count; fewer are decided by chance where users are few
_USERS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Regressions:
    """Ridge regressions on one kind of profile, with each penalty and exponent.

    Attributes:
        ridge: The decomposition of the training users' profiles.
        moments: F' Y of each exponent, float32 (E, r, I).
        means: Mean target row of each exponent, float32 (E, I).
    """

    ridge: RidgeRegression
    moments: Tensor
    means: Tensor


def regress(profile: Tensor, rows: Tensor) -> Regressions:
    """Regress target rows on profiles.

    Args:
        profile: Of the training users (n, p).
        rows: Their target rows, sparse, float64 (n, I); none is empty.
    """
    ridge = decompose(profile)
    count = rows.sum(1).to_dense()  # (n,)
    moments, means = [], []
    for exponent in _EXPONENTS:
        share = (count**-exponent).unsqueeze(1)  # (n, 1)
        moments.append((rows.T @ (share * ridge.features)).T.float())  # (r, I)
        means.append((rows.T @ share).squeeze(1).float() / len(share))  # (I,)
    return Regressions(ridge, torch.stack(moments), torch.stack(means))


@dataclass(frozen=True, eq=False)
class Smoothing:
    """Predicted rows, pulled to what users of the target domain alone are like.

    What a row has beyond the mean of these users' rows is replaced by its projection on the main
    directions of their rows. So few overlapped users say no more than they can know.

    Attributes:
        mean: Mean of their target rows (I,).
        directions: Orthonormal columns (I, s); none, or zeros, where there are fewer.
    """

    mean: Tensor
    directions: Tensor

    def __call__(self, predicted: Tensor) -> Tensor:
        """Smooth rows (..., I)."""
        return self.mean + self.project(predicted - self.mean)

    def project(self, beyond: Tensor) -> Tensor:
        """Project rows (..., I) on the directions."""
        return (beyond @ self.directions) @ self.directions.T


def smooth_by(rows: Tensor, n_directions: int, seed: int) -> Smoothing:
    """The smoothing by some users' rows, sparse, float64 (a, I); they may be none."""
    mean = rows.sum(0).to_dense().float() / max(1, rows.shape[0])
    return Smoothing(mean, row_basis(rows, min(n_directions, *rows.shape), seed))


@dataclass(frozen=True, eq=False)
class RidgeMembers:
    """All that is mixed: 19 or, with texts, 27 predictions of a user's target row.

    They are the regressions', the mean row of the training users, all of these smoothed, and the
    mean row of users of the target domain alone.

    Attributes:
        regressions: Of each kind of profile, by its name.
        rows: Target rows of the training users, as they are regressed, sparse, float64 (n, I).
        positives: What has to be said of them, 1 for a positive, likewise (n, I).
        smoothing: By users of the target domain alone.
        seed: Draws the training users whose predictions are made, where there are many.
    """

    regressions: dict[str, Regressions]
    rows: Tensor
    positives: Tensor
    smoothing: Smoothing
    seed: int

    @property
    def names(self) -> list[str]:
        """What each member is: profile/penalty/exponent, or what is popular, and where."""
        own = [
            f"{name}/{penalty:g}/{exponent:g}"
            for name in self.regressions
            for exponent in _EXPONENTS
            for penalty in _PENALTIES
        ]
        own.append("popular")
        return [*own, *(f"smooth {name}" for name in own), "popular elsewhere"]

    @property
    def _n_own(self) -> int:
        """How many come first, before they are smoothed."""
        return len(self.regressions) * len(_EXPONENTS) * len(_PENALTIES) + 1

    def weights(self) -> Tensor:
        """How much each member is believed, float64 (M,).

        Stacked regressions of the training users' positives on what is predicted of them without
        them, once with smoothed members and once without. Of the two mixtures and their mean it is
        the one that ranks these positives best, by NDCG at 200 places: the smaller squared error of
        all items may go with a worse order of the first ones.
        """
        drawn = torch.Generator().manual_seed(self.seed)
        users = torch.randperm(self.rows.shape[0], generator=drawn)
        products = stack(self.left_out(users[:_STACKED_USERS]))
        plain = torch.ones(len(products.moment), dtype=torch.bool)
        plain[self._n_own : -1] = False
        without, with_smoothed = products.weights(plain), products.weights(torch.ones_like(plain))
        mixtures = [without, (without + with_smoothed) / 2, with_smoothed]
        values = self._ndcg(mixtures, users[:_RANKED_USERS])
        return mixtures[values.index(max(values))]

    def _ndcg(self, mixtures: list[Tensor], users: Tensor) -> list[float]:
        """Mean NDCG of each mixture's left-out rankings of some training users."""
        totals = [0.0] * len(mixtures)
        for predictions, positive in self.left_out(users):
            for which, weights in enumerate(mixtures):
                mixed = torch.einsum("m,mbi->bi", weights.float(), predictions)
                totals[which] += float(ndcg(mixed, positive, _PLACES).sum())
        return [total / len(users) for total in totals]

    def left_out(self, users: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """What each member says of training users without their target rows.

        Args:
            users: Which training users, int64 (q,).

        Yields:
            Predictions (M, b, I) and positives (b, I) of some users at a time, the predictions each
            time in one place.
        """
        n = self.rows.shape[0]
        regressions = list(self.regressions.values())
        leverages = [[r.ridge.leverages(penalty) for penalty in _PENALTIES] for r in regressions]
        mean = regressions[0].means[0]  # (I,)
        made = mean.new_empty(len(self.names), _USERS_AT_ONCE, len(mean))  # (M, b, I)
        for some in users.split(_USERS_AT_ONCE):
            value = self.rows.index_select(0, some).to_dense().float()  # (b, I)
            count = value.sum(1, keepdim=True)  # (b, 1)
            predictions = made[:, : len(some)]
            own, smoothed = predictions[: self._n_own], predictions[self._n_own : -1]
            empty = iter(own)  # of (b, I) each
            for regression, of_penalty in zip(regressions, leverages, strict=True):
                features = regression.ridge.features[some]  # (b, r)
                for e, exponent in enumerate(_EXPONENTS):
                    row = value * count**-exponent  # (b, I)
                    for penalty, of_users in zip(_PENALTIES, of_penalty, strict=True):
                        shrunk = (features * regression.ridge.shrinkage(penalty)).float()  # (b, r)
                        leverage = of_users[some].float().unsqueeze(1)  # (b, 1)
                        prediction = next(empty)
                        torch.addmm(
                            regression.means[e], shrunk, regression.moments[e], out=prediction
                        )
                        prediction.sub_(leverage * row).div_(1 - leverage)
            next(empty).copy_((mean - value / n) / (1 - 1 / n))
            for prediction, smooth in zip(own, smoothed, strict=True):
                smooth.copy_(self.smoothing(prediction))
            predictions[-1] = self.smoothing.mean
            yield predictions, self.positives.index_select(0, some).to_dense().float()

    def combined(self, weights: Tensor) -> Tensor:
        """The mixture as one linear map from all profiles side by side.

        Args:
            weights: Of the members (M,).

        Returns:
            The items' weights, with their intercepts as the last column, (I, p + 1).
        """
        own, smoothed = weights[: self._n_own], weights[self._n_own : -1]
        mean, smooth = self.smoothing.mean, float(smoothed.sum())
        maps, intercept = self._summed(own)
        smooth_maps, smooth_mean = self._summed(smoothed)
        intercept = intercept + (float(weights[-1]) + smooth) * mean
        intercept = intercept + self.smoothing.project(smooth_mean - smooth * mean)
        rotated = []
        for regression, of_own, of_smooth in zip(
            self.regressions.values(), maps, smooth_maps, strict=True
        ):
            of_features = of_own + self.smoothing.project(of_smooth)  # (r, I)
            rotated.append(regression.ridge.rotation.float() @ of_features)  # (p, I)
            intercept = intercept - regression.ridge.centre.float() @ rotated[-1]
        return torch.cat([*rotated, intercept.unsqueeze(0)]).T

    def _summed(self, weights: Tensor) -> tuple[list[Tensor], Tensor]:
        """The own members' sum: maps of each kind of features (r, I), and the mean row (I,)."""
        *of_regressions, popular = weights.tolist()
        each = iter(of_regressions)
        regressions = list(self.regressions.values())
        mean = popular * regressions[0].means[0]  # (I,)
        maps = []
        for regression in regressions:
            summed = torch.zeros_like(regression.moments[0])  # (r, I)
            for moment, own_mean in zip(regression.moments, regression.means, strict=True):
                for penalty in _PENALTIES:
                    weight = next(each)
                    shrunk = weight * regression.ridge.shrinkage(penalty).float().unsqueeze(1)
                    summed += shrunk * moment
                    mean = mean + weight * own_mean
            maps.append(summed)
        return maps, mean
