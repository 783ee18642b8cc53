"""What makes two runs the same: their configuration, their data and the code that runs them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_tools.manifest import describe_file
from recbole_cdr_mm.code_version import code_version
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.errors import DataFormatError
from recbole_cdr_mm.trainer.resume import run_config


@dataclass(frozen=True)
class Resolved:
    """A configuration with all defaults, and the state of data and code.

    Attributes:
        values: All keys that decide what a run computes.
        state: Hash of the data's files and of the code.
    """

    values: Mapping[str, Any]
    state: str

    def key(self, draw: Mapping[str, Any]) -> str:
        """The name of the run that has these values beside.

        Args:
            draw: Values of the keys that tell the runs of one configuration apart.
        """
        values = {**self.values, **draw}
        text = json.dumps([values, self.state], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"{values['model']}-{values['dataset']}-{values['eval_task']}-{digest[:12]}"


class Identity:
    """Tells runs apart; each file is read once."""

    def __init__(self) -> None:
        self._describe = functools.cache(describe_file)

    def of(self, config: MMConfig) -> Resolved:
        """Resolve a configuration.

        Raises:
            DataFormatError: If a domain's ratings are missing.
        """
        files = [self._describe(file) for file in _data_files(config)]
        state = json.dumps([files, code_version()], sort_keys=True)
        return Resolved(run_config(config), hashlib.sha256(state.encode()).hexdigest()[:12])


def _data_files(config: MMConfig) -> list[Path]:
    """The files that a run reads: ratings, texts, and what describes the feature stores."""
    files = [Path(config["user_link"])] if config["user_link"] else []
    for name in (config["source_dataset"], config["target_dataset"]):
        folder = config.data_root / name
        store = Path(config["feature_path"]) / name if config["feature_path"] else folder
        if not (folder / f"{name}.inter").is_file():
            raise DataFormatError(
                f"there is no {folder / name}.inter. Give the folder that holds {name}/ with"
                f" --data_path=DIR; `run_recbole_mm.py --dataset={config['dataset']}` says how to"
                " make it."
            )
        files += [folder / f"{name}.inter", folder / f"{name}.item"]
        files += [store / f"{name}.{kind}.json" for kind in ("text", "image")]
    return [file for file in files if file.is_file()]
