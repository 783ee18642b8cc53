"""One run: a model, ours or RecBole's, on a pair of domains, trained and measured."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

import recbole_cdr_mm
from dataset_tools.atomic import atomic_path
from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import EXIT_CODE, ConfigError, UserError

FEW_USERS = 50  # below, validation users are too few to trust
VERSIONS_OF = ("recbole", "torch", "numpy", "pandas", "scipy", "transformers")


def run_recbole_mm(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    command_line: Sequence[str] = (),
    saved: bool = True,
) -> dict[str, Any]:
    """Train a model on a pair and measure it on the validation and test users.

    The test users are measured once, after training, by the model that the validation users chose.

    Args:
        model: Name of a model, ours or RecBole's.
        dataset: Name of a pair.
        config_file_list: YAML files.
        config_dict: Wins over the files.
        command_line: `--key=value` arguments; win over the dict.
        saved: Whether to keep checkpoints.

    Returns:
        The result, as `--result_json` writes it (README, 'The result').

    Raises:
        UserError: For whatever the user can put right; see `errors`.
    """
    compat.apply()
    # RecBole's modules can be imported only now.
    from recbole.data import create_samplers
    from recbole.data.utils import get_dataloader
    from recbole.utils import init_logger, init_seed

    from recbole_cdr_mm.config import MMConfig
    from recbole_cdr_mm.data.dataset import PairDataset
    from recbole_cdr_mm.data.samplers import TrainingSampler
    from recbole_cdr_mm.recbole_models import build_model
    from recbole_cdr_mm.register import register
    from recbole_cdr_mm.trainer import build_trainer

    register()
    config = MMConfig(model, dataset, config_file_list, config_dict, command_line)
    _check_outputs(config)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    logger = getLogger()
    pair = PairDataset(config)  # first, so that an error in the data stands alone
    logger.info(config)
    logger.info(pair)
    n_valid = len(pair.split.valid_users)
    if 0 < n_valid < FEW_USERS:
        logger.warning(f"{n_valid} validation users only: what they choose is noisy.")
    parts = pair.build()
    samplers = list(create_samplers(config, pair, parts))
    if samplers[0] and not config.is_ours:
        samplers[0] = TrainingSampler(config, parts[0]).set_phase("train")
    train_data, valid_data, test_data = (
        get_dataloader(config, phase)(config, part, sampler, shuffle=phase == "train")
        for phase, part, sampler in zip(("train", "valid", "test"), parts, samplers, strict=True)
    )
    init_seed(config["seed"], config["reproducibility"])
    trained = build_model(config, parts[0]).to(config["device"])
    logger.info(trained)
    trainer = build_trainer(config, trained)
    show = config["show_progress"]
    trainer.fit(train_data, valid_data or None, saved=saved, show_progress=show)
    measured = {"load_best_model": saved, "show_progress": show}
    valid = trainer.evaluate(valid_data, **measured)  # None without validation users
    test = trainer.evaluate(test_data, **measured)
    result = _result(config, pair, trainer, valid, test)
    _write_outputs(config, pair, trainer, result)
    logger.info(_short_table(result))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: `--model=NAME --dataset=NAME` and any key as `--key=value`.

    Args:
        argv: The arguments; sys.argv's where None.

    Returns:
        The exit code: 0 done, 2 the user's mistake.
    """
    parser = argparse.ArgumentParser(
        prog="run_recbole_mm.py",
        description=(
            "Train a model, ours or RecBole's own, on a pair of domains and measure it on users who"
            " are new in the target domain."
        ),
        epilog=(
            "Every other key of properties/ and of RecBole is given as --key=value, for example"
            " --test_user_ratio=0.5 --epochs=10 --gpu_id=0. Example: python run_recbole_mm.py"
            " --model=MetaMMCDR --dataset=movie_cd --data_path=dataset --result_json=out.json"
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--model", "-m", help="a model of README's table, or one of RecBole's")
    parser.add_argument("--dataset", "-d", help="a pair: its YAML names source and target domain")
    parser.add_argument("--config_files", help="YAML files, separated by blanks; later ones win")
    parser.add_argument("--version", action="version", version=recbole_cdr_mm.__version__)
    named, others = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    files = named.config_files.split() if named.config_files else []
    try:
        run_recbole_mm(named.model, named.dataset, files, command_line=others)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_CODE
    return 0


def _check_outputs(config: Any) -> None:
    """Find out before the training, not after it, that an output cannot be written."""
    if config["save_predictions"] and config["eval_task"] != "rating":
        raise ConfigError(
            "`save_predictions` writes predicted ratings; with `eval_task: ranking` there are none."
            " Leave it out."
        )
    for key in ("result_json", "save_predictions"):
        if config[key] and not Path(config[key]).parent.is_dir():
            raise ConfigError(
                f"`{key}: {config[key]}`: there is no folder {Path(config[key]).parent}. Make it,"
                " or name another file."
            )


def _result(
    config: Any,
    pair: Any,
    trainer: Any,
    valid: Mapping[str, float] | None,
    test: Mapping[str, float],
) -> dict[str, Any]:
    from recbole_cdr_mm.trainer.resume import run_config

    names = {name.lower(): name for name in config["metrics"]}
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
        "valid": _named(valid, names) if valid else None,
        "test": _named(test, names),
        "stages": [report.as_result() for report in trainer.reports],
        "predictions": config["save_predictions"],
        "versions": {
            "recbole_cdr_mm": recbole_cdr_mm.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in VERSIONS_OF},
        },
        "config": run_config(config),
    }


def _named(metrics: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """Metrics under the names that the config gives them: `ndcg@10` as `NDCG@10`."""
    named = {}
    for key, value in metrics.items():
        name, at, k = key.partition("@")
        named[f"{names.get(name, name)}{at}{k}"] = float(value)
    return named


def _write_outputs(config: Any, pair: Any, trainer: Any, result: Mapping[str, Any]) -> None:
    if config["save_predictions"]:
        columns = trainer.predictions
        tokens = {"user": pair.pair.user_tokens, "item": pair.pair.item_tokens}
        for name, by_id in tokens.items():
            columns[name] = by_id[columns[name]].astype(str)
        with atomic_path(Path(config["save_predictions"])) as path, path.open("wb") as file:
            np.savez_compressed(file, **columns)
    if config["result_json"]:
        with atomic_path(Path(config["result_json"])) as path:
            path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _short_table(result: Mapping[str, Any]) -> str:
    lines = [f"{result['model']} on {result['dataset']} (split_seed {result['split_seed']})"]
    for part in ("valid", "test"):
        if result[part]:
            values = "  ".join(f"{name} {value:.4f}" for name, value in result[part].items())
            lines.append(f"  {part:5}  {values}")
    return "\n".join(lines)
