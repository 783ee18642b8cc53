"""Evaluation on cold-start users, for our trainer and for all of RecBole's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.collector import ColdStartCollector
from recbole_cdr_mm.evaluation.ranking import Candidates, break_ties
from recbole_cdr_mm.evaluation.rating import RatingScale
from recbole_cdr_mm.trainer.resume import checkpoint_path


class NumbersOnly(Trainer):
    """Mixed in before a trainer: a loss or score that is no number ends the run."""

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isnan(loss):
            raise ConfigError(
                f"{self.config['model']}: the training loss is no number (NaN). Give a"
                f" learning_rate below {self.learning_rate}, or other values of the model's keys."
            )

    def _full_sort_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Any, Any]:
        return self._checked(super()._full_sort_batch_eval(batched_data))

    def _neg_sample_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Any, Any]:
        return self._checked(super()._neg_sample_batch_eval(batched_data))

    def _checked(self, batch: tuple[Any, Tensor, Any, Any]) -> tuple[Any, Tensor, Any, Any]:
        if torch.isnan(batch[1]).any():
            raise ConfigError(
                f"{self.config['model']}: scores of cold-start users are no numbers (NaN). Give"
                " other values of the model's keys, a lower learning_rate, or --train_domains=both."
            )
        return batch


class ColdStartEvaluation(Trainer):
    """Mixed in before one of RecBole's trainers: measures target items and ratings in stars.

    Attributes:
        predictions: Columns of the last evaluation. Rating: user, item, rating, prediction. With
            `save_predictions`, ranking: user, recommended.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        low, high = config["rating_range"]
        self._scale = RatingScale(
            low, high, scores_are_labels=not config.is_ours, clip=config["clip_predictions"]
        )
        self.saved_model_file = str(checkpoint_path(config))
        self.eval_collector = ColdStartCollector(config)
        self._batches: list[tuple[Tensor, ...]] = []

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """Measure the model as RecBole does, on cold-start users."""
        self._batches = []
        self._ties = torch.Generator().manual_seed(self.config["seed"])
        if eval_data:
            dataset = eval_data._dataset
            self._candidates = Candidates(dataset.pair, dataset.split, self.device)
        result: dict[str, float] | None = super().evaluate(
            eval_data, load_best_model, model_file, show_progress
        )
        return result

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        """What was evaluated last, by internal ids.

        Rating: rows, (N,) each. Ranking: users (n,), and their first max(topk) items (n, K).
        """
        is_value = self.config["eval_type"] == EvaluatorType.VALUE
        names = ("user", "item", "rating", "prediction") if is_value else ("user", "recommended")
        columns = zip(*self._batches, strict=True)
        return {
            name: torch.cat(parts).cpu().numpy() for name, parts in zip(names, columns, strict=True)
        }

    def _full_sort_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        user = interaction[self.config["USER_ID_FIELD"]].to(scores.device)
        scores = break_ties(self._candidates.only(scores, user), self._ties)
        if self.config["save_predictions"]:
            self._batches.append((user, scores.topk(max(self.config["topk"])).indices))
        return interaction, scores, positive_u, positive_i

    def _neg_sample_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Any, Any]:
        interaction, scores, positive_u, positive_i = super()._neg_sample_batch_eval(batched_data)
        if self.config["eval_type"] == EvaluatorType.VALUE:
            scores = self._scale.ratings(scores.flatten())  # KD_DAGFM's have shape (B, 1)
            interaction = self._in_stars(interaction)
            rows = [interaction[self.config[f]] for f in ("USER_ID_FIELD", "ITEM_ID_FIELD")]
            self._batches.append((*rows, interaction[self.config["RATING_FIELD"]], scores))
        return interaction, scores, positive_u, positive_i

    def _in_stars(self, interaction: Interaction) -> Interaction:
        """The batch with its rating as the label that RecBole's evaluator compares with."""
        rating = interaction[self.config["RATING_FIELD"]]
        return Interaction({**interaction.interaction, self.config["LABEL_FIELD"]: rating})
