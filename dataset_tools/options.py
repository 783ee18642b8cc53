"""Checks of options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_cdr_mm.errors import ConfigError, did_you_mean

DEVICES = ("cpu", "cuda")


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of those there are.

    Args:
        option: The name of the option.
        value: What it was set to.
        choices: What it may be set to.

    Raises:
        ConfigError: If it is none of them.

    >>> check_choice("dtype", "float32", ["float16", "float32"])
    """
    if value not in choices:
        raise ConfigError(
            f"{option} `{value}` is not one of {', '.join(choices)}.{did_you_mean(value, choices)}"
        )


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch without rows.

    Raises:
        ConfigError: If `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, not {batch_size}.")


def choose_device(device: str | None) -> str:
    """Check a device, or choose `cuda` where there is one.

    Args:
        device: `cpu` or `cuda`; none to choose.

    Returns:
        The device.

    Raises:
        ConfigError: If it is unknown or not there.
    """
    import torch

    if device is not None:
        check_choice("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device that torch can use. Take --device=cpu.")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
