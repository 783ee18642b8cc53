"""What the encoders of texts and of images share: how transformers loads them, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_cdr_mm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

HUB_SECONDS = 10  # how long to wait before only what is on disk counts


@contextmanager
def loading(encoder: str, advice: str) -> Iterator[dict[str, Any]]:
    """Load parts of an encoder; what transformers complains of becomes one clear error.

    Args:
        encoder: A name or folder that transformers should know.
        advice: What to do where it does not.

    Yields:
        Options for each `from_pretrained`.

    Raises:
        ConfigError: If the encoder cannot be loaded.
    """
    from transformers.utils import logging

    if encoder.startswith((".", "/", "~")) and not Path(encoder).is_dir():
        raise ConfigError(f"encoder `{encoder}`: there is no such folder. Correct --encoder.")
    options = {"trust_remote_code": False, "local_files_only": not _can_download(encoder)}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # `load_model` looks for itself whether weights are missing
    try:
        yield options
    except (ImportError, OSError, ValueError) as error:
        reason = " ".join(str(error).strip().splitlines()[0].split()).rstrip(".:")
        raise ConfigError(
            f"encoder `{encoder}`: transformers cannot load it ({reason}). {advice}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def load_model(
    encoder: str,
    options: Mapping[str, Any],
    device: str,
    take: Callable[[PreTrainedModel], PreTrainedModel],
    *,
    pooler: bool = False,
) -> tuple[PreTrainedModel, str]:
    """Load a model as float32, ready to encode.

    Args:
        encoder: A name or folder that transformers knows.
        options: As `loading` gives them.
        device: Where the model shall be.
        take: Takes the part of a model that is to encode.
        pooler: Whether the pooler is used. If not, its weights may be absent, as they are in many
            published models; transformers then draws them at random.

    Returns:
        The part, and a hash of those of its weights that were loaded.

    Raises:
        ConfigError: If weights are missing.
    """
    import torch
    from transformers import AutoModel

    whole: Any
    whole, report = AutoModel.from_pretrained(
        encoder, dtype=torch.float32, output_loading_info=True, **options
    )
    part: Any = take(whole)
    prefix = next(f"{name}." if name else "" for name, it in whole.named_modules() if it is part)
    missing = {
        name.removeprefix(prefix) for name in report["missing_keys"] if name.startswith(prefix)
    }
    needed = sorted(name for name in missing if pooler or not name.startswith("pooler."))
    if needed:
        raise ConfigError(
            f"encoder `{encoder}`: has no weights for `{needed[0]}`. Take a complete encoder"
            f"{', or another --pooling' if needed[0].startswith('pooler.') else ''}."
        )
    weights = {name: it for name, it in part.state_dict().items() if name not in missing}
    return part.eval().to(device), hash_weights(weights)


def hash_weights(weights: Mapping[str, Any]) -> str:
    """Hash named arrays or tensors.

    Args:
        weights: Arrays by name; their order does not count.

    Returns:
        `sha256:` and the hash in hexadecimal, over names, types, shapes and contents.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(np.asarray(weights[name].__array__()))
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"


def finite_rows(encoder: str, rows: Tensor) -> np.ndarray:
    """Bring features (B, d) to NumPy.

    Args:
        encoder: What made them, for the error.
        rows: Features (B, d), on any device.

    Returns:
        Features, float32 (B, d).

    Raises:
        ConfigError: If they are not finite.
    """
    features = rows.float().cpu().numpy()
    if not np.isfinite(features).all():
        raise ConfigError(
            f"encoder `{encoder}`: gives features that are not finite. Take another encoder or "
            "another --device."
        )
    return features


def _can_download(encoder: str) -> bool:
    """Ask the hub once; transformers would ask for a minute before it gives up."""
    from huggingface_hub import HfApi

    if Path(encoder).is_dir():
        return False
    try:
        HfApi().model_info(encoder, timeout=HUB_SECONDS)
    except Exception:  # no network, no such name, no right to it: `from_pretrained` says which
        return False
    return True
