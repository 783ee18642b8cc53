"""The trainer of this package's models: runs their stages one after another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.utils import early_stopping, set_color
from torch import Tensor, nn

from recbole_cdr_mm import ranks
from recbole_cdr_mm.checkpoint import plain_config, save_checkpoint
from recbole_cdr_mm.errors import StageError
from recbole_cdr_mm.evaluation.significance import compare
from recbole_cdr_mm.evaluation.user_values import user_values
from recbole_cdr_mm.stage import Stage, Training
from recbole_cdr_mm.trainer.cold_start_evaluation import ColdStartEvaluation, NumbersOnly
from recbole_cdr_mm.trainer.pretrained import PretrainedStages
from recbole_cdr_mm.trainer.report import StageReport
from recbole_cdr_mm.trainer.resume import open_resumed, restore_model
from recbole_cdr_mm.trainer.row_adam import RowAdam


@dataclass
class Progress:
    """How far a run is: all of it that a checkpoint needs beside the model's and optimiser's state.

    Attributes:
        reports: Of the stages begun, in order; the last one may be under way.
        stale: Validations since the best one, for early stopping.
        peak: The validation metric of the best one, whether or not that epoch counts.
        finished: Stages that are over.
        best: The trained parameters of the best epoch of the stage under way, by name.
        start: The validation rows of a stage that `keeps_start`, as predicted before its training.
    """

    reports: list[StageReport] = field(default_factory=list)
    stale: int = 0
    peak: float | None = None
    finished: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)


class StagedTrainer(ColdStartEvaluation, NumbersOnly):
    """RecBole's Trainer, run once for each stage of a model.

    Progress bars, losses, gradient clipping, mixed precision, TensorBoard, early stopping and
    evaluation are RecBole's. It knows no model: what a stage trains, on what and for how long is in
    the Stage object.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.progress = Progress()
        self._moves_rows = config["learner"] == "sparse_adam"
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = self._moves_rows

    @property
    def reports(self) -> list[StageReport]:
        """What each stage did."""
        return self.progress.reports

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer | None:
        """None: RecBole asks for one over all parameters; each stage gets its own."""
        return None

    def _optimiser_of(self, training: Training) -> torch.optim.Optimizer:
        learning_rate = training.learning_rate or self.learning_rate
        if self._moves_rows:
            return RowAdam(training.trains, learning_rate)
        optimiser: torch.optim.Optimizer = super()._build_optimizer(
            params=list(training.trains), learning_rate=learning_rate
        )
        return optimiser

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Run all stages.

        Args:
            train_data: RecBole's loader of the training part; its data set is handed to the model.
            valid_data: Loader of the validation users' rows; without them each last epoch counts.
            verbose: Whether to log each epoch.
            saved: Whether to keep a checkpoint after each epoch.
            show_progress: Whether to show progress bars.
            callback_fn: Called with epoch and validation metric after each validation.

        Returns:
            The validation metric and all validation results of the trained model; (-1, None)
            without validation users.

        Raises:
            StageError: If a stage needs another one that is not trained.
            ConfigError: If `resume` names a checkpoint that does not fit.
        """
        self._verbose, self._saved, self._show_progress = verbose, saved, show_progress
        self._callback = callback_fn
        self.eval_collector.data_collect(train_data)

        def validate() -> float:
            score, _ = self._valid_epoch(valid_data, show_progress)
            return float(score)

        stages = self.model.stages(train_data._dataset, validate if valid_data else None)
        self._share(stages)
        resumed = open_resumed(self.config, Path(self.saved_model_file), self.logger)
        if resumed is not None:
            self._restore(resumed)
        for number, stage in enumerate(stages):
            if number >= self.progress.finished:
                self._run(stage, resumed)
                resumed = None
        if resumed is not None:  # nothing was left to train: keep it where evaluation looks
            self._checkpoint()
        self.best_valid_score, self.best_valid_result = -1.0, None
        if valid_data:
            score, self.best_valid_result = self._valid_epoch(valid_data, show_progress)
            self.best_valid_score = score
        self._add_hparam_to_tensorboard(self.best_valid_score)
        return self.best_valid_score, self.best_valid_result

    # One stage

    def _run(self, stage: Stage, resumed: dict[str, Any] | None) -> None:
        self._check_requirements(stage)
        if len(self.progress.reports) == self.progress.finished:
            self.progress.reports.append(StageReport(stage.name))
        report = self.progress.reports[-1]
        if self._verbose:
            self.logger.info(set_color(f"stage {stage.name}", "pink"))
        start = perf_counter()
        self.model.stage = stage.name  # `prepare` may validate
        if stage.prepare is not None:
            stage.prepare()
        report.seconds += perf_counter() - start
        file = self._shared_files.get(stage.name)
        if file is not None:
            self._take_over_or_train(stage, file, resumed)
        elif stage.training is None:
            if stage.validate:
                report.valid_metric = stage.validate()
                report.validated(report.valid_metric)
        else:
            self._descend(stage, stage.training, report, resumed)
        self.model.trained_stages.append(stage.name)
        self.progress.finished += 1
        self.progress.best, self.progress.start, self.optimizer = {}, {}, None
        self._checkpoint()

    def _share(self, stages: Sequence[Stage]) -> None:
        """Find out where pre-trained stages are kept, while their models are as they begin."""
        self._shared_files: dict[str, Path] = {}
        shared = [stage for stage in stages if stage.pretraining is not None]
        if shared and self.config["pretrained_path"]:
            self._pretrained = PretrainedStages(self.config)
            self._shared_files = {stage.name: self._pretrained.file(stage) for stage in shared}

    def _take_over_or_train(self, stage: Stage, file: Path, resumed: dict[str, Any] | None) -> None:
        """Give a stage what another run trained, or train it and keep that for others."""
        assert stage.training is not None
        with self._pretrained.reserved(file) if ranks.is_first() else nullcontext():
            report = self._pretrained.load(file, stage) if ranks.of_first(file.exists()) else None
            if report is None:
                self._descend(stage, stage.training, self.progress.reports[-1], resumed)
                if ranks.is_first():
                    self._pretrained.save(file, stage, self.progress.reports[-1])
            else:
                self.progress.reports[-1] = report
                self.logger.info(f"stage {stage.name}: taken over from {file}")
            ranks.wait()

    def _check_requirements(self, stage: Stage) -> None:
        missing = [name for name in stage.requires if name not in self.model.trained_stages]
        if missing:
            raise StageError(
                f"{self.config['model']}, stage `{stage.name}`: stage"
                f" {' and '.join(f'`{name}`' for name in missing)} is not trained. Put it before"
                " this one in `stages`, or resume a checkpoint that holds it."
            )

    def _descend(
        self, stage: Stage, training: Training, report: StageReport, resumed: dict[str, Any] | None
    ) -> None:
        self.optimizer = optimiser = self._optimiser_of(training)
        ranks.take_over(self.model)
        if ranks.world_size() > 1:
            optimiser.register_step_pre_hook(ranks.exchange_gradients)
        if resumed is not None and resumed["optimizer"] is not None:
            optimiser.load_state_dict(resumed["optimizer"])
        elif stage.validate:
            report.valid_metric = stage.validate()
            report.validated(report.valid_metric)
            self.progress.peak = report.valid_metric
            self._keep_best(training)
            if stage.keeps_start:
                self.progress.start = self._columns()
            if self._verbose:
                self.logger.info(
                    f"{set_color(f'stage {stage.name}', 'pink')} before training"
                    f" [{set_color('valid_score', 'blue')}: {report.valid_metric:f}]"
                )
        with self._only_training(training.trains):
            while report.epochs < training.max_epochs and not self._is_stale():
                self._train_one_epoch(stage, training, report)
                self._checkpoint()
        self._return_to_best(training)
        if self._verbose and stage.validate:
            best = f"epoch {report.best_epoch - 1}" if report.best_epoch else "before training"
            if self.progress.start and not report.best_epoch:
                best += ", which no epoch betters by more than the validation users' noise"
            self.logger.info(
                f"{set_color(f'stage {stage.name}', 'pink')} ended after {report.epochs} epochs,"
                f" best: {best} [{set_color('valid_score', 'blue')}: {report.valid_metric:f}]"
            )

    def _train_one_epoch(self, stage: Stage, training: Training, report: StageReport) -> None:
        epoch = report.epochs
        training.loader.set_epoch(epoch)
        start = perf_counter()
        loss = self._train_epoch(
            training.loader, f"{stage.name} {epoch}", training.loss, self._show_progress
        )
        end = perf_counter()
        report.seconds += end - start
        report.epochs += 1
        report.examples += training.loader.n_rows
        loss = sum(ranks.gathered(loss)) / ranks.world_size() / len(training.loader)
        report.losses.append(float(loss))
        self._add_train_loss_to_tensorboard(epoch, loss, tag=f"Loss/Train/{stage.name}")
        self.wandblogger.log_metrics({"epoch": epoch, f"{stage.name}_loss": loss}, head="train")
        if self._verbose:
            output = self._generate_train_loss_output(epoch, start, end, loss)
            self.logger.info(f"{set_color(f'stage {stage.name}', 'pink')} {output}")
        if stage.validate is None:
            report.best_epoch = report.epochs
        elif report.epochs % max(self.eval_step, 1) == 0 or report.epochs == training.max_epochs:
            self._validate_epoch(stage, training, report, epoch)

    def _validate_epoch(
        self, stage: Stage, training: Training, report: StageReport, epoch: int
    ) -> None:
        assert stage.validate is not None
        score = stage.validate()
        report.validated(score)
        self.tensorboard.add_scalar(f"Valid_score/{stage.name}", score, epoch)
        self.progress.peak, self.progress.stale, _, _ = early_stopping(
            score,
            self.progress.peak,
            self.progress.stale,
            max_step=self.stopping_step,
            bigger=self.valid_metric_bigger,
        )
        assert report.valid_metric is not None  # the start was validated
        gain = score - report.valid_metric
        is_best = (gain if self.valid_metric_bigger else -gain) >= 0 and self._beats_start()
        if is_best:
            report.valid_metric, report.best_epoch = score, report.epochs
            self._keep_best(training)
        if self._verbose:
            self.logger.info(
                f"{set_color(f'stage {stage.name}', 'pink')}"
                f" {set_color(f'epoch {epoch} evaluating', 'green')}"
                f" [{set_color('valid_score', 'blue')}: {score:f}{', best so far' * is_best}]"
            )
        if self._callback:
            self._callback(epoch, score)

    def _beats_start(self) -> bool:
        """Whether the last validation is beyond the noise of the start's, if that matters."""
        if not self.progress.start:
            return True
        start, now = (
            {0: user_values({name: c.cpu().numpy() for name, c in rows.items()}, self.valid_metric)}
            for rows in (self.progress.start, self._columns())
        )
        difference = compare(now, start).difference
        return bool(difference.low > 0 if self.valid_metric_bigger else difference.high < 0)

    def _is_stale(self) -> bool:
        return self.progress.stale > self.stopping_step

    def _keep_best(self, training: Training) -> None:
        self.progress.best = {
            name: parameter.detach().clone() for name, parameter in self._named(training.trains)
        }

    def _return_to_best(self, training: Training) -> None:
        with torch.no_grad():
            for name, parameter in self._named(training.trains):
                if name in self.progress.best:
                    parameter.copy_(self.progress.best[name])
        self.progress.stale = 0
        self.model.train()  # what was cached for evaluation belongs to the last epoch

    def _named(self, parameters: tuple[nn.Parameter, ...]) -> Iterator[tuple[str, nn.Parameter]]:
        chosen = {id(parameter) for parameter in parameters}
        return ((n, p) for n, p in self.model.named_parameters() if id(p) in chosen)

    @contextmanager
    def _only_training(self, parameters: tuple[nn.Parameter, ...]) -> Iterator[None]:
        """Let gradients reach these parameters and no others."""
        chosen = {id(parameter) for parameter in parameters}
        wanted = {p: p.requires_grad for p in self.model.parameters()}
        try:
            for parameter in wanted:
                parameter.requires_grad_(id(parameter) in chosen)
            yield
        finally:
            for parameter, requires_grad in wanted.items():
                parameter.requires_grad_(requires_grad)

    # Checkpoints

    def _checkpoint(self) -> None:
        if self._saved and ranks.is_first():
            self._save_checkpoint(self.progress.reports[-1].epochs - 1, verbose=False)
        ranks.wait()

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Keep the model, the optimiser and the progress, all of them tensors and plain values."""
        state = {
            "config": plain_config(self.config.final_config_dict),
            "given": plain_config(self.config.given_values),
            "epoch": epoch,
            "state_dict": self.model.state_dict(),
            "other_parameter": self.model.other_parameter(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "progress": asdict(self.progress),
        }
        save_checkpoint(kwargs.get("saved_model_file", self.saved_model_file), state)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {self.saved_model_file}")

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        restore_model(self.model, checkpoint)
        progress = copy.deepcopy(checkpoint["progress"])
        reports = [StageReport(**report) for report in progress.pop("reports")]
        self.progress = Progress(reports=reports, **progress)
