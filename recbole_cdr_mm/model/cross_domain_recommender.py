"""The base class of all models here: a RecBole model that says what its stages are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.loader import DrawingLoader, RowLoader, grown_batch_size
from recbole_cdr_mm.data.negatives import NegativeSampler
from recbole_cdr_mm.data.pair import DomainName, Ratings
from recbole_cdr_mm.data.split import overlapped_training_users
from recbole_cdr_mm.errors import ConfigError, DataFormatError, StageError
from recbole_cdr_mm.layers.all_pairs import score_all_pairs
from recbole_cdr_mm.layers.losses import (
    bayesian_personalised_ranking,
    sampled_softmax,
    squared_error,
)
from recbole_cdr_mm.layers.rating_distribution import median
from recbole_cdr_mm.model.base_models import BASE_MODELS, MF, ItemTable, UserTable
from recbole_cdr_mm.stage import EpochLoader, Pretraining, Stage, Training

_MOST_VALUES = 200  # of ratings; where there are more, they are no scale of steps


class CrossDomainRecommender(GeneralRecommender):
    """A model of a pair of domains, trained in stages and asked about target items only.

    Attributes:
        kind: What tables group it by: cross-domain, single-domain or floor.
        eval_tasks: The tasks that the model can do.
        final_stage: The stage from whose first epoch on the model can predict.
        shared_properties: Files of properties/shared/ that its own YAML adds to.
        stage: The stage that was begun last.
        trained_stages: Names of the stages that are trained; part of every checkpoint.
        is_warm: Users with target ratings in training, bool (U,). For them a model uses what it
            learned of them in the target domain; all others are cold-start users.
    """

    input_type = InputType.POINTWISE
    kind: ClassVar[Literal["cross-domain", "single-domain", "floor"]] = "cross-domain"
    eval_tasks: ClassVar[tuple[str, ...]] = ("rating", "ranking")
    final_stage: ClassVar[str]
    shared_properties: ClassVar[tuple[str, ...]] = ()
    is_warm: Tensor

    def __init__(self, config: Any, dataset: PairDataset) -> None:
        super().__init__(config, dataset)
        self.config = config
        self.RATING = config["RATING_FIELD"]
        self.first_target_item = dataset.pair.items("target").start
        self.stage: str | None = None
        self.trained_stages: list[str] = []
        self.other_parameter_name = ["trained_stages"]
        is_warm = torch.zeros(self.n_users, dtype=torch.bool)
        is_warm[torch.from_numpy(dataset.split.train.user)] = True
        self.register_buffer("is_warm", is_warm, persistent=False)
        self.generator = torch.Generator().manual_seed(config["seed"])

    @abstractmethod
    def stages(self, dataset: PairDataset, validate: Callable[[], float] | None) -> list[Stage]:
        """Say how this model is trained.

        Args:
            dataset: The pair; ratings of test and validation users are not in its training part.
            validate: Measures the model on the validation users; None where there are none.

        Returns:
            The stages, in order.
        """

    @abstractmethod
    def rate(self, user: Tensor, item: Tensor) -> Tensor:
        """Score target items for users.

        Args:
            user: User ids, int64 (B,).
            item: Ids of target items, int64 (B,).

        Returns:
            Scores, float32 (B,): ratings in stars where the model was trained on ratings, and with
            a distribution its mean estimate.
        """

    def rate_all(self, user: Tensor) -> Tensor:
        """Score all target items for users as `rate` does: here pair by pair.

        Models whose scores of a user are products of matrices say so, which is many times as fast.

        Args:
            user: User ids, int64 (b,).

        Returns:
            Scores, float32 (b, n), n the number of target items.
        """
        items = torch.arange(self.first_target_item, self.n_items, device=user.device)  # (n,)
        return score_all_pairs(self.rate, user, items)

    @property
    def rating_values(self) -> Tensor | None:
        """The rating values that have probabilities, ascending (V,); None in a model without."""
        return None

    def rating_probabilities(self, user: Tensor, item: Tensor) -> Tensor:
        """Say how probable each rating value is, in a model that has `rating_values`.

        Args:
            user: User ids, int64 (B,).
            item: Ids of target items, int64 (B,).

        Returns:
            Probabilities, float32 (B, V), each row with the sum 1.
        """
        raise NotImplementedError  # nobody asks a model without `rating_values`

    def predict(self, interaction: Interaction) -> Tensor:
        """Score pairs of user and target item.

        Args:
            interaction: A batch with `user_id` and `item_id`, int64 (B,).

        Returns:
            Scores, float32 (B,), not clipped; with `point_estimate: median` the medians of the
            ratings' distributions.

        Raises:
            StageError: If the model is not trained.
        """
        self._require_trained()
        user, item = interaction[self.USER_ID], interaction[self.ITEM_ID]
        values = self.rating_values
        if values is not None and self.config["point_estimate"] == "median":
            return median(self.rating_probabilities(user, item), values)
        return self.rate(user, item)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items for users.

        Args:
            interaction: A batch with `user_id`, int64 (B,).

        Returns:
            Scores, float32 (B * I,), in RecBole's flat form; -inf for source items and padding.

        Raises:
            StageError: If the model is not trained.
        """
        self._require_trained()
        user = interaction[self.USER_ID]
        scores = torch.full((len(user), self.n_items), -torch.inf, device=user.device)  # (B, I)
        scores[:, self.first_target_item :] = self.rate_all(user)
        return scores.view(-1)

    def _require_trained(self) -> None:
        if self.final_stage not in (*self.trained_stages, self.stage):
            raise StageError(
                f"{type(self).__name__}.predict: stage `{self.final_stage}` is not trained. Train"
                " it, or resume a checkpoint that holds it."
            )

    # What models build themselves and their stages from

    def distinct_ratings(self, dataset: PairDataset) -> Tensor | None:
        """The values whose probabilities a model with a rating distribution gives.

        Args:
            dataset: The pair; only its training part is read.

        Returns:
            The distinct target ratings, float32 (V,), ascending; None with `eval_task: ranking`,
            and where there are more than 200, for which nothing like stars is meant.

        Raises:
            ConfigError: If there are more, and `point_estimate: median` needs the distribution.
        """
        if self.config["eval_task"] == "ranking":
            return None
        values = np.unique(dataset.split.train.rating)  # (V,)
        if len(values) <= _MOST_VALUES:
            return torch.from_numpy(values)
        if self.config["point_estimate"] == "median":
            raise ConfigError(
                f"`point_estimate: median` needs ratings on a scale of at most {_MOST_VALUES}"
                f" values; {self.config['dataset']} has {len(values)} in training. Leave it out."
            )
        return None

    def overlapped_training_users(self, dataset: PairDataset) -> np.ndarray:
        """Ids of the users on whom a bridge is trained, int64 (n,).

        Raises:
            DataFormatError: If there is none.
        """
        users = overlapped_training_users(dataset.pair, dataset.split)
        if not len(users):
            raise DataFormatError(
                "No overlapped training user has a target rating of positive_threshold"
                f" {self.config['positive_threshold']} or more, so there is nothing to train the"
                " bridge on. Lower it, or the ratios of test and validation users."
            )
        return users

    def base_model(
        self,
        dataset: PairDataset,
        domain: DomainName,
        *,
        users: UserTable | None = None,
        kind: type[MF] | None = None,
    ) -> MF:
        """Build the base model of a domain.

        Args:
            dataset: The pair.
            domain: The domain.
            users: Its table of users; None: one of its own.
            kind: Its class; None: `base_model`.
        """
        config, pair = self.config, dataset.pair
        rows = pair.source if domain == "source" else dataset.split.train
        if users is None:
            users = UserTable(pair, domain, config, self.generator)
        reads_text = config["pretrain_item_features"] != "id"
        texts = dataset.features("text", [domain]) if reads_text else None
        return (kind or BASE_MODELS[config["base_model"]])(
            users,
            ItemTable(pair, domain, config, self.generator, texts),
            mean=float(rows.rating.mean()),
            config=config,
            generator=self.generator,
        )

    def pretraining(
        self,
        name: str,
        base: MF,
        rows: Ratings,
        items: slice,
        validate: Callable[[], float] | None = None,
    ) -> Stage:
        """Train a base model on a domain's rows.

        Args:
            name: The stage.
            base: The domain's base model.
            rows: The domain's training rows.
            items: The ids of the domain's items.
            validate: Measures on validation users; None where the last epoch counts.
        """
        training = Training(
            trains=base.trained,
            loss=lambda batch: self.penalised_losses(base, batch).mean(),
            loader=self.loader(name, rows, items),
            max_epochs=self.max_epochs(name),
        )
        columns = tuple(self.columns(rows).values())
        shared = Pretraining(base, columns, self.pretraining_values) if validate is None else None
        return Stage(name, training=training, validate=validate, pretraining=shared)

    @property
    def pretraining_values(self) -> Mapping[str, Any]:
        """Values of keys of the model's own YAML that its pre-training reads; none by default."""
        return {}

    def penalised_losses(self, base: MF, batch: Interaction) -> Tensor:
        """Losses of a domain's rows, with `reg_weight` of the norms of their vectors, (B,)."""
        norms: list[Tensor] = []

        def score(user: Tensor, item: Tensor) -> Tensor:
            scores, squared_norms = base.score_with_norms(user, item)
            norms.append(squared_norms[: len(batch)])  # negatives come behind the rows themselves
            return scores

        losses = self.losses_of_scores(score, base.log_normalisers, batch)
        return losses + self.config["reg_weight"] * norms[0]

    def losses_of_scores(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        log_normalisers: Callable[[Tensor], Tensor],
        batch: Interaction,
    ) -> Tensor:
        """Losses of a batch's rows, by `loss_type`.

        CE is -log of the softmax of the row's item: among itself and the row's negatives or,
        without `ce_negatives`, among all items of the domain. There the user's other positives stay
        in the denominator, as in RecBole's own models with `loss_type: CE`.

        Args:
            score: Scores pairs of user and item, (B,) and (B,) to (B,).
            log_normalisers: Of distinct users, the logs of sum_i exp(score(u, i)) over all items of
                the domain, (b,) to (b,).
            batch: Users, items and ratings (B,), and negatives (B, n) where the loss needs them.

        Returns:
            Losses (B,).
        """
        user, item = batch[self.USER_ID], batch[self.ITEM_ID]
        if self.loss_type == "MSE":
            return squared_error(score(user, item), batch[self.RATING])
        if not self.n_negatives:
            users, place = torch.unique(user, return_inverse=True)
            return log_normalisers(users).index_select(0, place) - score(user, item)
        items = torch.cat([item.unsqueeze(0), batch[self.NEG_ITEM_ID].T])  # (1 + n, B)
        scores = score(user.repeat(len(items)), items.flatten()).view_as(items)  # (1 + n, B)
        positive, negative = scores[0], scores[1:]  # (B,), (n, B)
        if self.loss_type == "CE":
            return sampled_softmax(positive, negative)
        return self.pairwise_losses(positive, negative.squeeze(0))

    def pairwise_losses(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Losses of scores of positive and negative items, (B,) and (B,) to (B,)."""
        return bayesian_personalised_ranking(positive, negative)

    def loader(
        self, name: str, rows: Ratings, items: slice, *, of_users: bool = False
    ) -> EpochLoader:
        """Batches of a stage's rows, with negatives where the loss needs them."""
        loader = self.row_loader(name, self.columns(rows), of_users=of_users)
        if not self.n_negatives:
            return loader
        sampler = NegativeSampler(rows, items.start, items.stop, self.device)

        def draw(batch: Interaction, generator: torch.Generator) -> dict[str, Tensor]:
            return {self.NEG_ITEM_ID: self.draw_negatives(sampler, batch, generator)}

        return DrawingLoader(loader, draw)

    def draw_negatives(
        self, sampler: NegativeSampler, batch: Interaction, generator: torch.Generator
    ) -> Tensor:
        """As many negative items for each row as the loss needs, int64 (B, n)."""
        return sampler.draw(batch[self.USER_ID].unsqueeze(1).repeat(1, self.n_negatives), generator)

    def row_loader(
        self, name: str, columns: Mapping[str, Tensor], *, of_users: bool = False
    ) -> RowLoader:
        """Batches of columns, on the model's device; of rows, or of users with all their rows."""
        n_rows = len(next(iter(columns.values())))
        return RowLoader(
            {field: column.to(self.device) for field, column in columns.items()},
            batch_size=self.batch_size(name, n_rows, of_users=of_users),
            seed=self.config["seed"],
            name=name,
            together=self.USER_ID if of_users else None,
        )

    @property
    def loss_type(self) -> str:
        """`loss_type`, or what fits the task where it is not set."""
        task_loss = {"rating": "MSE", "ranking": "BPR"}[self.config["eval_task"]]
        return self.config["loss_type"] or task_loss

    @property
    def n_negatives(self) -> int:
        """Negative items drawn for each row; 0 where the loss needs none, or takes all items."""
        wanted = self.config["ce_negatives"] or 0
        most = self.n_items - self.first_target_item
        return {"MSE": 0, "BPR": 1, "CE": min(wanted, most)}[self.loss_type]

    def max_epochs(self, stage: str) -> int:
        """A stage's own `<stage>_epochs` where it is set, else `epochs`."""
        own: int | None = self.config[f"{stage}_epochs"]
        return self.config["epochs"] if own is None else own

    def batch_size(self, stage: str, n_rows: int, *, of_users: bool = False) -> int:
        """A stage's own `<stage>_batch_size` where it is set, else what fits its rows."""
        own: int | None = self.config[f"{stage}_batch_size"]
        if own is not None:
            return own
        return grown_batch_size(
            n_rows,
            self.config["train_batch_size"],
            self.config["largest_batch_size"],
            of_users=of_users,
        )

    def columns(self, ratings: Ratings) -> dict[str, Tensor]:
        """Ratings as columns under RecBole's field names."""
        return {
            self.USER_ID: torch.from_numpy(ratings.user),
            self.ITEM_ID: torch.from_numpy(ratings.item),
            self.RATING: torch.from_numpy(ratings.rating),
        }
