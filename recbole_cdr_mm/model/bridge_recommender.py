"""The skeleton of all bridges: two base models, and a map of users' vectors between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import SimulatedUsers, draw_folds
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.all_pairs import log_normalisers, score_all_pairs
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.cold_view import ColdView, cross_fitted_view, plain_view
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.model.few_shot import FewShotUsers
from recbole_cdr_mm.model.initialisation import Initialisation
from recbole_cdr_mm.model.starting_floor import CalibratedStart, PlainStart, StartingFloor
from recbole_cdr_mm.stage import Stage, Training

_USERS_AT_ONCE = 4096


class BridgeRecommender(CrossDomainRecommender):
    """Pre-train both domains, train the bridge between them, score cold-start users over it.

    A model says how a user's vector is transformed (`transform`) and by which parameters
    (`bridge_parameters`). A cold-start user is scored by floor(u, i) + u_hat . w_i, where w_i is
    what the target model multiplies a user's vector with (v_i on MF, h * v_i on GMF). A user with
    target ratings in training is scored by the target model itself.

    Source: Algorithm 1 of MetaMMCDR, whose steps are those of EMCDR and PTUPCDR, and its Eq. 6 and
    7 for the two losses.

    Deviations: with `start_from_floor` and `eval_task: rating` the score is added to
    CalibratedTransfer's floor, w_i are ridge regressions on the target model's user vectors, and
    the bridge is trained on simulated cold users, whose own ratings are neither in the item biases
    nor in the item weights that they are scored with. The target model's user vectors, and the
    floor's three weights, are fitted with all training ratings. The floor alone counts until an
    epoch of the bridge beats it by more than the noise of the validation users. With `eval_task:
    ranking` the target model's own intercepts and weights are met by all. Where ratings are
    many, all ratings of a user come in one batch; the paper does not say what a batch is.
    """

    final_stage = "bridge"
    shared_properties: ClassVar[tuple[str, ...]] = ("base_model", "bridge", "simulated_users")
    _view: ColdView

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        is_rating = config["eval_task"] == "rating"
        if is_rating and config["simulate_cold_users"] and not config["start_from_floor"]:
            raise ConfigError(
                "`simulate_cold_users: True` needs `start_from_floor: True`. Give"
                " --simulate_cold_users=False."
            )
        self._simulated = self._simulated_users(dataset)
        pair, size = dataset.pair, config["embedding_size"]
        self.n_overlapped = pair.n_overlapped
        self.n_source_users = 1 + pair.n_overlapped + pair.n_source_only
        self.source, self.target = self.build_base_models(dataset)
        self.few_shot: FewShotUsers | None = None
        if config["few_shot"] is not None:
            users = np.union1d(dataset.split.test_users, dataset.split.valid_users)
            self.few_shot = FewShotUsers(users, self.n_users, size, use_bias=config["use_bias"])
        # what cold-start users meet; filled when the bridge's stage starts
        self.floor = self.build_floor(dataset)
        self.register_buffer("cold_item_e", torch.zeros(self.n_items, size))
        self._bridged: Tensor | None = None

    def build_base_models(self, dataset: PairDataset) -> tuple[MF, MF]:
        """The base models of source and target domain."""
        return self.base_model(dataset, "source"), self.base_model(dataset, "target")

    def build_floor(self, dataset: PairDataset) -> StartingFloor:
        """What the bridge's score is added to."""
        if self.starts_from_rating_floor:
            return CalibratedStart(self.n_users, self.n_items, self.config)
        return PlainStart(self.n_users, self.n_items)

    # Stages

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """Pre-training of what is needed, the bridge, and the initialisation stage of few-shot."""
        pair, train = dataset.pair, dataset.split.train
        if self.config["select_epoch"] == "last":
            validate = None
        target = self.pretraining("target", self.target, train, pair.items("target"))
        pretraining = [target]
        if self.floor.takes_bridge:
            source = self.pretraining("source", self.source, pair.source, pair.items("source"))
            pretraining = [source, target]
        stages = [
            *pretraining,
            Stage(
                self.final_stage,
                prepare=lambda: self._enter_bridge_stage(dataset),
                training=self.bridge_training(dataset) if self.floor.takes_bridge else None,
                validate=validate,
                keeps_start=self.starts_from_rating_floor,
                requires=tuple(stage.name for stage in pretraining),
            ),
        ]
        if self.few_shot is not None:
            stages.append(Initialisation(self, self.few_shot, dataset).stage(validate))
        return stages

    def bridge_training(self, dataset: PairDataset) -> Training:
        """How the bridge is trained: by the loss that `bridge_loss` names."""
        train = {"task": self._task_oriented, "mapping": self._mapping_oriented}
        return train[self.config["bridge_loss"]](dataset)

    def _task_oriented(self, dataset: PairDataset) -> Training:
        """Eq. 7: errors of the target ratings of overlapped training users."""
        train = dataset.split.train
        rows = train.where(np.isin(train.user, self.overlapped_training_users(dataset)))
        return Training(
            trains=self.bridge_parameters,
            loss=self.task_oriented_loss,
            loader=self.loader(
                "meta",
                rows,
                dataset.pair.items("target"),
                of_users=self._shuffles_users(len(rows)),
            ),
            max_epochs=self.max_epochs("meta"),
        )

    def _shuffles_users(self, n_rows: int) -> bool:
        """Whether `meta_batches` is users or, where it is not set, their batches would be grown.

        In a batch of ordinary size there are too few users to learn from (benchmarks/RESULTS.md).
        """
        if self.config["meta_batches"] is not None:
            return bool(self.config["meta_batches"] == "users")
        if self.config["meta_batch_size"] is not None:
            return False
        grown = self.batch_size("meta", n_rows, of_users=True)
        return grown > self.config["train_batch_size"]

    def _mapping_oriented(self, dataset: PairDataset) -> Training:
        """Eq. 6: distance of the transformed and the target vector of overlapped training users."""
        users = self.overlapped_training_users(dataset)
        return Training(
            trains=self.bridge_parameters,
            loss=self.mapping_oriented_loss,
            loader=self.row_loader("map", {self.USER_ID: torch.from_numpy(users)}),
            max_epochs=self.max_epochs("map"),
        )

    @property
    @abstractmethod
    def bridge_parameters(self) -> tuple[nn.Parameter, ...]:
        """What the bridge's stage trains."""

    # Losses of the bridge

    def task_oriented_loss(self, batch: Interaction) -> Tensor:
        """Eq. 7, a scalar: squared error (or BPR, or CE) of the scores over the bridge."""
        users = torch.unique(batch[self.USER_ID])  # (b,)
        user_e = self.transform(users)  # (b, k), once a user

        def own_vectors(user: Tensor) -> Tensor:
            return user_e.index_select(0, torch.searchsorted(users, user))  # (B, k)

        def score(user: Tensor, item: Tensor) -> Tensor:
            return self._score_in_training(user, own_vectors(user), item)

        def normalise(user: Tensor) -> Tensor:
            (item_e,) = self._view.item_e  # in a ranking all users meet the same
            return self.log_normalisers(user, own_vectors(user), item_e, self.floor.of_simulated)

        penalty = self.config["bridge_reg_weight"] * user_e.square().sum(1).mean()
        return self.losses_of_scores(score, normalise, batch).mean() + penalty

    def mapping_oriented_loss(self, batch: Interaction) -> Tensor:
        """Eq. 6, a scalar: mean squared distance of transformed and target vectors."""
        user = batch[self.USER_ID]
        return (self.transform(user) - self.target.users.vectors(user)).square().sum(1).mean()

    # Forward

    @abstractmethod
    def transform(self, user: Tensor) -> Tensor:
        """Vectors for the target domain of users with source vectors, int64 (B,) to (B, k)."""

    def item_weight(self, weight: Tensor, item: Tensor) -> Tensor:
        """What a bridged vector is multiplied with: the target model's weights as they are.

        Args:
            weight: The target model's weights of the items (B, k).
            item: Item ids (B,).
        """
        return weight

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The target model's score for users it knows, the bridge's for cold-start users, (B,)."""
        warm = self.is_warm[user]  # (B,)
        known = self.target(torch.where(warm, user, 0), item)  # (B,)
        floor_user, bias, user_e = self._cold_start(torch.where(warm, 0, user))
        cold = self.floor(floor_user, item) + bias + self.product(user_e, item)
        return torch.where(warm, known, cold)

    def rate_all(self, user: Tensor) -> Tensor:
        """The same of all target items, (b,) to (b, n)."""
        warm = self.is_warm[user]  # (b,)
        items = self.target.items.ids  # (n,)
        scores = self.cold_item_e.new_empty(len(user), len(items))  # (b, n)
        if warm.any():
            scores[warm] = self.target.score_all(*self.target.users(user[warm]))
        if not warm.all():
            floor_user, bias, user_e = self._cold_start(user[~warm])
            weight = self.item_weight(self.cold_item_e[items], items)  # (n, k)
            floor = self.floor.score_all(floor_user, slice(self.first_target_item, self.n_items))
            scores[~warm] = floor + bias.unsqueeze(1) + self.target.place(user_e) @ weight.T
        return scores

    def _cold_start(self, user: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of cold-start users, (B,): whose floor is theirs (B,), bias (B,) and vector (B, k)."""
        user_e = self.bridged_e(user)
        if self.few_shot is None:
            return user, user_e.new_zeros(len(user)), user_e
        user_e, bias = self.few_shot(user, user_e)
        return self.few_shot.floor_user(user), bias, user_e

    def train(self, mode: bool = True) -> BridgeRecommender:
        """Switch between training and evaluation; vectors are transformed once per evaluation."""
        self._bridged = None
        return super().train(mode)

    def bridged_e(self, user: Tensor) -> Tensor:
        """Transformed vectors, (B,) to (B, k); zeros for padding and users without a source vector.

        Each user's is made when it is first asked for, and kept until the end of the evaluation.
        Where no bridge is trained they are all zeros.
        """
        if not self.floor.takes_bridge:
            return self.cold_item_e.new_zeros(len(user), self.cold_item_e.shape[1])
        if self._bridged is None:
            self._bridged = self.cold_item_e.new_zeros(self.n_users, self.cold_item_e.shape[1])
            self._is_bridged = torch.ones_like(self.is_warm)
            self._is_bridged[1 : self.n_source_users] = False
        missing = torch.unique(user[~self._is_bridged[user]])
        with torch.no_grad():
            for part in missing.split(_USERS_AT_ONCE):
                self._bridged[part] = self.transform(part)
        self._is_bridged[missing] = True
        return self._bridged[user]

    def product(self, user_e: Tensor, item: Tensor) -> Tensor:
        """What the bridge adds, as users who are really cold meet it, (B, k) and (B,) to (B,)."""
        weight = self.item_weight(self.cold_item_e[item], item)  # (B, k)
        return (self.target.place(user_e) * weight).sum(1)

    def _score_in_training(self, user: Tensor, user_e: Tensor, item: Tensor) -> Tensor:
        """Floor plus dot product in the view that holds nothing of the users' own ratings, (B,)."""
        weight = self.item_weight(self._view.item_e[self._view.met[user], item], item)  # (B, k)
        return self.floor.of_simulated(user, item) + (user_e * weight).sum(1)

    def log_normalisers(
        self,
        user: Tensor,
        user_e: Tensor,
        item_e: Tensor,
        floor: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Logs of sum_i exp(floor(u, i) + u_hat . w_i) over all target items, (b,).

        Args:
            user: Users of the floor, int64 (b,).
            user_e: Vectors (b, k).
            item_e: Weights of the items (I, k).
            floor: Scores pairs, (B,) and (B,) to (B,).
        """
        item = self.target.items.ids  # (n,)
        weight = self.item_weight(item_e[item], item)  # (n, k)

        def scores(users: slice) -> Tensor:
            return score_all_pairs(floor, user[users], item) + user_e[users] @ weight.T

        return log_normalisers(scores, len(user), len(item))

    # What cold-start users meet

    @property
    def trains_on_ratings(self) -> bool:
        """Whether the bridge's loss reads target ratings, not vectors alone."""
        return bool(self.config["bridge_loss"] == "task")

    @property
    def starts_from_rating_floor(self) -> bool:
        """Whether the floor predicts ratings, and is fitted on simulated cold-start users."""
        return self.config["start_from_floor"] and self.config["eval_task"] == "rating"

    def _simulated_users(self, dataset: PairDataset) -> SimulatedUsers | None:
        """Folds of simulated cold-start users, where the floor is fitted on them."""
        if not self.starts_from_rating_floor:
            return None
        n_folds = self.config["simulation_folds"]
        fold = draw_folds(dataset.pair, dataset.split, n_folds, self.config["seed"])
        is_met = self.config["simulate_cold_users"] and self.trains_on_ratings
        return SimulatedUsers(fold, n_folds, is_met)

    def _enter_bridge_stage(self, dataset: PairDataset) -> None:
        """Fit the floor, and make the view of the trained target model."""
        simulated = self._simulated
        fitted = self.floor.fit(self.target, dataset, simulated)
        self.logger.info("Floor of cold-start users: %s", fitted)
        if not self.floor.takes_bridge:
            self.logger.info(
                "No bridge is trained on it. The target model, with base_model, loss_type and"
                " epochs, is for users with target ratings in training."
            )
        self._view = self.cold_view(dataset, simulated)
        self.cold_item_e.copy_(self._view.item_e[-1])

    def cold_view(self, dataset: PairDataset, simulated: SimulatedUsers | None) -> ColdView:
        """The item weights that cold-start users meet, of the target model as it is now."""
        if simulated is None:
            return plain_view(self.target, dataset.pair)
        return cross_fitted_view(self.target, dataset, self.config, simulated)
