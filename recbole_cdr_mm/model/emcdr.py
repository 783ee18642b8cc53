"""EMCDR: one mapping function for all users, from the source to the target vectors.

Reference:
    Man et al. "Cross-Domain Recommendation: An Embedding and Mapping Approach." IJCAI 2017.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.layers.mapping import MappingFunction
from recbole_cdr_mm.model.bridge_recommender import BridgeRecommender


class EMCDR(BridgeRecommender):
    """u^t_hat = f(u^s), with one f for all: linear, or an MLP with one hidden layer.

    The loss is the squared distance of f(u^s) and u^t over overlapped users, the mapping-oriented
    loss of MetaMMCDR's Eq. 6.

    Source: EMCDR's latent factor modelling, mapping and cross-domain recommendation steps; the
    paper was not at hand, so its equations are not numbered here. PTUPCDR's public code for the
    preset `paper`.

    Deviations:
        Base models are trained by Adam on squared errors (or BPR, or CE), as in PTUPCDR's public
        code.
        `bridge_loss: task` trains f by the errors of ratings, which the paper does not do.
        The loss is the mean over users of the squared distance; that code also divides by k.
        Those of `BridgeRecommender`, in the preset `default`.
    """

    shared_properties = (*BridgeRecommender.shared_properties, "mapping")

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        size = config["embedding_size"]
        hidden_size = {
            "linear": None,
            "mlp": config["mapping_hidden_size"] or 2 * size,
        }[config["mapping_function"]]
        self.mapping = MappingFunction(
            size, hidden_size, self.generator, start_at_zero=config["start_from_floor"]
        )

    @property
    def bridge_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those of the mapping function."""
        return tuple(self.mapping.parameters())

    def transform(self, user: Tensor) -> Tensor:
        """f(u^s), int64 (B,) to (B, k)."""
        return self.mapping(self.source.users.vectors(user).detach())
