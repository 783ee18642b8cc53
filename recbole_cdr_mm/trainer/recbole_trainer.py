"""RecBole's own trainers on a pair: measured on cold-start users, resumable after each epoch."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from recbole.trainer import PretrainTrainer, Trainer
from recbole.utils import get_trainer, init_seed, set_color
from torch import nn
from torch.optim import Optimizer

from recbole_cdr_mm.checkpoint import load_checkpoint, plain_config, save_checkpoint
from recbole_cdr_mm.recbole_models import known_model
from recbole_cdr_mm.trainer.cold_start_evaluation import ColdStartEvaluation, NumbersOnly
from recbole_cdr_mm.trainer.report import StageReport
from recbole_cdr_mm.trainer.resume import open_resumed, restore_model

_LAST = ".last.pth"


class ResumableEpochs(Trainer):
    """Mixed in before one of RecBole's trainers: a killed run goes on as if nothing had been.

    Each epoch draws from generators that are seeded by the run's seed and the epoch, and all that
    the epochs before left is kept beside the best model.

    Attributes:
        reports: What the training did, as one stage.
    """

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.reports = [StageReport("train")]
        self._saved, self._has_validation = True, True

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train as RecBole does, from the checkpoint where `resume` asks for it."""
        self._saved = saved
        self._has_validation = bool(valid_data) and self.eval_step > 0
        resumed = open_resumed(self.config, self._last_epoch_file, self.logger)
        if resumed is not None:
            self._restore(resumed)
            self._bring_best_model()
        elif saved:
            self._last_epoch_file.unlink(missing_ok=True)  # an older run's
        best: tuple[float, dict[str, float] | None] = super().fit(
            train_data, valid_data, verbose, saved, show_progress, callback_fn
        )
        return best

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if self._saved and epoch_idx > self.start_epoch:  # all of the epoch before is done
            self._save_checkpoint(epoch_idx - 1, False, saved_model_file=self._last_epoch_file)
        # Hashed, so that two seeds share no epoch's stream.
        seed = zlib.crc32(f"{self.config['seed']}/{epoch_idx}".encode())
        init_seed(seed, self.config["reproducibility"])
        train_data.generator.manual_seed(seed)
        start = perf_counter()
        loss = super()._train_epoch(train_data, epoch_idx, *args, **kwargs)
        report = self.reports[0]
        report.seconds += perf_counter() - start
        report.epochs = epoch_idx + 1
        report.examples += train_data.sample_size
        parts = loss if isinstance(loss, tuple) else (loss,)
        report.losses.append(float(sum(parts)) / len(train_data))
        if not self._has_validation:
            report.best_epoch = report.epochs
        return loss

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> Any:
        score, result = super()._valid_epoch(*args, **kwargs)
        report = self.reports[0]
        report.validated(score)
        best = self.best_valid_score
        if (
            score >= best if self.valid_metric_bigger else score <= best
        ):  # as RecBole's early_stopping
            report.best_epoch, report.valid_metric = report.epochs, float(score)
        return score, result

    # Checkpoints

    @property
    def _last_epoch_file(self) -> Path:
        return Path(self.saved_model_file).with_suffix(_LAST)

    def _optimisers(self) -> dict[str, Optimizer]:
        """All optimisers, by attribute; `optimizer` is left out where it is another one's alias."""
        found = {n: value for n, value in vars(self).items() if isinstance(value, Optimizer)}
        others = [value for name, value in found.items() if name != "optimizer"]
        return {n: value for n, value in found.items() if n != "optimizer" or not others}

    def _state_names(self) -> tuple[str, ...]:
        known = known_model(type(self.model))
        return known.state if known else ()

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Keep all that a run needs to go on, in tensors, arrays and plain values."""
        file = str(kwargs.get("saved_model_file") or self.saved_model_file)
        others = self.model.other_parameter()
        state = {
            "config": plain_config(self.config.final_config_dict),
            "given": plain_config(self.config.given_values),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": dict(self.best_valid_result or {}),
            "state_dict": self.model.state_dict(),
            # Modules among the other parameters have their tensors in state_dict already.
            "other_parameter": {
                name: value for name, value in others.items() if not isinstance(value, nn.Module)
            },
            "model_state": {name: getattr(self.model, name) for name in self._state_names()},
            "optimizers": {name: o.state_dict() for name, o in self._optimisers().items()},
            "report": asdict(self.reports[0]),
        }
        save_checkpoint(file, state)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {file}")

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        self.start_epoch = checkpoint["epoch"] + 1
        self.cur_step = checkpoint["cur_step"]
        self.best_valid_score = checkpoint["best_valid_score"]
        self.best_valid_result = checkpoint["best_valid_result"] or None
        restore_model(self.model, checkpoint)
        for name, optimiser in self._optimisers().items():
            optimiser.load_state_dict(checkpoint["optimizers"][name])
        self.reports = [StageReport(**checkpoint["report"])]

    def _bring_best_model(self) -> None:
        """Copy the best model that lies beside a checkpoint of another place to this run's own."""
        asked = self.config["resume"]
        if asked is True:
            return
        best = (
            Path(str(asked).removesuffix(_LAST) + ".pth") if str(asked).endswith(_LAST) else asked
        )
        if Path(best).exists() and Path(best).resolve() != Path(self.saved_model_file).resolve():
            save_checkpoint(self.saved_model_file, load_checkpoint(best))


class PretrainedEpochs(ResumableEpochs, PretrainTrainer):
    """Mixed in before a trainer with stages in runs of their own (RaCT's): keeps the last epoch.

    RecBole writes a file each `save_step` epochs, under a name that all configurations share.
    """

    def pretrain(self, train_data: Any, verbose: bool = True, show_progress: bool = False) -> Any:
        """Train for `pretrain_epochs`, without validation."""
        self._has_validation = False
        self.save_step = self.pretrain_epochs + 1
        self.eval_collector.data_collect(train_data)
        best = super().pretrain(train_data, verbose, show_progress)
        if self._saved:
            self._save_checkpoint(self.pretrain_epochs - 1, verbose)
        return best


def build_recbole_trainer(config: Any, model: Any) -> ColdStartEvaluation:
    """The trainer that RecBole has for one of its models, for a pair.

    Args:
        config: The run's configuration.
        model: One of RecBole's models.
    """
    base = get_trainer(config["MODEL_TYPE"], config["model"])
    resumable = PretrainedEpochs if issubclass(base, PretrainTrainer) else ResumableEpochs
    trainer: type[ColdStartEvaluation] = type(
        f"ColdStart{base.__name__}", (ColdStartEvaluation, NumbersOnly, resumable, base), {}
    )
    return trainer(config, model)
