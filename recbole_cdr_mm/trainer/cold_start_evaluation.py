"""Evaluation on cold-start users, for our trainer and for all of RecBole's."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_cdr_mm import ranks
from recbole_cdr_mm.checkpoint import load_checkpoint
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.collector import ColdStartCollector
from recbole_cdr_mm.evaluation.estimates import measure_estimates
from recbole_cdr_mm.evaluation.ranking import Candidates, break_ties
from recbole_cdr_mm.evaluation.rating import RatingScale
from recbole_cdr_mm.layers.rating_distribution import median, shortest_interval
from recbole_cdr_mm.trainer.resume import check_same_run, checkpoint_path, restore_model

_PAIRS_AT_ONCE = 1 << 20


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
        predictions: Columns of the last evaluation. Rating: user, item, rating, prediction, and
            with a distribution the estimates. With `save_predictions`, ranking: user, recommended.
        estimates: What the estimates of the last evaluation are worth.
    """

    test_batch_size: int

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self._scale = RatingScale.of_run(config)
        self.saved_model_file = str(checkpoint_path(config))
        # RecBole's: where a model scores pairs alone, users with all items are cut into such parts.
        self.test_batch_size = min(self.test_batch_size, _PAIRS_AT_ONCE)
        self.eval_collector = ColdStartCollector(config)
        self._batches: list[dict[str, Tensor]] = []

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """Measure the model as RecBole does, on cold-start users; each process a share of them.

        Raises:
            ConfigError: If the best model was asked for, and its checkpoint is another run's now.
        """
        result: dict[str, float] | None
        self._batches = []
        if eval_data and load_best_model:
            self._load_best(Path(model_file or self.saved_model_file))
        self._ties = torch.Generator().manual_seed(self.config["seed"])
        if eval_data:
            dataset = eval_data._dataset
            self._candidates = Candidates(dataset.pair, dataset.split, self.device)
            self._sizes = iter([len(rows) for rows in eval_data.batch_sampler])
            self._n_items = dataset.item_num
            eval_data = ranks.share_of_batches(eval_data)
            if not len(eval_data):  # fewer rows than processes
                result = self.evaluator.evaluate(self.eval_collector.get_data_struct())
                self._gather_batches()
                return result
        result = super().evaluate(eval_data, False, None, show_progress)
        self._gather_batches()
        return result

    def _load_best(self, path: Path) -> None:
        checkpoint = load_checkpoint(path, map_location=self.device)
        try:
            check_same_run(path, checkpoint["config"], self.config)
        except ConfigError as error:
            raise ConfigError(
                f"{path}: another run has left its model here. Give runs that train at the same"
                " time a --checkpoint_dir each."
            ) from error
        restore_model(self.model, checkpoint)
        self.logger.info(f"Loading the best model from {path}")

    def _gather_batches(self) -> None:
        """Give each process the rows of all."""
        if ranks.world_size() > 1:
            own = [{name: rows.cpu() for name, rows in batch.items()} for batch in self._batches]
            shares = ranks.gathered(own)
            of_batches = itertools.zip_longest(*shares, fillvalue={})
            self._batches = [
                {name: ranks.in_turn([part[name] for part in parts if part]) for name in parts[0]}
                for parts in of_batches
            ]

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        """What was evaluated last, by internal ids.

        Rating: rows, (N,) each; of a model with a distribution `mean`, `median`, the interval's
        `low` and `high` and its `probability` among them. Ranking: users (n,), and their first
        max(topk) items (n, K).
        """
        return {name: column.cpu().numpy() for name, column in self._columns().items()}

    @property
    def estimates(self) -> dict[str, dict[str, Any]] | None:
        """What `measure_estimates` says of the last evaluation; None without a distribution."""
        columns = self._columns()
        if "median" not in columns:
            return None
        return measure_estimates(columns, self.config["interval_level"], self.evaluator)

    def _columns(self) -> dict[str, Tensor]:
        names = self._batches[0] if self._batches else ()
        return {name: torch.cat([batch[name] for batch in self._batches]) for name in names}

    def _full_sort_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
        interaction, scores, positive_u, positive_i = super()._full_sort_batch_eval(batched_data)
        user = interaction[self.config["USER_ID_FIELD"]].to(scores.device)
        scores = break_ties(self._candidates.only(scores, user), self._noise())
        if self.config["save_predictions"]:
            recommended = scores.topk(max(self.config["topk"])).indices
            self._batches.append({"user": user, "recommended": recommended})
        return interaction, scores, positive_u, positive_i

    def _noise(self) -> Tensor:
        """What orders the ties of the next batch, (B, I), as in a run of one process."""
        shape = next(self._sizes), self._n_items
        return torch.rand(shape, generator=self._ties, dtype=torch.float64)[ranks.own_rows()]

    def _neg_sample_batch_eval(self, batched_data: Any) -> tuple[Any, Tensor, Any, Any]:
        interaction, scores, positive_u, positive_i = super()._neg_sample_batch_eval(batched_data)
        if self.config["eval_type"] == EvaluatorType.VALUE:
            scores = self._scale.ratings(scores.flatten())  # KD_DAGFM's have shape (B, 1)
            interaction = self._in_stars(interaction)
            fields = ("USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD")
            user, item, rating = (interaction[self.config[f]].to(self.device) for f in fields)
            rows = {"user": user, "item": item, "rating": rating, "prediction": scores}
            self._batches.append({**rows, **self._estimate(user, item)})
        return interaction, scores, positive_u, positive_i

    def _estimate(self, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        """Both point estimates and the interval of rows (B,); nothing without a distribution."""
        values = getattr(self.model, "rating_values", None)  # RecBole's own models say nothing
        if values is None:
            return {}
        probabilities = self.model.rating_probabilities(user, item)  # (B, V)
        interval = shortest_interval(probabilities, values, self.config["interval_level"])
        return {
            "mean": self._scale.ratings(self.model.rate(user, item)),
            "median": median(probabilities, values),
            **interval._asdict(),
        }

    def _in_stars(self, interaction: Interaction) -> Interaction:
        """The batch with its rating as the label that RecBole's evaluator compares with."""
        rating = interaction[self.config["RATING_FIELD"]]
        return Interaction({**interaction.interaction, self.config["LABEL_FIELD"]: rating})
