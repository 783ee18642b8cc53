"""Trainers on RecBole's Trainer."""

from __future__ import annotations

from typing import Any

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
    return build(config, model)
