"""SSCDR: a mapping function that overlapped users teach, and the source items too.

Reference:
    Kang et al. "Semi-Supervised Learning for Cross-Domain Recommendation to Cold-Start Users." CIKM
    2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.loader import DrawingLoader
from recbole_cdr_mm.data.negatives import NegativeSampler
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.losses import margin_ranking
from recbole_cdr_mm.layers.neighbourhood import average_over_neighbours
from recbole_cdr_mm.model.base_models import MF, MetricSpace
from recbole_cdr_mm.model.emcdr import EMCDR
from recbole_cdr_mm.stage import Training


class SSCDR(EMCDR):
    """EMCDR, whose mapping function is taught by users and, semi-supervised, by source items.

    With d the squared distance, and source items i that the user has liked and j not rated:

        L = mean |f(u^s) - u^t|^2 + unsupervised_weight mean [margin + d(u^t, f(v^s_i)) - d(u^t,
            f(v^s_j))]_+

    `sscdr_form: metric` is the original: both domains are metric spaces (`MetricSpace`), trained by
    the same hinge on distances, and a cold-start user's vector is inferred from the mapped vectors
    of the user and of their neighbours in the source domain. It orders items and predicts no
    ratings. `simplified` is what papers on ratings compare with: base models MF or GMF, f linear,
    margin 1, weight 1, no neighbours.

    Source: SSCDR's supervised and unsupervised loss and its neighbourhood inference. The paper was
    not at hand: the losses follow RecBole-CDR's SSCDR, the inference the paper's abstract.

    Deviations:
        Neighbourhood inference takes the mean of a node and its neighbours `neighbour_hops` times,
        over all source ratings; the paper's aggregator may weigh them otherwise.
        Distances in the hinge are squared, those of RecBole-CDR are not; it shortens vectors by
        their squared length, here it is their length.
        In the metric form vectors are drawn back into the unit ball where they are used, and not
        after each step.
        Those of `BridgeRecommender`, in the preset `default`.
    """

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        self.is_metric = config["sscdr_form"] == "metric"
        if self.is_metric:
            _check_metric(config)
        super().__init__(config, dataset)
        self.hops = config["neighbour_hops"]
        if self.hops is None:
            self.hops = 1 if self.is_metric else 0
        self._inferred: Tensor | None = None
        rows = dataset.pair.source
        self.register_buffer("_rater", torch.from_numpy(rows.user), persistent=False)
        self.register_buffer("_rated", torch.from_numpy(rows.item), persistent=False)

    def build_base_models(self, dataset: PairDataset) -> tuple[MF, MF]:
        """The base models of both domains; metric spaces in the metric form."""
        kind = MetricSpace if self.is_metric else None
        return (
            self.base_model(dataset, "source", kind=kind),
            self.base_model(dataset, "target", kind=kind),
        )

    def bridge_training(self, dataset: PairDataset) -> Training:
        """Overlapped training users, each with a liked and another source item drawn anew."""
        users = self.overlapped_training_users(dataset)
        histories = dataset.histories(positive_only=True).to(self.device)
        ids = dataset.pair.items("source")
        others = NegativeSampler(dataset.pair.source, ids.start, ids.stop, self.device)

        def draw(batch: Interaction, generator: torch.Generator) -> dict[str, Tensor]:
            user = batch[self.USER_ID]
            return {
                self.ITEM_ID: histories.draw(user, generator),
                self.NEG_ITEM_ID: others.draw(user, generator),
            }

        return Training(
            trains=self.bridge_parameters,
            loss=self.semi_supervised_loss,
            loader=DrawingLoader(
                self.row_loader("map", {self.USER_ID: torch.from_numpy(users)}), draw
            ),
            max_epochs=self.max_epochs("map"),
        )

    def semi_supervised_loss(self, batch: Interaction) -> Tensor:
        """Supervised and unsupervised loss of overlapped users, a scalar.

        Users without a liked source item, whose drawn item is 0, have the supervised loss alone.
        """
        user, liked = batch[self.USER_ID], batch[self.ITEM_ID]
        target_e = self.target.place(self.target.users.vectors(user))  # (B, k)
        supervised = (self.map_user(user) - target_e).square().sum(1)  # (B,)
        distances = [
            (self.map_item(item) - target_e).square().sum(1)
            for item in (torch.where(liked > 0, liked, 1), batch[self.NEG_ITEM_ID])
        ]  # (B,), (B,)
        hinge = margin_ranking(-distances[0], -distances[1], self.config["margin"])  # (B,)
        unsupervised = torch.where(liked > 0, hinge, 0.0)  # (B,)
        return (supervised + self.config["unsupervised_weight"] * unsupervised).mean()

    def pairwise_losses(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Hinge on distances in the metric form, else BPR, (B,) and (B,) to (B,)."""
        if self.is_metric:
            return margin_ranking(positive, negative, self.config["margin"])
        return super().pairwise_losses(positive, negative)

    @property
    def pretraining_values(self) -> Mapping[str, Any]:
        """The margin, in the metric form."""
        return {"margin": self.config["margin"]} if self.is_metric else {}

    def map_user(self, user: Tensor) -> Tensor:
        """f(u^s), int64 (B,) to (B, k)."""
        return self._map(self.source.users.vectors(user))

    def map_item(self, item: Tensor) -> Tensor:
        """f(v^s), int64 (B,) to (B, k)."""
        return self._map(self.source.items.vectors(item))

    def _map(self, vector: Tensor) -> Tensor:
        return self.target.place(self.mapping(self.source.place(vector.detach())))

    def transform(self, user: Tensor) -> Tensor:
        """Mapped vectors, averaged over the source neighbourhood, int64 (B,) to (B, k)."""
        if not self.hops:
            return self.map_user(user)
        if self._inferred is None:
            users = torch.arange(self.n_source_users, device=user.device)
            items = torch.arange(1, self.first_target_item, device=user.device)
            self._inferred = average_over_neighbours(
                self.map_user(users),
                self.map_item(items),
                self._rater,
                self._rated - 1,
                hops=self.hops,
            )
        return self._inferred[user]

    def train(self, mode: bool = True) -> SSCDR:
        """Switch between training and evaluation; neighbours are averaged once per evaluation."""
        self._inferred = None
        super().train(mode)
        return self

    @property
    def trains_on_ratings(self) -> bool:
        """Not at all: its loss reads vectors and which source items are liked."""
        return False


def _check_metric(config: Any) -> None:
    """Refuse what the metric form cannot have."""
    if config["eval_task"] == "rating":
        raise ConfigError(
            "`sscdr_form: metric` orders items by distance and predicts no ratings. Give"
            " --eval_task=ranking, or --sscdr_form=simplified."
        )
    if config["base_model"] != "MF":
        raise ConfigError(
            f"`base_model: {config['base_model']}` is for `sscdr_form: simplified`; the metric form"
            " has a metric space in its place. Leave it out."
        )
    if config["loss_type"] is not None:
        raise ConfigError(
            f"`loss_type: {config['loss_type']}` is for `sscdr_form: simplified`; the metric form"
            " has a hinge loss with `margin`. Leave it out."
        )
