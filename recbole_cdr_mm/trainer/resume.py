"""Going on where a killed run stopped: which checkpoint, and whether it fits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from recbole_cdr_mm.checkpoint import load_checkpoint, plain_config
from recbole_cdr_mm.errors import ConfigError

# Keys that say what a run leaves behind and from where it goes on, and those that say where it
# happens; neither changes what it computes.
OUTPUT_KEYS = frozenset(
    "config_files resume result_json save_predictions log_wandb wandb_project".split()
)
RUN_KEYS = OUTPUT_KEYS | frozenset(
    "gpu_id use_gpu device worker state data_path feature_path loading_cache checkpoint_dir"
    " pretrained_path show_progress single_spec local_rank nproc"
    " world_size ip port group_offset".split()
)

FINGERPRINTS = {
    "data_fingerprint": "other ratings, or another split of them,",
    "feature_fingerprint": "other side features",
    "lower_fingerprint": "other ratings below positive_threshold",
}


def run_config(config: Any) -> dict[str, Any]:
    """The values that decide what a run computes, all plain; the data by their fingerprint."""
    return _relevant(plain_config(config.final_config_dict))


def checkpoint_path(config: Any) -> Path:
    """Where a run keeps its checkpoint: one file for each model, data set and configuration."""
    values = run_config(config)
    for key in FINGERPRINTS:  # so that a run on changed files finds, and refuses, it
        values.pop(key, None)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return Path(config["checkpoint_dir"]) / (
        f"{config['model']}-{config['dataset']}-{digest[:10]}.pth"
    )


def open_resumed(config: Any, own: Path, logger: Any) -> dict[str, Any] | None:
    """Read the checkpoint that `resume` asks for.

    Args:
        config: Gives `resume`: False, True for the run's own checkpoint, or a path.
        own: The run's own checkpoint.
        logger: Told what happens.

    Returns:
        The checkpoint; None where there is none to go on from.

    Raises:
        ConfigError: If it is damaged or another run's, or the named file is not there.
    """
    asked = config["resume"]
    if asked is False:
        return None
    if asked is True and not own.exists():
        logger.info(f"Nothing to resume: there is no {own}. Training from the beginning.")
        return None
    path = own if asked is True else Path(asked)
    checkpoint = load_checkpoint(path, map_location=config["device"])
    check_same_run(path, checkpoint.get("config", {}), config)
    logger.info(f"Resuming from {path}")
    return checkpoint


def restore_model(model: Any, checkpoint: dict[str, Any]) -> None:
    """Give a model what a checkpoint holds of it.

    Args:
        model: The model, as it is built.
        checkpoint: A checkpoint of the same run.
    """
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter(checkpoint["other_parameter"])
    for name, value in checkpoint.get("model_state", {}).items():
        setattr(model, name, value)


def check_same_run(path: Path, stored: dict[str, Any], config: Any) -> None:
    """Refuse a checkpoint of another run.

    Args:
        path: The checkpoint, for the message.
        stored: The configuration that it holds.
        config: The one that is wanted.

    Raises:
        ConfigError: If model, data or any value that decides the numbers differ.
    """
    stored, wanted = _relevant(stored), run_config(config)
    for name in ("model", "dataset"):
        if stored.get(name) != wanted[name]:
            raise ConfigError(
                f"{path}: is a checkpoint of {name} {stored.get(name)}, not of {wanted[name]}."
                " Name the right file, or leave `resume` out."
            )
    for key, what in FINGERPRINTS.items():
        if stored.get(key) != wanted.get(key):
            raise ConfigError(
                f"{path}: was trained on {what} than {wanted['dataset']} has now. Bring the same"
                " files and split_seed back, or leave `resume` out."
            )
    differing = [
        f"{key} ({stored.get(key)} there, {wanted.get(key)} here)"
        for key in sorted({*stored, *wanted})
        if stored.get(key) != wanted.get(key)
    ]
    if differing:
        raise ConfigError(
            f"{path}: was trained with other values of {', '.join(differing)}. Give the same, or"
            " leave `resume` out."
        )


def _relevant(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sorted(values.items()) if key not in RUN_KEYS}
