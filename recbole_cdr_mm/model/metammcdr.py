"""MetaMMCDR: a personalised bridge, made from the text of what a user liked in the source domain.

Reference:
    MetaMMCDR, with its own numbers of equations and of Algorithm 1. It extends PTUPCDR: Zhu et al.
    "Personalized Transfer of User Preferences for Cross-domain Recommendation." WSDM 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import draw_folds
from recbole_cdr_mm.data.history import Histories
from recbole_cdr_mm.data.pair import DomainName
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.bridge import MetaNetwork, apply_bridge
from recbole_cdr_mm.layers.characteristic_encoder import CharacteristicEncoder
from recbole_cdr_mm.layers.initialise import seeded_linear
from recbole_cdr_mm.layers.item_encoder import TextProjection
from recbole_cdr_mm.layers.ridge import solve_item_vectors
from recbole_cdr_mm.model.base_models import MF
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.model.floors import fit_domain_biases, fit_floor
from recbole_cdr_mm.stage import Stage, Training

_USERS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class ColdView:
    """The target domain as a cold-start user meets it: what the bridged vector is scored with.

    A view has one row per fold of simulated cold users, made without their target ratings, and as
    its last row the one for users who are really cold.

    Attributes:
        item_floor: Score of each item before the user is known, (F + 1, I).
        item_e: Item vectors, (F + 1, I, k).
        user_floor: What is added for a user, (U,).
        fold: Which row a user meets in training, int64 (U,).
    """

    item_floor: Tensor
    item_e: Tensor
    user_floor: Tensor
    fold: Tensor


class MetaMMCDR(CrossDomainRecommender):
    """Pre-train both domains, then learn to generate each user's bridge from their source history.

    A cold-start user is scored by floor(u, i) + (u^s W_u) . v_i, with W_u = g(p_u), and p_u pooled
    by attention from the texts of the source history. A user with target ratings in training is
    scored by the target model itself.

    Source: MetaMMCDR, Algorithm 1, steps 1-3; Eq. 1 (text features), 2-3 (characteristic), 4 (meta
    network), 5 (bridge), 6 (mapping-oriented loss), 7 (task-oriented loss).

    Deviations:
        A learned projection d -> k stands before Eq. 2 (see `TextProjection`). In Eq. 7 the target
        item's vector v_j is the target model's; the bold v could also be read as the text's.
        An empty source history gives p_u = 0, so all such users share one bridge.
        Preset `default` alone, with `eval_task: rating`: biases in the base models; a rating-aware
        encoder; the score is added to CalibratedTransfer's floor, and the bridges begin at 0; the
        bridge is trained on simulated cold users, whose own ratings are neither in the item biases
        nor in the item vectors that they are scored with. The target model's user vectors, and the
        floor's three weights, are fitted with all training ratings. With `eval_task: ranking` the
        target model's own biases and vectors are met by all.
    """

    final_stage = "bridge"

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        if config["simulate_cold_users"] and not config["start_from_floor"]:
            raise ConfigError(
                "`simulate_cold_users: True` needs `start_from_floor: True`. Give"
                " --simulate_cold_users=False."
            )
        pair, size = dataset.pair, config["embedding_size"]
        self.n_overlapped = pair.n_overlapped
        self.n_source_users = 1 + pair.n_overlapped + pair.n_source_only

        # layers
        means = (float(rows.rating.mean()) for rows in (pair.source, dataset.split.train))
        domains: tuple[DomainName, ...] = ("source", "target")
        self.source, self.target = (
            MF(pair, domain, mean=mean, config=config, generator=self.generator)
            for domain, mean in zip(domains, means, strict=True)
        )
        self.text: TextProjection | None = None
        if config["item_features"] in ("text", "both"):
            features = dataset.text_features("source")
            source_rows = slice(0, pair.items("source").stop)
            self.text = TextProjection(
                torch.from_numpy(features.matrix[source_rows]),
                torch.from_numpy(features.known[source_rows]),
                size,
                self.generator,
            )
        self.reads_id = config["item_features"] in ("id", "both")
        self.rating_gate: nn.Linear | None = None
        if config["rating_aware"]:
            self.rating_gate = seeded_linear(2 * size, size, self.generator, bias=False)
        self.characteristic_encoder = CharacteristicEncoder(size, self.generator)
        self.meta_network = MetaNetwork(
            size,
            config["meta_hidden_size"],
            self.generator,
            start_at_zero=config["start_from_floor"],
        )

        # what cold-start users meet; filled when the bridge's stage starts
        self.register_buffer("cold_item_floor", torch.zeros(self.n_items))
        self.register_buffer("cold_item_e", torch.zeros(self.n_items, size))
        self.register_buffer("cold_user_floor", torch.zeros(self.n_users))
        self._histories = self._centred_histories(dataset).to(self.device)
        self._bridged: Tensor | None = None

    # Stages

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """Pre-training of both domains, then the bridge."""
        pair, train = dataset.pair, dataset.split.train
        if self.config["select_epoch"] == "last":
            validate = None
        bridge = {"task": self._task_oriented, "mapping": self._mapping_oriented}
        return [
            self.pretraining("source", self.source, pair.source, pair.items("source")),
            self.pretraining("target", self.target, train, pair.items("target")),
            Stage(
                self.final_stage,
                prepare=lambda: self._enter_bridge_stage(dataset),
                training=bridge[self.config["bridge_loss"]](dataset),
                validate=validate,
                requires=("source", "target"),
            ),
        ]

    def _task_oriented(self, dataset: PairDataset) -> Training:
        """Eq. 7: errors of the target ratings of overlapped training users."""
        train = dataset.split.train
        rows = train.where(train.user <= self.n_overlapped)
        return Training(
            trains=self._bridge_parameters,
            loss=self.task_oriented_loss,
            loader=self.loader("meta", rows, dataset.pair.items("target")),
            max_epochs=self.setting("meta", "epochs"),
        )

    def _mapping_oriented(self, dataset: PairDataset) -> Training:
        """Eq. 6: distance of the transformed and the target vector of overlapped training users."""
        users = np.intersect1d(dataset.pair.overlapped_users, dataset.split.train.user)
        return Training(
            trains=self._bridge_parameters,
            loss=self.mapping_oriented_loss,
            loader=self.row_loader("map", {self.USER_ID: torch.from_numpy(users)}),
            max_epochs=self.setting("map", "epochs"),
        )

    @property
    def _bridge_parameters(self) -> tuple[nn.Parameter, ...]:
        modules = (self.text, self.rating_gate, self.characteristic_encoder, self.meta_network)
        return tuple(p for module in modules if module for p in module.parameters())

    # Losses of the bridge

    def task_oriented_loss(self, batch: Interaction) -> Tensor:
        """Eq. 7, a scalar: squared error (or BPR) of the scores over the users' own bridges."""
        users, place = torch.unique(batch[self.USER_ID], return_inverse=True)
        user_e = self.transform(users)  # (b, k), one bridge a user

        def score(user: Tensor, item: Tensor) -> Tensor:
            return self._score_cold(user, user_e[place.repeat(len(user) // len(place))], item)

        penalty = self.config["bridge_reg_weight"] * user_e.square().sum(1).mean()
        return self.loss_of_scores(score, batch) + penalty

    def mapping_oriented_loss(self, batch: Interaction) -> Tensor:
        """Eq. 6, a scalar: mean squared distance of transformed and target vectors."""
        user = batch[self.USER_ID]
        distance = (self.transform(user) - self.target.user_e(user)).square().sum(1)  # (B,)
        return distance.mean()

    # Forward

    def characteristic(self, user: Tensor) -> Tensor:
        """Eq. 2-3: characteristics p_u of users, int64 (B,) to (B, k)."""
        item, centred_rating, row = self._histories.of(user)  # (N,), (N,), (N,)
        item_e = self.item_vectors(item)  # (N, k)
        if self.rating_gate is not None:
            rated_e = centred_rating.unsqueeze(1) * item_e  # (N, k)
            item_e = item_e + self.rating_gate(torch.cat([item_e, rated_e], dim=1))  # (N, k)
        return self.characteristic_encoder(item_e, row, len(user))  # (B, k)

    def item_vectors(self, item: Tensor) -> Tensor:
        """What the characteristic encoder reads of source items, int64 (N,) to (N, k)."""
        unique, place = torch.unique(item, return_inverse=True)
        parts = []
        if self.text is not None:
            parts.append(self.text(unique))
        if self.reads_id:
            parts.append(self.source.item_embedding(self.source.item_row(unique)).detach())
        return torch.stack(parts).sum(0)[place]

    def transform(self, user: Tensor) -> Tensor:
        """Eq. 5: transformed vectors u^s W_u of users with source vectors, (B,) to (B, k)."""
        bridge = self.meta_network(self.characteristic(user))  # (B, k, k)
        return apply_bridge(self.source.user_e(user).detach(), bridge)  # (B, k)

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """The target model's score for users it knows, the bridge's for cold-start users, (B,)."""
        warm = self.is_warm[user]  # (B,)
        known = self.target(torch.where(warm, user, 0), item)  # (B,)
        user_e = self._bridged_e(torch.where(warm, 0, user))  # (B, k)
        return torch.where(warm, known, self._score_cold(user, user_e, item))

    def train(self, mode: bool = True) -> MetaMMCDR:
        """Switch between training and evaluation; bridges are generated once per evaluation."""
        self._bridged = None
        return super().train(mode)

    def _bridged_e(self, user: Tensor) -> Tensor:
        """Transformed vectors, (B,) to (B, k); zeros for padding and users without a source vector.

        Each user's is made when it is first asked for, and kept until the end of the evaluation.
        """
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

    def _score_cold(self, user: Tensor, user_e: Tensor, item: Tensor) -> Tensor:
        """Floor plus dot product, (B,); in training by the view without the user's own ratings."""
        if not self.training:
            floor, item_e = self.cold_item_floor[item], self.cold_item_e[item]
        else:
            fold = self._view.fold[user]
            floor, item_e = self._view.item_floor[fold, item], self._view.item_e[fold, item]
        return floor + self.cold_user_floor[user] + (user_e * item_e).sum(1)

    # What cold-start users meet

    def _enter_bridge_stage(self, dataset: PairDataset) -> None:
        """Make the view of the target domain from the trained target model."""
        from_floor = self.config["start_from_floor"] and self.config["eval_task"] == "rating"
        view = self._floor_view(dataset) if from_floor else self._plain_view()
        self._view = ColdView(*(part.to(self.device) for part in vars(view).values()))
        self.cold_item_floor.copy_(view.item_floor[-1])
        self.cold_item_e.copy_(view.item_e[-1])
        self.cold_user_floor.copy_(view.user_floor)

    def _plain_view(self) -> ColdView:
        """The target model's own biases and vectors, the same for all."""
        items = torch.arange(self.first_target_item, self.n_items, device=self.device)
        row = self.target.item_row(items)
        floor = torch.zeros(1, self.n_items, device=self.device)
        vectors = torch.zeros(1, self.n_items, self.cold_item_e.shape[1], device=self.device)
        with torch.no_grad():
            floor[0, items] = self.target.mean + self.target.item_bias(row).squeeze(1)
            vectors[0, items] = self.target.item_embedding(row)
        nobody = torch.zeros(self.n_users, device=self.device)
        return ColdView(floor, vectors, nobody, nobody.long())

    def _floor_view(self, dataset: PairDataset) -> ColdView:
        """Calibrated floor and item vectors, made without each fold's target ratings, and with all.

        The vectors are ridge regressions on the target model's user vectors, held fixed, so that
        all rows of the view share the space into which the bridge leads. Without
        `simulate_cold_users` everybody meets the last row.
        """
        train, n_folds = dataset.split.train, self.config["simulation_folds"]
        fold = draw_folds(dataset.pair, dataset.split, n_folds, self.config["seed"])
        floor = fit_floor(dataset, fold, n_folds, self.config)
        self.logger.info("Floor of cold-start users: a %.4f, b %.4f, c %.4f", *floor.weights)
        user, item = torch.from_numpy(train.user), torch.from_numpy(train.item)

        def vectors(rows: Tensor) -> Tensor:
            seen = train.where(rows.numpy())
            biases = fit_domain_biases(seen, dataset.pair, self.config)
            expected = biases.mean + biases.user[user[rows]] + biases.item[item[rows]]
            residual = (torch.from_numpy(seen.rating) - expected).float()  # (n,)
            with torch.no_grad():
                solved = solve_item_vectors(
                    self.target.user_e(user[rows].to(self.device)),
                    item[rows].to(self.device) - self.first_target_item,
                    residual.to(self.device),
                    n_items=self.n_items - self.first_target_item,
                    reg_weight=self.config["item_vector_shrinkage"],
                )
            return torch.nn.functional.pad(solved, (0, 0, self.first_target_item, 0))  # (I, k)

        everything = torch.ones_like(user, dtype=torch.bool)
        masks = [*(fold[user] != f for f in range(n_folds)), everything]
        item_e = torch.stack([vectors(mask) for mask in masks])
        if not self.config["simulate_cold_users"]:
            fold = torch.full_like(fold, n_folds)
        return ColdView(floor.item.float(), item_e, floor.user.float(), fold)

    def _centred_histories(self, dataset: PairDataset) -> Histories:
        """Source histories whose ratings are centred on what mean, user and item explain."""
        histories = dataset.histories(
            positive_only=self.config["history"] == "positive",
            last=self.config["history_length"],
        )
        biases = fit_domain_biases(dataset.pair.source, dataset.pair, self.config)
        length = histories.start.diff()
        user = torch.repeat_interleave(torch.arange(self.n_users), length)
        expected = biases.mean + biases.user[user] + biases.item[histories.item]
        centred = (histories.rating.double() - expected).float()
        return Histories(histories.start, histories.item, centred)
