"""RidgeBridge: one ridge regression from a user's source row to the target row. A floor of ranking.

Reference:
    Hoerl and Kennard. "Ridge Regression: Biased Estimation for Nonorthogonal Problems."
    Technometrics, 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.sparse_rows import sparse_rows
from recbole_cdr_mm.layers.history_profile import HistoryProfile, row_basis, score_profiles
from recbole_cdr_mm.layers.ridge_regression import decompose
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import Stage

_ROW_SCALES = {"raw": 0.0, "unit": 0.5}  # powers of the number of items that a row is divided by
_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)  # in mean squared lengths of a row
_UNCHOSEN = ("raw", 3.0)  # scale and penalty without validation users


class RidgeBridge(CrossDomainRecommender):
    """The target row that a user's source row lets expect, with an intercept, in closed form.

    Fitted on overlapped training users: 1 for a positive, else 0, in both domains. What of
    `row_scale` and `ridge_penalty` is not given is chosen on the validation users; without any it
    is raw rows and a penalty of 3. Users with target ratings in training are scored like all
    others, by their source row.

    Source: none; the regression is Hoerl and Kennard's, with an unpenalised intercept.

    Deviations: with more overlapped training users than `row_rank` the source rows are projected
    on about their `row_rank` main directions.
    """

    eval_tasks: ClassVar[tuple[str, ...]] = ("ranking",)
    kind = "floor"
    final_stage = "regression"
    weight: Tensor
    power: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        pair = dataset.pair
        rank = min(
            config["row_rank"],
            len(self.overlapped_training_users(dataset)),
            pair.n_source_items,
        )
        self.rows = HistoryProfile(1 + pair.n_source_items, rank, "sum")
        n_target_items = self.n_items - self.first_target_item
        self.register_buffer("weight", torch.zeros(n_target_items, rank + 1))
        self.register_buffer("power", torch.tensor(0.0))
        self._histories = dataset.histories(positive_only=True).to(self.device)

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage in closed form."""
        return [
            Stage(
                self.final_stage, prepare=lambda: self._choose(dataset, validate), validate=validate
            )
        ]

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """What the regression expects, (B,)."""
        users, place = torch.unique(user, return_inverse=True)
        profile = self._profile(users)  # (b, r + 1)
        return score_profiles(profile, self.weight, place, item - self.first_target_item)

    def rate_all(self, user: Tensor) -> Tensor:
        """The same of all target items, (b,) to (b, n)."""
        return self._profile(user) @ self.weight.T

    def _profile(self, user: Tensor) -> Tensor:
        """Scaled source rows on the basis, and a 1 for the intercept, (B,) to (B, r + 1)."""
        item, _, row = self._histories.of(user)
        count = torch.bincount(row, minlength=len(user)).clamp(min=1)  # (B,)
        rows = self.rows(item, row, len(user)) / (count**self.power).unsqueeze(1)  # (B, r)
        return torch.nn.functional.pad(rows, (0, 1), value=1.0)

    def _choose(self, dataset: PairDataset, validate: Callable[[], float] | None) -> None:
        """Fit all that may be chosen from, and keep the best on the validation users."""
        config = self.config
        scales = [config["row_scale"]] if config["row_scale"] else [*_ROW_SCALES]
        penalties = [config["ridge_penalty"]] if config["ridge_penalty"] else [*_PENALTIES]
        if validate is None:
            scales = [config["row_scale"] or _UNCHOSEN[0]]
            penalties = [config["ridge_penalty"] or _UNCHOSEN[1]]
        fits = self._fits(dataset, scales, penalties)
        if len(scales) * len(penalties) == 1:
            self._take_over(next(fits))
            return
        assert validate is not None
        sign = 1 if config["valid_metric_bigger"] else -1
        best_score, best = -float("inf"), None
        for fit in fits:
            self._take_over(fit)
            score = sign * validate()
            if score > best_score:
                best_score, best = score, fit
        assert best is not None  # a score is a number
        self._take_over(best)
        self.logger.info("RidgeBridge: %s rows, penalty %g", best.row_scale, best.penalty)

    def _take_over(self, fit: _Fit) -> None:
        self.weight.copy_(fit.weight)
        self.power.fill_(_ROW_SCALES[fit.row_scale])

    @torch.no_grad()
    def _fits(
        self, dataset: PairDataset, scales: Sequence[str], penalties: Sequence[float]
    ) -> Iterator[_Fit]:
        """Fit with each scale and penalty, on the CPU."""
        pair, users = dataset.pair, self.overlapped_training_users(dataset)
        source = sparse_rows(pair.source, users, pair.items("source"))  # (n, m)
        self.rows.item_e[1:] = row_basis(source, self.rows.item_e.shape[1], self.config["seed"])
        target = sparse_rows(dataset.split.train, users, pair.items("target"))  # (n, I)
        mean = target.sum(0).to_dense() / len(users)  # (I,)
        for scale in scales:
            self.power.fill_(_ROW_SCALES[scale])
            rows = self._profile(torch.from_numpy(users).to(self.device))[:, :-1]  # (n, r)
            ridge = decompose(rows.cpu())
            moment = (target.T @ ridge.features).T  # (r, I)
            for penalty in penalties:
                weight = ridge.rotation @ (ridge.shrinkage(penalty).unsqueeze(1) * moment)
                intercept = mean - ridge.centre @ weight  # (I,)
                yield _Fit(scale, penalty, torch.cat([weight, intercept.unsqueeze(0)]).T.float())


@dataclass(frozen=True, eq=False)
class _Fit:
    """A regression: its scale and penalty, and weights with the intercept last (I, r + 1)."""

    row_scale: str
    penalty: float
    weight: Tensor
