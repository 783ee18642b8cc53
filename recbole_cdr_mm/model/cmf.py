"""CMF: both domains factorised together, with one vector for each user.

Reference:
    Singh and Gordon. "Relational Learning via Collective Matrix Factorization." KDD 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.loader import DrawingLoader
from recbole_cdr_mm.data.negatives import NegativeSampler
from recbole_cdr_mm.data.pair import Ratings
from recbole_cdr_mm.model.base_models import UserTable
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.stage import EpochLoader, Stage, Training


class CMF(CrossDomainRecommender):
    """One table of users for two base models, trained together on the ratings of both domains.

    A cold-start user's vector is learned from their source ratings alone, and rates target items as
    it is. The loss is the mean over the rows of both domains, a source row counting
    `source_loss_weight` times.

    Source: CMF's sharing of factors over relations; weights of the relations as its alpha. Preset
    `paper`: the row 'CMF' of the PTUPCDR paper and the single table of both domains in its public
    code.

    Deviations: trained by Adam on squared errors (or BPR, or CE) and not by alternating Newton
    steps. On GMF each domain has its own h; the public code has one. Preset `default`: biases and a
    mean of each domain.
    """

    final_stage = "joint"
    shared_properties = ("base_model",)

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        users = UserTable(dataset.pair, None, config, self.generator)
        self.source = self.base_model(dataset, "source", users=users)
        self.target = self.base_model(dataset, "target", users=users)

    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """One stage: both base models on the training ratings of both domains."""
        if self.config["select_epoch"] == "last":
            validate = None
        trained = dict.fromkeys((*self.source.trained, *self.target.trained))  # users once
        training = Training(
            trains=tuple(trained),
            loss=self.joint_loss,
            loader=self._joint_loader(dataset),
            max_epochs=self.max_epochs("joint"),
        )
        return [Stage(self.final_stage, training=training, validate=validate)]

    def joint_loss(self, batch: Interaction) -> Tensor:
        """Mean loss of the rows of both domains, a scalar."""
        is_target = self._is_target(batch[self.ITEM_ID])  # (B,)
        weight = torch.where(is_target, 1.0, self.config["source_loss_weight"])  # (B,)
        losses = torch.empty(len(batch), device=self.device)
        for base, rows in ((self.source, ~is_target), (self.target, is_target)):
            if rows.any():
                place = (torch.nonzero(rows).squeeze(1),)
                losses = losses.index_put(place, self.penalised_losses(base, batch[rows]))
        return (weight * losses).sum() / weight.sum()

    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """Scores of target items, for all users alike, (B,)."""
        return self.target(user, item)

    def rate_all(self, user: Tensor) -> Tensor:
        """Scores of all target items, (b,) to (b, n)."""
        return self.target.score_all(*self.target.users(user))

    def _is_target(self, item: Tensor) -> Tensor:
        return item >= self.first_target_item

    def _joint_loader(self, dataset: PairDataset) -> EpochLoader:
        """Rows of both domains; negatives, where the loss needs them, of the row's own domain."""
        pair, parts = dataset.pair, (dataset.pair.source, dataset.split.train)
        names = ("user", "item", "rating", "time")
        both = Ratings(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
        loader = self.row_loader("joint", self.columns(both))
        if not self.n_negatives:
            return loader
        samplers = [
            NegativeSampler(rows, ids.start, ids.stop, self.device)
            for rows, ids in zip(parts, (pair.items("source"), pair.items("target")), strict=True)
        ]

        def draw(batch: Interaction, generator: torch.Generator) -> dict[str, Tensor]:
            of_source, of_target = (self.draw_negatives(s, batch, generator) for s in samplers)
            is_target = self._is_target(batch[self.ITEM_ID]).unsqueeze(1)  # (B, 1)
            return {self.NEG_ITEM_ID: torch.where(is_target, of_target, of_source)}

        return DrawingLoader(loader, draw)
