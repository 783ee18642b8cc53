"""One run: a model on a pair, trained and measured, with its outputs."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from logging import CRITICAL, FileHandler, Logger, getLogger
from pathlib import Path
from typing import Any

import numpy as np
import recbole.utils
import torch
from recbole.data import create_samplers
from recbole.data.utils import get_dataloader

import recbole_cdr_mm
from dataset_tools.safe_output import atomic_path, check_writable, write_json
from recbole_cdr_mm import ranks
from recbole_cdr_mm.checkpoint import load_checkpoint
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.samplers import TrainingSampler
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.evaluation.predictions import prediction_columns
from recbole_cdr_mm.recbole_models import build_model
from recbole_cdr_mm.trainer import build_trainer
from recbole_cdr_mm.trainer.resume import check_same_run, restore_model, run_config

FEW_USERS = 50  # below, validation users are too few to trust
VERSIONS_OF = ("recbole", "torch", "numpy", "pandas", "scipy", "transformers")


@dataclass(frozen=True, eq=False)
class Parts:
    """What a run consists of before it is trained: the pair, its loaders, and the model."""

    pair: PairDataset
    train_data: Any
    valid_data: Any
    test_data: Any
    model: Any


def assemble(config: MMConfig) -> Parts:
    """Load the configured pair, split it, and build the model.

    Args:
        config: The run's configuration.

    Raises:
        UserError: For whatever the user can put right.
    """
    logger = getLogger()
    _seed(config)
    pair = PairDataset(config)  # first, so that an error in the data stands alone
    logger.info(config)
    logger.info(pair)
    if 0 < len(pair.split.valid_users) < FEW_USERS:
        logger.warning(f"Few validation users (below {FEW_USERS}): what they choose is noisy.")
    parts = pair.build()
    train_data, valid_data, test_data = _loaders(config, pair, parts)
    _seed(config)
    model = build_model(config, parts[0]).to(config["device"])
    return Parts(pair, train_data, valid_data, test_data, model)


def restore(path: Path, config: MMConfig) -> Parts:
    """The pair, its loaders, and a model as a checkpoint holds it.

    Args:
        path: A checkpoint that a run has left.
        config: The configuration of that run.

    Raises:
        UserError: If the checkpoint is damaged, or was trained on other data than there are now.
    """
    checkpoint = load_checkpoint(path, map_location=config["device"])
    parts = assemble(config)
    check_same_run(path, checkpoint["config"], config)
    if config.is_ours:
        n_stages = len(parts.model.stages(parts.train_data._dataset, None))
        if checkpoint["progress"]["finished"] < n_stages:
            raise ConfigError(
                f"{path}: the run that left it has not ended: {checkpoint['progress']['finished']}"
                f" of {n_stages} stages are trained. Go on with --resume={path}."
            )
    restore_model(parts.model, checkpoint)
    parts.model.eval()
    return parts


def run(config: MMConfig, *, saved: bool) -> dict[str, Any]:
    """Train the configured model on its pair, then measure it.

    Args:
        config: The run's configuration.
        saved: Whether to keep checkpoints; see `run_recbole_mm`.

    Returns:
        The result, as `--result_json` writes it.

    Raises:
        UserError: For whatever the user can put right.
    """
    _check_outputs(config)
    with _logging(config) as logger:
        parts = assemble(config)
        logger.info(parts.model)
        trainer = build_trainer(config, parts.model)
        options: dict[str, Any] = {"show_progress": config["show_progress"] and ranks.is_first()}
        with closing(trainer.tensorboard):
            trainer.fit(parts.train_data, parts.valid_data or None, saved=saved, **options)
        options["load_best_model"] = _is_best_on_disk(config, saved)
        valid = trainer.evaluate(parts.valid_data, **options)  # None without users
        estimates = {"valid": _estimates(trainer, config)}
        test = trainer.evaluate(parts.test_data, **options) or {}
        estimates["test"] = _estimates(trainer, config)
        result = _result(config, parts.pair, trainer, valid, test, estimates)
        if ranks.is_first():
            _write_outputs(config, parts.pair, trainer, result)
        logger.info(_short_table(result))
    return result


def validate(
    config: MMConfig, *, saved: bool, on_validation: Callable[[int, float], None] | None = None
) -> dict[str, Any]:
    """Train the configured model and measure it on the validation users; the test is not read.

    Args:
        config: The run's configuration.
        saved: Whether to keep checkpoints; see `run_recbole_mm`.
        on_validation: Called after each validation with the number of validations before it, over
            all stages, and the validation metric. What it raises ends the training.

    Returns:
        `valid_metric` (its name), `bigger_is_better`, `valid_score` and `valid`, the metrics of the
        validation users, and `stages`.

    Raises:
        UserError: For whatever the user can put right, no validation users among it.
    """
    with _logging(config):
        parts = assemble(config)
        if not parts.valid_data:
            raise ConfigError(
                f"{config['dataset']} has no validation users, by whom a search chooses. Give"
                " --valid_user_ratio=0.1, or a pair with more overlapped users."
            )
        trainer = build_trainer(config, parts.model)
        steps = itertools.count()

        def callback(epoch: int, score: float) -> None:
            if on_validation:
                on_validation(next(steps), float(score))

        options = {"show_progress": config["show_progress"]}
        with closing(trainer.tensorboard):
            trainer.fit(
                parts.train_data, parts.valid_data, saved=saved, callback_fn=callback, **options
            )
        valid = (
            trainer.evaluate(
                parts.valid_data, load_best_model=_is_best_on_disk(config, saved), **options
            )
            or {}
        )
        return {
            "valid_metric": config["valid_metric"],
            "bigger_is_better": bool(config["valid_metric_bigger"]),
            "valid_score": valid[config["valid_metric"].lower()],
            "valid": _named(valid, config),
            "stages": [report.as_result() for report in trainer.reports],
        }


def _is_best_on_disk(config: MMConfig, saved: bool) -> bool:
    """Whether the best epoch has to be read again; our models end in that state."""
    return saved and not config.is_ours


@contextmanager
def _logging(config: MMConfig) -> Iterator[Logger]:
    """RecBole's logger for this run alone: its file ends with the run. One process speaks.

    Where the root logger shows its messages already, as in a notebook, only the file is added.
    """
    _make_folders(config)
    logger = getLogger()
    shows = any(not isinstance(handler, FileHandler) for handler in logger.handlers)
    with ExitStack() as ending:
        ending.callback(logger.setLevel, logger.level)
        for name in ("stdout", "stderr"):  # which RecBole wraps anew each time
            ending.callback(setattr, sys, name, getattr(sys, name))
        if ranks.is_first():
            with _without_handlers(logger):  # beside others RecBole would not add its own
                recbole.utils.init_logger(config)
                own = list(logger.handlers)
            for handler in own:
                ending.callback(handler.close)
                if isinstance(handler, FileHandler) or not shows:
                    logger.addHandler(handler)
                    ending.callback(logger.removeHandler, handler)
        else:
            logger.setLevel(CRITICAL)
            config["log_wandb"] = False
        yield logger


def _make_folders(config: MMConfig) -> None:
    """Make the folders that RecBole makes too, where two processes at once get in its way."""
    for folder in (
        Path("log") / config["model"],
        Path("log_tensorboard"),
        config["checkpoint_dir"],
    ):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot make this folder ({error.strerror}). Remove what is there, run"
                " in another working directory, or give another --checkpoint_dir."
            ) from error


@contextmanager
def _without_handlers(logger: Logger) -> Iterator[None]:
    """Put back at the end the handlers that a logger has now, and no others."""
    before, logger.handlers = logger.handlers, []
    try:
        yield
    finally:
        logger.handlers = before


def _seed(config: MMConfig) -> None:
    recbole.utils.init_seed(config["seed"], config["reproducibility"])


def _loaders(config: MMConfig, pair: PairDataset, parts: list[PairDataset]) -> list[Any]:
    """RecBole's loaders of the training, validation and test part."""
    samplers = list(create_samplers(config, pair, parts))
    if samplers[0] and not config.is_ours:
        samplers[0] = TrainingSampler(config, parts[0]).set_phase("train")
    shuffle = {"train": config["shuffle"], "valid": False, "test": False}
    return [
        get_dataloader(config, phase)(config, part, sampler, shuffle=shuffle[phase])
        for phase, part, sampler in zip(shuffle, parts, samplers, strict=True)
    ]


def _check_outputs(config: MMConfig) -> None:
    """Find out before the training, not after it, that an output cannot be written."""
    for key in ("result_json", "save_predictions"):
        if config[key] and Path(config[key]).is_dir():
            raise ConfigError(f"`{key}: {config[key]}` is a folder. Name a file in it.")
        if config[key] and not Path(config[key]).parent.is_dir():
            raise ConfigError(
                f"`{key}: {config[key]}`: there is no folder {Path(config[key]).parent}. Make it,"
                " or name another file."
            )
        if config[key] and ranks.is_first():
            check_writable(Path(config[key]))


def _result(
    config: Any,
    pair: Any,
    trainer: Any,
    valid: Mapping[str, float] | None,
    test: Mapping[str, float],
    estimates: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, Any]:
    return {
        "model": config["model"],
        "dataset": config["dataset"],
        "preset": config["preset"],
        "eval_task": config["eval_task"],
        "seed": config["seed"],
        "split_seed": config["split_seed"],
        "test_user_ratio": config["test_user_ratio"],
        "data": pair.description,
        "rows": pair.rows,
        "valid": _named(valid, config) if valid else None,
        "test": _named(test, config),
        "estimates": estimates if estimates["test"] else None,
        "stages": [report.as_result() for report in trainer.reports],
        "predictions": config["save_predictions"],
        "versions": {
            "recbole_cdr_mm": recbole_cdr_mm.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "processes": ranks.world_size(),
            **{name: importlib.metadata.version(name) for name in VERSIONS_OF},
        },
        "config": run_config(config),
    }


def _estimates(trainer: Any, config: Any) -> dict[str, dict[str, float]] | None:
    """What `trainer.estimates` says of the last evaluation, the metrics by the config's names."""
    measured = trainer.estimates
    return measured and {name: _named(values, config) for name, values in measured.items()}


def _named(metrics: Mapping[str, float], config: Any) -> dict[str, float]:
    """Metrics under the names that the config gives them: `ndcg@10` as `NDCG@10`."""
    names = {name.lower(): name for name in config["metrics"]}
    named = {}
    for key, value in metrics.items():
        name, at, k = key.partition("@")
        named[f"{names.get(name, name)}{at}{k}"] = float(value)
    return named


def _write_outputs(config: Any, pair: Any, trainer: Any, result: Mapping[str, Any]) -> None:
    if config["save_predictions"]:
        columns = prediction_columns(pair, trainer.predictions)
        with atomic_path(Path(config["save_predictions"])) as path, path.open("wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]  # for `allow_pickle`
    if config["result_json"]:
        write_json(Path(config["result_json"]), result)


def _short_table(result: Mapping[str, Any]) -> str:
    lines = [f"{result['model']} on {result['dataset']} (split_seed {result['split_seed']})"]
    for part in ("valid", "test"):
        if result[part]:
            lines.append(f"  {part:5}  {_in_a_row(result[part])}")
    if result["estimates"]:
        for name, values in result["estimates"]["test"].items():
            lines.append(f"  test, {name:8}  {_in_a_row(values)}")
    return "\n".join(lines)


def _in_a_row(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
