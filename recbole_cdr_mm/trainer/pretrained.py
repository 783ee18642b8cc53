"""Pre-trained base models, kept for all bridges that would train the very same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from recbole_cdr_mm.checkpoint import load_checkpoint, save_checkpoint
from recbole_cdr_mm.code_version import code_version
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.property_files import GENERAL_FILES, property_files
from recbole_cdr_mm.schema import read_properties
from recbole_cdr_mm.stage import Pretraining, Stage
from recbole_cdr_mm.trainer.report import StageReport
from recbole_cdr_mm.trainer.resume import FINGERPRINTS, run_config

# What says which rows and features there are: the rows and the initial model themselves count.
_DATA_KEYS = FINGERPRINTS.keys() | set(
    "model test_user_ratio valid_user_ratio split_seed few_shot few_shot_pool unseen_item_ratio"
    " overlap_ratio".split()
)
_BASE_MODEL = "base_model.yaml"


class PretrainedStages:
    """A folder of trained stages, found by all that decides what such a stage becomes.

    That is the initial model with its features, the rows, the code, and every value of the
    configuration but those of keys that belong to the bridge alone. A key that nobody thought of
    makes two stages differ: one is trained too often then, never shared wrongly.

    Args:
        config: The run's configuration; `pretrained_path` names the folder.
    """

    def __init__(self, config: Any) -> None:
        self._folder = Path(config["pretrained_path"])
        files = property_files(config.model_class)
        base = [*GENERAL_FILES, *(file for file in files if file.name == _BASE_MODEL)]
        self._bridge_keys = _keys_of(files) - _keys_of(base)
        self._values = {k: v for k, v in run_config(config).items() if k not in _DATA_KEYS}
        self._device = config["device"]

    def file(self, stage: Stage) -> Path:
        """Where the stage is kept, or will be. To be asked before it is trained."""
        assert stage.pretraining is not None
        return self._folder / f"{stage.name}-{self._key(stage.name, stage.pretraining)}.pth"

    @contextmanager
    def reserved(self, path: Path) -> Iterator[None]:
        """Give a stage's file to this process alone; others wait until it has been written.

        Raises:
            ConfigError: If the folder cannot be made or written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock")).acquire()
        except OSError as error:
            raise ConfigError(
                f"`pretrained_path: {self._folder}`: cannot be written to ({error.strerror})."
                " Name another folder, or allow writing to this one."
            ) from error
        with lock:
            yield

    def load(self, path: Path, stage: Stage) -> StageReport | None:
        """Give a stage's model the parameters that another run has trained.

        Returns:
            That run's report; None where there is nothing yet.

        Raises:
            ConfigError: If the file is damaged.
        """
        assert stage.pretraining is not None
        if not path.exists():
            return None
        try:
            stored = load_checkpoint(path, map_location=self._device)
        except ConfigError as error:
            raise ConfigError(f"{path}: is damaged. Remove it, and run again.") from error
        with torch.no_grad():
            for name, parameter in stage.pretraining.model.named_parameters():
                parameter.copy_(stored["parameters"][name])
        return StageReport(**stored["report"], reused=True)

    def save(self, path: Path, stage: Stage, report: StageReport) -> None:
        """Keep what a stage has trained."""
        assert stage.pretraining is not None
        parameters = dict(stage.pretraining.model.named_parameters())
        content = {name: parameter.detach() for name, parameter in parameters.items()}
        values = {k: v for k, v in asdict(report).items() if k != "reused"}
        save_checkpoint(path, {"parameters": content, "report": values})

    def _key(self, name: str, pretraining: Pretraining) -> str:
        own = {f"{name}_epochs", f"{name}_batch_size"}  # all that `pretraining` reads of them
        kept = {k: v for k, v in self._values.items() if k not in self._bridge_keys or k in own}
        kept |= {**pretraining.values, "device": self._device.type}
        kept |= {"model": type(pretraining.model).__name__, "code": code_version()}
        digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
        model = pretraining.model
        # Buffers too that are in no checkpoint: text features are among them.
        initial = (*model.parameters(), *model.buffers(), *pretraining.rows)
        for tensor in initial:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def _keys_of(files: Iterable[Path]) -> set[str]:
    return {key for file in files for key in read_properties(file)[0]}
