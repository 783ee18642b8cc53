"""Trainers on RecBole's Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from recbole_cdr_mm import ranks
from recbole_cdr_mm.trainer.cold_start_evaluation import ColdStartEvaluation
from recbole_cdr_mm.trainer.recbole_trainer import build_recbole_trainer
from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer


def build_trainer(config: Any, model: Any) -> ColdStartEvaluation:
    """The trainer for a model: StagedTrainer for ours, RecBole's own for RecBole's.

    Args:
        config: The run's `MMConfig`.
        model: The model.
    """
    build = StagedTrainer if config.is_ours else build_recbole_trainer
    if ranks.is_first():
        return build(config, model)
    with patch("recbole.trainer.trainer.get_tensorboard", lambda logger: _NoTensorBoard()):
        return build(config, model)


class _NoTensorBoard:
    """The writer of a process that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None
