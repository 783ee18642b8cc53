"""PTUPCDR: a personalised bridge for each user, generated from their source history.

Reference:
    Zhu et al. "Personalized Transfer of User Preferences for Cross-domain Recommendation." WSDM
    2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.history import Histories
from recbole_cdr_mm.layers.bridge import MetaNetwork, apply_bridge
from recbole_cdr_mm.layers.characteristic_encoder import CharacteristicEncoder
from recbole_cdr_mm.layers.initialise import seeded_linear
from recbole_cdr_mm.model.bridge_recommender import BridgeRecommender
from recbole_cdr_mm.model.floors import fit_domain_biases


class PTUPCDR(BridgeRecommender):
    """u^t_hat = u^s W_u, with W_u = g(p_u) and p_u pooled by attention from the source history.

    p_u = sum_j a_j v^s_j over the user's source items, a = softmax(h(v^s_j)); g and h are two-layer
    feed-forward nets.

    Source: PTUPCDR's characteristic encoder, meta network and task-oriented training, and its
    public code. Numbers of equations in this class and its parts are those of MetaMMCDR, which
    extends it: 2-3 (characteristic), 4 (meta network), 5 (bridge), 6 and 7 (losses).

    Deviations:
        An empty source history gives p_u = 0, so all such users share one bridge; the public code
        sends it to an untrained row, and hides the source item with its id 0 from every history.
        Preset `default`: a rating-aware encoder over the whole history; with `start_from_floor` the
        bridges begin at 0; those of `BridgeRecommender`.
    """

    shared_properties = (*BridgeRecommender.shared_properties, "characteristic")

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        size = config["embedding_size"]
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
        self._histories = self._centred_histories(dataset).to(self.device)

    @property
    def bridge_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those of the characteristic encoder and the meta network."""
        modules = (self.rating_gate, self.characteristic_encoder, self.meta_network)
        return tuple(p for module in modules if module for p in module.parameters())

    def transform(self, user: Tensor) -> Tensor:
        """Eq. 5: transformed vectors u^s W_u of users with source vectors, (B,) to (B, k)."""
        bridge = self.meta_network(self.characteristic(user))  # (B, k, k)
        return apply_bridge(self.source.users.vectors(user).detach(), bridge)  # (B, k)

    def characteristic(self, user: Tensor) -> Tensor:
        """Eq. 2-3: characteristics p_u of users, int64 (B,) to (B, k)."""
        item, centred_rating, row = self._histories.of(user)  # (N,), (N,), (N,)
        item_e = self.history_vectors(item)  # (N, k)
        if self.rating_gate is not None:
            rated_e = centred_rating.unsqueeze(1) * item_e  # (N, k)
            item_e = item_e + self.rating_gate(torch.cat([item_e, rated_e], dim=1))  # (N, k)
        return self.characteristic_encoder(item_e, row, len(user))  # (B, k)

    def history_vectors(self, item: Tensor) -> Tensor:
        """What the characteristic encoder reads of source items: their vectors, (N,) to (N, k)."""
        return self.source.items.vectors(item).detach()

    def _centred_histories(self, dataset: PairDataset) -> Histories:
        """Source histories whose ratings are centred on what mean, user and item explain."""
        histories = dataset.histories(
            positive_only=self.config["history"] == "positive",
            last=self.config["history_length"],
        )
        biases = fit_domain_biases(dataset.rated_source, dataset.pair, self.config)
        length = histories.start.diff()
        user = torch.repeat_interleave(torch.arange(self.n_users), length)
        expected = biases.mean + biases.user[user] + biases.item[histories.item]
        centred = (histories.rating.double() - expected).float()
        return Histories(histories.start, histories.item, centred)
