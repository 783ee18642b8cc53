"""The entry points: a function for Python, and the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import recbole_cdr_mm
from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import ConfigError, exit_code_of

if TYPE_CHECKING:  # it imports RecBole, which has to be patched before
    from recbole_cdr_mm.config import MMConfig


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
        saved: Whether to keep checkpoints. Without them RecBole's own models are measured after
            their last epoch, since RecBole keeps the best one in its checkpoint alone.

    Returns:
        The result, as `--result_json` writes it (README, 'The result').

    Raises:
        UserError: For whatever the user can put right; see `errors`.
    """
    arguments = model, dataset, config_file_list, config_dict, command_line
    config = _configure(*arguments)
    from recbole_cdr_mm import launch, ranks
    from recbole_cdr_mm.run import run

    if launch.is_wanted(config):
        result: dict[str, Any] = launch.launch(config, run_recbole_mm, *arguments, saved)
        return result
    with ranks.joined(config["device"]):
        return run(config, saved=saved)


def validate_recbole_mm(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    command_line: Sequence[str] = (),
    saved: bool = True,
    on_validation: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train a model on a pair and measure it on the validation users, for a search.

    The test users are not measured.

    Args:
        model: As for `run_recbole_mm`, and so are those up to `saved`.
        dataset: Name of a pair.
        config_file_list: YAML files.
        config_dict: Wins over the files.
        command_line: `--key=value` arguments; win over the dict.
        saved: Whether to keep checkpoints.
        on_validation: Called after each validation, with its number (from 0, over all stages) and
            the validation metric. What it raises ends the training.

    Returns:
        `valid_metric` (its name), `bigger_is_better`, `valid_score`, `valid` (all metrics) and
        `stages`.

    Raises:
        UserError: For whatever the user can put right; see `errors`.
    """
    config = _configure(model, dataset, config_file_list, config_dict, command_line)
    from recbole_cdr_mm import launch
    from recbole_cdr_mm.run import validate

    if launch.is_wanted(config):
        raise ConfigError("A run of a search has one process. Leave `nproc` and `world_size` out.")

    return validate(config, saved=saved, on_validation=on_validation)


def load_data_and_model(
    model_file: str | Path, config_dict: Mapping[str, Any] | None = None
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Load a trained model and its data, as RecBole's function of this name does.

    Args:
        model_file: A checkpoint that a run has left in `checkpoint_dir`.
        config_dict: Where things are now, if they have moved: data_path, feature_path, gpu_id.

    Returns:
        config: The run's `MMConfig`.
        model: The trained model, in evaluation mode.
        dataset: The pair, a `PairDataset`.
        train_data, valid_data, test_data: RecBole's loaders of its parts.

    Raises:
        UserError: If the file is no checkpoint or damaged, or the data are not those that the model
            was trained on.
    """
    compat.apply()
    # RecBole's modules can be imported only now.
    from recbole_cdr_mm.checkpoint import load_checkpoint
    from recbole_cdr_mm.config import MMConfig
    from recbole_cdr_mm.register import register
    from recbole_cdr_mm.run import restore
    from recbole_cdr_mm.trainer.resume import OUTPUT_KEYS

    register()
    checkpoint = load_checkpoint(model_file, map_location="cpu")
    if "given" not in checkpoint:
        raise ConfigError(
            f"{model_file}: was written by an older version, whose models have other tables."
            " Train it again."
        )
    stored = checkpoint["config"]
    given = {k: v for k, v in checkpoint["given"].items() if k not in OUTPUT_KEYS}
    config = MMConfig(
        stored["model"], stored["dataset"], config_dict={**given, **(config_dict or {})}
    )
    parts = restore(Path(model_file), config)
    return config, parts.model, parts.pair, parts.train_data, parts.valid_data, parts.test_data


def _configure(
    model: str | None,
    dataset: str | None,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    command_line: Sequence[str] = (),
) -> MMConfig:
    """Make RecBole ready, and the configuration of a run. Its modules can be imported after it."""
    compat.apply()
    from recbole_cdr_mm.config import MMConfig
    from recbole_cdr_mm.register import register

    register()
    return MMConfig(model, dataset, config_file_list, config_dict, command_line)


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

    def run() -> None:
        run_recbole_mm(named.model, named.dataset, files, command_line=others)

    return exit_code_of(run)
