"""`MMConfig`: RecBole's Config with this package's properties, and with every key checked.

Precedence, lowest first: RecBole's properties, our overall.yaml, the eval_task, the model, the
pair, the preset; then what the user says, in RecBole's own order: config files, config dict,
command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config
from recbole.utils import ModelType, get_model

from recbole_cdr_mm import ranks
from recbole_cdr_mm.config_checks import check_values
from recbole_cdr_mm.devices import choose_device
from recbole_cdr_mm.errors import ConfigError, did_you_mean
from recbole_cdr_mm.given import Given, fit, parse_command_line, parse_literal, read_config_file
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.property_files import (
    GENERAL_FILES,
    RECBOLE_PROPERTIES,
    keys_of_ours,
    model_files,
    task_file,
    with_bounds,
)
from recbole_cdr_mm.schema import Key, PropertyLoader, read_properties

_INTERNAL_KEYS = {"model", "dataset"}  # named by themselves, and without a default
_DECISION_TREES = ("XGBOOST", "LightGBM")


class MMConfig(Config):
    """The configuration of one run on a pair of domains.

    Args:
        model: Name of one of our models or of RecBole's, or a model class.
        dataset: Name of the pair.
        config_file_list: YAML files; a later one wins.
        config_dict: Wins over the files.
        command_line: Arguments of the form `--key=value`; win over the dict. Unlike RecBole's
            Config, nothing is read from sys.argv unless it is handed over here.

    Attributes:
        data_root: The folder that holds the domains' folders (RecBole's `data_path` becomes
            the data set's own folder).
        given: What the user gave, by key, after precedence.

    Raises:
        ConfigError: For an unknown key, model or pair, a value of a wrong type or out of bounds,
            an unreadable config file, or a device that is not there.

    Deviations from RecBole's Config: strings are parsed as literals and never evaluated;
    `use_gpu: False` selects the CPU; `gpu_id` counts the GPUs that the process sees, and the
    environment stays as it is.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        command_line: Sequence[str] = (),
    ) -> None:
        self._command_line = list(command_line)
        self.given: dict[str, Given] = {}
        self._pair: dict[str, Given] = {}
        try:
            super().__init__(model, dataset, config_file_list, config_dict)
        except (ValueError, NotImplementedError, RuntimeError) as error:  # RecBole's own refusals
            raise ConfigError(f"{error}") from error

    # What the user gives. RecBole calls these three in this order, lowest precedence first.

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return PropertyLoader

    def _load_config_files(self, file_list: Iterable[str | Path] | None) -> dict[str, Any]:
        for file in file_list or ():
            self.given.update(read_config_file(Path(file)))
        return {key: given.value for key, given in self.given.items()}

    def _load_variable_config_dict(self, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
        given = {
            key: Given(
                parse_literal(value), "config_dict", value if isinstance(value, str) else None
            )
            for key, value in (config_dict or {}).items()
        }
        self.given.update(given)
        return {key: g.value for key, g in given.items()}

    def _load_cmd_line(self) -> dict[str, Any]:
        given = parse_command_line(self._command_line)
        self.given.update(given)
        return {key: g.value for key, g in given.items()}

    # What stands below it.

    def _get_model_and_dataset(
        self, model: str | type | None, dataset: str | None
    ) -> tuple[str, type, str]:
        for name, value in (("model", model), ("dataset", dataset)):
            if value is None and name not in self.external_config_dict:
                raise ConfigError(f"No {name} is named. Give --{name}=NAME.")
        model = self.external_config_dict["model"] if model is None else model
        model_class = model if isinstance(model, type) else find_model(str(model))
        _check_kind(model_class)
        dataset = str(self.external_config_dict["dataset"] if dataset is None else dataset)
        if Path(dataset).name != dataset:
            raise ConfigError(
                f"`dataset: {dataset}` is a path. Give the pair's name, and the folder that holds"
                " it with --data_path=DIR."
            )
        return model_class.__name__, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        self.internal_config_dict: dict[str, Any] = {}
        self.keys: dict[str, Key] = {}
        for file in GENERAL_FILES:
            self._add_properties(file)
        self.data_root = Path(self._early("data_path"))
        self._pair = self._read_pair(dataset)
        self._add_properties(task_file(self._early("eval_task")))
        ours = model in find_models()
        self._model_keys: set[str] = set()
        for file in model_files(model_class):
            self._model_keys |= self._add_properties(file)
        if not ours:
            self.keys.update({name: with_bounds(self.keys[name]) for name in self._model_keys})
        self.internal_config_dict.update(self._checked(self._pair, model))
        self._add_preset(self._early("preset"), model, dataset, known=ours)
        self.internal_config_dict["MODEL_TYPE"] = getattr(model_class, "type", None)
        self.external_config_dict.update(self._checked(self.given, model))
        self._check_pair(dataset)

    def _add_properties(self, path: Path) -> set[str]:
        """Layer a property file over those before it; give the names of its keys."""
        values, keys = read_properties(path)
        self.internal_config_dict.update(values)
        self.keys.update(keys)
        return set(keys)

    def _early(self, name: str) -> Any:
        """A value that decides which properties are read, checked before it is used."""
        said = self.said(name)
        return fit(self.keys[name], said) if said else self.internal_config_dict[name]

    def said(self, name: str) -> Given | None:
        """What the user says of a key or, where they say nothing, the pair's file."""
        return self.given.get(name) or self._pair.get(name)

    def _read_pair(self, dataset: str) -> dict[str, Given]:
        """The pair's YAML, under data_path or packaged; none where the user gives the pair."""
        for path in (self._own_pair(dataset), PROPERTIES / "dataset" / f"{dataset}.yaml"):
            if path.exists():
                return read_config_file(path)
        return {}

    def _own_pair(self, dataset: str) -> Path:
        return self.data_root / dataset / f"{dataset}.yaml"

    def _check_pair(self, dataset: str) -> None:
        if "data_path" in self._pair:
            raise ConfigError(
                f"{self._pair['data_path'].origin}: `data_path` says where this file is looked for,"
                " so it cannot say it itself. Give --data_path=DIR."
            )
        for name in ("source_dataset", "target_dataset"):
            if not self._early(name):
                known = sorted(p.stem for p in (PROPERTIES / "dataset").glob("*.yaml"))
                raise ConfigError(
                    f"`{dataset}` is no pair: `{name}` is not set. A pair is a YAML with"
                    f" source_dataset and target_dataset; looked for {self._own_pair(dataset)}, and"
                    f" among the packaged pairs {', '.join(known)}.{did_you_mean(dataset, known)}"
                    " Or give one with --config_files=FILE."
                )
        if self._early("source_dataset") == self._early("target_dataset"):
            raise ConfigError(
                f"`{dataset}`: source and target domain are both `{self._early('source_dataset')}`,"
                " so that no user is new in the target. Name two domains."
            )

    def _add_preset(self, preset: str, model: str, dataset: str, *, known: bool) -> None:
        values, _ = read_properties(PROPERTIES / "preset" / f"{preset}.yaml")
        if values and not known:
            raise ConfigError(
                f"`preset: {preset}` is for this package's models; {model} is RecBole's own and"
                " knows none. Leave `preset` out."
            )
        per_dataset: dict[str, dict[str, Any]] = values.pop("per_dataset", {})  # type: ignore[assignment]
        values.update(per_dataset.get(dataset, {}))
        if not known:
            return
        if "train_batch_size" in self.given:  # what the user says of all stages wins
            values = {k: v for k, v in values.items() if not k.endswith("_batch_size")}
            values["largest_batch_size"] = None
        self.internal_config_dict.update({k: v for k, v in values.items() if k in self._model_keys})

    def _checked(self, given: Mapping[str, Given], model: str) -> dict[str, Any]:
        """The values given, after checking that their keys are known and their types right."""
        without_effect, _ = read_properties(PROPERTIES / "without_effect.yaml")
        known = {*self.keys, *_INTERNAL_KEYS}
        for name, g in given.items():
            if name in without_effect and g.value != self.internal_config_dict.get(name):
                raise ConfigError(
                    f"{g.origin}: `{name}` has no effect on a pair: {without_effect[name]}."
                    " Leave it out."
                )
            if name not in known | set(without_effect):
                others = [other for other, keys in keys_of_ours().items() if name in keys]
                if others:
                    hint = f" It is a key of {', '.join(others)}, not of {model}. Leave it out."
                else:
                    hint = did_you_mean(name, known) or f" {model} has no such key. Leave it out."
                raise ConfigError(f"{g.origin}: unknown key `{name}`.{hint}")
        return {
            name: fit(self.keys[name], g) if name in self.keys else g.value
            for name, g in given.items()
        }

    # What follows from the values.

    def _set_default_parameters(self) -> None:
        check_values(self)
        super()._set_default_parameters()

    def _init_device(self) -> None:
        config = self.final_config_dict
        given = self.given.get("gpu_id")
        config["gpu_id"], config["device"] = choose_device(
            config["gpu_id"] if config["use_gpu"] else "",
            ranks.launched_here() or config["nproc"],
            said=given.origin if given else None,
        )
        config["single_spec"], config["local_rank"] = True, 0

    @property
    def given_values(self) -> dict[str, Any]:
        """The values that the user gave, by key: with the property files they are the config."""
        return {key: self.external_config_dict[key] for key in self.given}

    @property
    def is_ours(self) -> bool:
        """Whether the model is one of this package's, not RecBole's own."""
        return self.model in find_models()


def find_model(name: str) -> type:
    """A model class by name, ours or RecBole's.

    Raises:
        ConfigError: If there is none, with the nearest name, or a pair cannot run with it.
    """
    ours = find_models()
    if name in ours:
        return ours[name]
    recboles = [p.stem for p in (RECBOLE_PROPERTIES / "model").glob("*.yaml")]
    if name in _DECISION_TREES:  # RecBole imports them all or none, and their libraries with them
        raise _unfit(name, "decision-tree")
    try:
        model_class: type = get_model(name)
    except (ValueError, AttributeError, ImportError) as error:
        near = {n.lower(): n for n in [*recboles, *ours]}.get(name.lower())
        hint = f" Did you mean `{near}`?" if near else did_you_mean(name, [*ours, *recboles])
        raise ConfigError(
            f"There is no model `{name}`, neither here nor in RecBole.{hint}"
            f" The models here are {', '.join(sorted(ours))}."
        ) from error
    return model_class


def _check_kind(model_class: type) -> None:
    kinds = {
        ModelType.SEQUENTIAL: "sequential",
        ModelType.KNOWLEDGE: "knowledge-based",
        ModelType.DECISIONTREE: "decision-tree",
    }
    kind = kinds.get(getattr(model_class, "type", None))
    if kind:
        raise _unfit(model_class.__name__, kind)


def _unfit(name: str, kind: str) -> ConfigError:
    return ConfigError(
        f"{name} is one of RecBole's {kind} models; a pair runs with its general and context-aware"
        " ones. Choose one of those (README, 'RecBole's own models')."
    )
