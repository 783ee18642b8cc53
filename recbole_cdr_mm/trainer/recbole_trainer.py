"""RecBole's own trainers on a pair: measured on cold-start users, resumable after each epoch."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from recbole.trainer import Trainer
from recbole.utils import get_trainer, init_seed

from recbole_cdr_mm.trainer.cold_start_evaluation import ColdStartEvaluation
from recbole_cdr_mm.trainer.report import StageReport
from recbole_cdr_mm.trainer.resume import open_resumed


class ResumableEpochs(Trainer):
    """Mixed in before one of RecBole's trainers: a run that was killed goes on as if it had not been.

    Each epoch draws from generators that are seeded by the run's seed and the epoch, and the state
    after it is kept beside the best model.

    Attributes:
        reports: What the training did, as one stage.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.reports = [StageReport("train")]

    def fit(self, train_data: Any, *args: Any, **kwargs: Any) -> Any:
        """Train as RecBole does, from the checkpoint where `resume` asks for it."""
        best_file = self.saved_model_file
        if open_resumed(self.config, self._last_epoch_file, self.logger) is not None:
            asked = self.config["resume"]
            self.resume_checkpoint(self._last_epoch_file if asked is True else asked)
            self.saved_model_file = best_file
        return super().fit(train_data, *args, **kwargs)

    @property
    def _last_epoch_file(self) -> Path:
        return Path(self.saved_model_file).with_suffix(".last.pth")

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if epoch_idx > self.start_epoch:  # all that belongs to the epoch before is done
            self._save_checkpoint(epoch_idx - 1, False, saved_model_file=self._last_epoch_file)
        init_seed(self.config["seed"] + epoch_idx, self.config["reproducibility"])
        train_data.generator.manual_seed(self.config["seed"] + epoch_idx)
        start = perf_counter()
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        report = self.reports[0]
        report.seconds += perf_counter() - start
        report.epochs = epoch_idx + 1
        report.examples += train_data.sample_size
        return loss

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> Any:
        score, result = super()._valid_epoch(*args, **kwargs)
        report = self.reports[0]
        best = self.best_valid_score
        if score >= best if self.valid_metric_bigger else score <= best:  # as RecBole's early_stopping
            report.best_epoch, report.valid_metric = report.epochs, float(score)
        return score, result


def build_recbole_trainer(config: Any, model: Any) -> ColdStartEvaluation:
    """The trainer that RecBole has for one of its models, for a pair.

    Args:
        config: The run's configuration.
        model: One of RecBole's models.
    """
    base = get_trainer(config["MODEL_TYPE"], config["model"])
    trainer: type[ColdStartEvaluation] = type(
        f"ColdStart{base.__name__}", (ColdStartEvaluation, ResumableEpochs, base), {}
    )
    return trainer(config, model)
