"""Make this package's models findable by RecBole, by name."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import recbole.data.dataset
import recbole.quick_start.quick_start as recbole_quick_start
import recbole.trainer
from recbole.config import Config

from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.given import model_name_of
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.trainer.staged_trainer import StagedTrainer


def register() -> None:
    """Register all models of this package with RecBole. Calling it again changes nothing.

    Afterwards `recbole.quick_start.run_recbole(model="MetaMMCDR", dataset="movie_cd")` works: the
    model, its trainer and its data set are found by name, its configuration is an `MMConfig`, and
    RecBole's count of floating-point operations, which would ask an untrained model to predict, is
    left out. What RecBole does with its own models is untouched; only that count is not logged
    where the package `thop`, which it needs, is missing.
    """
    for name, model in find_models().items():
        module = importlib.import_module(model.__module__)
        sys.modules[f"recbole.model.general_recommender.{name.lower()}"] = module
        setattr(recbole.trainer, f"{name}Trainer", StagedTrainer)
        setattr(recbole.data.dataset, f"{name}Dataset", PairDataset)
    if recbole_quick_start.Config is Config:
        recbole_quick_start.Config = _config
        recbole_quick_start.get_flops = _count_where_possible(recbole_quick_start.get_flops)


def _config(
    model: str | type | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> Config:
    """RecBole's Config for its own models, MMConfig for ours."""
    # Arguments of another form are a notebook's or a test runner's; RecBole leaves them out too.
    command_line = [a for a in sys.argv[1:] if a.startswith("--") and "=" in a]
    name = model_name_of(model, config_file_list, config_dict, command_line)
    if name in find_models():
        return MMConfig(model, dataset, config_file_list, config_dict, command_line)
    return Config(model, dataset, config_file_list, config_dict)


def _count_where_possible(get_flops: Callable[..., float]) -> Callable[..., float]:
    @functools.wraps(get_flops)
    def flops(model: Any, *args: Any, **kwargs: Any) -> float:
        if type(model).__name__ in find_models():
            return float("nan")
        try:
            return get_flops(model, *args, **kwargs)
        except ModuleNotFoundError as error:
            if error.name != "thop":
                raise
            return float("nan")

    return flops
