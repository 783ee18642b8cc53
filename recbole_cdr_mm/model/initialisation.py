"""The initialisation stage: bridged vectors, trained on by cold-start users' first ratings."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.model.few_shot import FewShotUsers, fit_users
from recbole_cdr_mm.stage import Stage, Training

if TYPE_CHECKING:  # which makes this stage
    from recbole_cdr_mm.model.bridge_recommender import BridgeRecommender


class Initialisation:
    """The stage that comes after the bridge's, with `few_shot`.

    Args:
        model: The bridge, whose floor and item weights are met.
        users: The users that are trained.
        dataset: The pair; its revealed ratings are read.

    Source: Algorithm 1 of MetaMMCDR, step 4, and the starts that it is compared with.
    """

    def __init__(self, model: BridgeRecommender, users: FewShotUsers, dataset: PairDataset) -> None:
        self.model, self.users = model, users
        self.revealed, self.items = dataset.split.revealed, dataset.pair.items("target")

    def stage(self, validate: Callable[[], float] | None) -> Stage:
        """Train on the revealed ratings, from the start that is asked for."""
        model = self.model
        training = None
        if len(self.revealed):
            training = Training(
                trains=self.users.trained,
                loss=self._loss(),
                loader=model.loader("few_shot", self.revealed, self.items),
                max_epochs=model.max_epochs("few_shot"),
                learning_rate=model.config["few_shot_learning_rate"],
            )
        return Stage(
            "initialisation",
            prepare=lambda: self.users.begin(
                *self._start(), keeps_floor=model.config["few_shot_start"] == "transformed"
            ),
            training=training,
            validate=validate,
            requires=(model.final_stage,),
        )

    def _loss(self) -> Callable[[Interaction], Tensor]:
        """Losses of the revealed ratings, and the distance from the start once for each user."""
        model, users = self.model, self.users
        counts = np.bincount(self.revealed.user, minlength=model.n_users)
        share = torch.from_numpy(1 / np.maximum(counts, 1)).float().to(model.device)  # (U,)
        shrinkage = self._shrinkage

        def score(user: Tensor, item: Tensor) -> Tensor:
            user_e, bias = users(user, model.cold_item_e.new_zeros(len(user), 1))
            floor = model.floor(users.floor_user(user), item)
            return floor + bias + model.product(user_e, item)

        def normalise(user: Tensor) -> Tensor:
            user_e, bias = users(user, model.cold_item_e.new_zeros(len(user), 1))
            own_e, floor_user = model.target.place(user_e), users.floor_user(user)
            return bias + model.log_normalisers(floor_user, own_e, model.cold_item_e, model.floor)

        def loss(batch: Interaction) -> Tensor:
            user = batch[model.USER_ID]
            distances = share[user] * users.squared_offsets(user)  # (B,)
            losses = model.losses_of_scores(score, normalise, batch)  # (B,)
            return (losses + shrinkage * distances).mean()

        return loss

    @property
    def _shrinkage(self) -> float:
        """`few_shot_shrinkage`, or what fits the loss where it is not set."""
        given = self.model.config["few_shot_shrinkage"]
        return {"MSE": 5.0, "BPR": 0.5, "CE": 0.5}[self.model.loss_type] if given is None else given

    @torch.no_grad()
    def _start(self) -> tuple[Tensor, Tensor]:
        """Vectors (n, k) and biases (n,) from which training goes on."""
        model, users = self.model, self.users.users
        config, device = model.config, model.device
        none = model.cold_item_e.new_zeros(len(users))
        start = config["few_shot_start"]
        if start == "transformed":
            return model.bridged_e(users), none
        if start == "random":
            stream = f"{config['seed']}/few_shot"  # from which nothing else is drawn
            own = torch.Generator().manual_seed(zlib.crc32(stream.encode()))
            drawn = torch.randn(len(users), config["embedding_size"], generator=own)
            return config["embedding_std"] * drawn.to(device), none
        warm = torch.nonzero(model.is_warm).squeeze(1)
        warm_e, warm_bias = model.target.users(warm)  # (w, k), (w,)
        mean_e = model.target.place(warm_e).mean(0)  # (k,)
        # The floor is fitted to users whose bias is 0 on average; the plain view is not.
        mean_bias = none.sum() if model.starts_from_rating_floor else warm_bias.mean()
        if start == "mean":
            return mean_e.expand(len(users), -1), none + mean_bias
        user, item = (
            torch.from_numpy(ids).to(device) for ids in (self.revealed.user, self.revealed.item)
        )
        # What the mean user's score lacks: of a rating the rest; of a positive without one, 1.
        residual = torch.ones(len(item), device=device)
        if model.loss_type == "MSE":
            floor = model.floor(torch.zeros_like(user), item) + mean_bias
            mean_score = floor + model.product(mean_e.expand(len(item), -1), item)
            residual = torch.from_numpy(self.revealed.rating).to(device) - mean_score
        e, bias = fit_users(
            torch.searchsorted(users, user),
            model.item_weight(model.cold_item_e[item], item),
            residual,
            n_users=len(users),
            shrinkage=self._shrinkage,
            use_bias=config["use_bias"] and model.loss_type == "MSE",
        )
        return mean_e + e, mean_bias + bias
