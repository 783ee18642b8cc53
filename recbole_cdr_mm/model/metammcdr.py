"""MetaMMCDR: a personalised bridge, made from the text of what a user rated in the source domain.

Reference:
    MetaMMCDR, with its own numbers of equations and of Algorithm 1. It extends PTUPCDR: Zhu et al.
    "Personalized Transfer of User Preferences for Cross-domain Recommendation." WSDM 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.features import FeatureKind
from recbole_cdr_mm.data.pair import DomainName
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.layers.item_encoder import FeatureProjection
from recbole_cdr_mm.model.ptupcdr import PTUPCDR
from recbole_cdr_mm.model.ridge_mixture import RidgeMixture
from recbole_cdr_mm.model.starting_floor import StartingFloor
from recbole_cdr_mm.model.statistics_start import StatisticsStart

# What each value of `item_features` and `target_item_features` sums up.
_PARTS = {
    "id": ("id",),
    "text": ("text",),
    "both": ("id", "text"),
    "image": ("image",),
    "all": ("id", "text", "image"),
}


class MetaMMCDR(PTUPCDR):
    """PTUPCDR, whose characteristic encoder reads the texts (and images) of the source history.

    A cold-start user is scored by floor(u, i) + (u^s W_u) . w_i, with W_u = g(p_u), and p_u pooled
    by attention from what `item_features` names: the items' source vectors, projected texts,
    projected images, or a sum of these.

    Source: MetaMMCDR, Algorithm 1, steps 1-4; Eq. 1 (text features), 2-3 (characteristic), 4 (meta
    network), 5 (bridge), 6 (mapping-oriented loss), 7 (task-oriented loss).

    Deviations:
        A learned projection d -> k stands before Eq. 2 (see `FeatureProjection`). Where more than
        one part is read they are summed; the paper gives no equation.
        In Eq. 7 the target item's bold v can be read as the target model's vector or as Eq. 1's
        text: `target_item_features` id (the default), text or both. A text is projected by the same
        layer as those of the history, as one bold v suggests, and on GMF weighed by h like a
        vector.
        An empty source history gives p_u = 0, so all such users share one bridge.
        With `start_from_floor` and `eval_task: rating` the floor is a `StatisticsStart`, which is
        more accurate than the other bridges' and has a distribution; with `eval_task: ranking` it
        is a `RidgeMixture`, itself a map from histories and their texts, and no other bridge is
        trained on it.
        Those of `PTUPCDR` and `BridgeRecommender`, in the preset `default`.
    """

    shared_properties = (*PTUPCDR.shared_properties, "rating_distribution")

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.history_parts = _PARTS[config["item_features"]]
        self.target_parts = _PARTS[config["target_item_features"]]
        if config["bridge_loss"] == "mapping" and "text" in self.target_parts:
            raise ConfigError(
                "`bridge_loss: mapping` compares users' vectors and reads no target item, so"
                f" `target_item_features: {config['target_item_features']}` would stay untrained."
                " Give --target_item_features=id, or --bridge_loss=task."
            )
        self.text = self._projection("text", dataset)
        self.image = self._projection("image", dataset)
        if not self.floor.takes_bridge:
            for parameter in (*self.source.parameters(), *self.bridge_parameters):
                parameter.requires_grad_(False)

    def build_floor(self, dataset: PairDataset) -> StartingFloor:
        """With `start_from_floor` a `RidgeMixture` in rankings, a `StatisticsStart` for ratings.

        Raises:
            ConfigError: If `point_estimate: median` needs a distribution, and there is none, or
                features are asked for that nothing reads.
        """
        reads_text = "text" in _PARTS[self.config["item_features"]]
        if reads_text:
            dataset.check_texts("source")  # before those of the target are asked for
        if self.starts_from_rating_floor:
            values = self.distinct_ratings(dataset)
            return StatisticsStart(dataset, self.config, values, texts=reads_text)
        if self.config["point_estimate"] == "median":
            raise ConfigError(
                "`point_estimate: median` needs a distribution, which only the floor has, and"
                " `start_from_floor` is False (so it is in `preset: paper`). Leave one of them out."
            )
        if self.config["start_from_floor"]:
            self._check_read_in_rankings()
            return RidgeMixture(dataset, self.config, texts=reads_text)
        return super().build_floor(dataset)

    def _check_read_in_rankings(self) -> None:
        """Refuse what only a bridge would read, where none is trained."""
        for key, values in (
            ("item_features", ("id", "text", "both")),
            ("target_item_features", ("id",)),
        ):
            if self.config[key] not in values:
                raise ConfigError(
                    f"`{key}: {self.config[key]}` is for a bridge, and none is trained on the floor"
                    f" of rankings. Give --{key}={values[0]}, or --start_from_floor=False."
                )

    @property
    def rating_values(self) -> Tensor | None:
        """The distinct target ratings in training (V,); None without a floor that has them."""
        return self.floor.values if isinstance(self.floor, StatisticsStart) else None

    def rating_probabilities(self, user: Tensor, item: Tensor) -> Tensor:
        """The floor's distribution, tilted so that its mean is the score, (B, V)."""
        assert isinstance(self.floor, StatisticsStart)  # asked of models with `rating_values` alone
        floor_user = user if self.few_shot is None else self.few_shot.floor_user(user)
        return self.floor.probabilities(floor_user, item, self.rate(user, item))

    def _projection(self, kind: FeatureKind, dataset: PairDataset) -> FeatureProjection | None:
        """The projection of a kind of features, of the domains whose items are read."""
        read: dict[DomainName, tuple[str, ...]] = {
            "source": self.history_parts,
            "target": self.target_parts,
        }
        domains = [domain for domain, parts in read.items() if kind in parts]
        if not domains:
            return None
        features = dataset.features(kind, domains)
        return FeatureProjection(
            torch.from_numpy(features.matrix),
            torch.from_numpy(features.known),
            self.config["embedding_size"],
            self.generator,
        )

    @property
    def bridge_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those of PTUPCDR and of the projections."""
        modules = (self.text, self.image)
        own = tuple(p for module in modules if module for p in module.parameters())
        return own + super().bridge_parameters

    def history_vectors(self, item: Tensor) -> Tensor:
        """What the characteristic encoder reads of source items, int64 (N,) to (N, k)."""
        return torch.stack([self._part(part, item) for part in self.history_parts]).sum(0)

    def _part(self, part: str, item: Tensor) -> Tensor:
        read = {"id": super().history_vectors, "text": self.text, "image": self.image}[part]
        assert read is not None  # it was made for this part
        return read(item)

    def item_weight(self, weight: Tensor, item: Tensor) -> Tensor:
        """What a bridged vector is multiplied with: the target model's weights, texts, or the sum.

        Args:
            weight: The target model's weights of the items (B, k).
            item: Item ids (B,).
        """
        if self.text is None or "text" not in self.target_parts:
            return weight
        text_weight = self.target.weigh(self.text(item))  # (B, k)
        return weight + text_weight if "id" in self.target_parts else text_weight
