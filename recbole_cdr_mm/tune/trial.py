"""What a worker does for one trial: train with the values it is given, on each split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.quick_start import validate_recbole_mm

WARM_UP = 3  # validations of a training before it may be stopped
SPLIT_STRIDE = 1_000_000  # more steps than a training has validations


@dataclass(frozen=True)
class Run:
    """What all trials of a search have in common.

    Attributes:
        model: Name of the model.
        dataset: Name of the pair.
        config_files: YAML files.
        command_line: `--key=value` arguments, none of them a tuned key.
        split_seeds: The splits on which each trial is trained.
        eval_task: What is predicted.
        metric: The validation metric that is compared.
        bigger_is_better: Its direction.
        saved: Whether trainings keep checkpoints, from which RecBole's own models return to their
            best epoch.
    """

    model: str
    dataset: str
    config_files: tuple[str, ...]
    command_line: tuple[str, ...]
    split_seeds: tuple[int, ...]
    eval_task: str
    metric: str
    bigger_is_better: bool
    saved: bool


class _Stopped(Exception):
    """The search has seen enough of this trial."""


@dataclass
class _Curve:
    """Tells the search how a trial is doing, so that it can stop it.

    What is told is the mean of the splits that are done and of the best validation so far of the
    one under way, since the best epoch is what counts in the end. Two trials that are at the same
    step have trained on the same splits for the same number of validations.
    """

    run: Run
    report: Callable[[tuple[int, float]], bool]
    done: list[float] = field(default_factory=list)
    best: float | None = None

    def add(self, validation: int, score: float) -> None:
        """Take a validation of the training under way, counted from 0.

        Raises:
            _Stopped: If the search wants no more.
        """
        better = max if self.run.bigger_is_better else min
        self.best = score if self.best is None else better(self.best, score)
        if validation < WARM_UP:
            return
        step = SPLIT_STRIDE * len(self.done) + validation
        if self.report((step, fmean([*self.done, self.best]))):
            raise _Stopped

    def end_split(self, score: float) -> None:
        """Take the validation metric of a training that has ended."""
        self.done.append(score)
        self.best = None


def train_trial(
    run: Run, values: Mapping[str, Any], report: Callable[[tuple[int, float]], bool]
) -> float | None:
    """Train with some values, and measure on the validation users.

    Args:
        run: What all trials have in common.
        values: The tuned keys.
        report: Told a step and how the trial is doing; answers whether to stop it.

    Returns:
        The mean of the validation metric over the splits; None where the trial was stopped.

    Raises:
        UserError: If these values cannot be trained with.
    """
    curve = _Curve(run, report)
    with TemporaryDirectory() as checkpoints:
        common = {**values, "checkpoint_dir": checkpoints, "show_progress": False}
        for split_seed in run.split_seeds:
            try:
                result = validate_recbole_mm(
                    run.model,
                    run.dataset,
                    run.config_files,
                    {**common, "split_seed": split_seed},
                    run.command_line,
                    saved=run.saved,
                    on_validation=curve.add,
                )
            except _Stopped:
                return None
            curve.end_split(_finite(result["valid_score"], run))
    return fmean(curve.done)


def _finite(score: float, run: Run) -> float:
    if not math.isfinite(score):
        raise ConfigError(f"{run.model}: the validation {run.metric} is {score}.")
    return score
