"""`MMConfig`: RecBole's Config with this package's properties, and with every key checked.

Precedence, lowest first: RecBole's properties, our overall.yaml, the eval_task, the model, the
pair, the preset; then what the user says, in RecBole's own order: config files, config dict,
command line.
"""

from __future__ import annotations

import codecs
import functools
import importlib.resources
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import recbole
import torch
import yaml
from recbole.config import Config
from recbole.evaluator import metric_types
from recbole.utils import EvaluatorType, ModelType, get_model

from recbole_cdr_mm.errors import ConfigError, did_you_mean
from recbole_cdr_mm.given import Given, fit, parse_command_line, parse_literal, read_config_file
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.recbole_models import check_config
from recbole_cdr_mm.schema import Key, PropertyLoader, read_properties

PROPERTIES = Path(str(importlib.resources.files("recbole_cdr_mm.properties")))
RECBOLE_PROPERTIES = Path(recbole.__file__).parent / "properties"

# The keys of every run.
GENERAL_FILES = (
    RECBOLE_PROPERTIES / "overall.yaml",
    RECBOLE_PROPERTIES / "dataset" / "sample.yaml",
    PROPERTIES / "overall.yaml",
)

# What RecBole's own models read and ours do not.
_NOT_FOR_OURS = {
    "train_neg_sample_args": "they draw one negative a row, evenly over the target items",
    "shuffle": "their rows are always shuffled",
    "worker": "their rows stay in memory",
    "numerical_features": "they read ratings and texts",
}
_INTERNAL_KEYS = {"model", "dataset"}  # named by themselves, and without a default


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
        model = model or self.external_config_dict["model"]
        model_class = model if isinstance(model, type) else find_model(str(model))
        _check_kind(model_class)
        return (
            model_class.__name__,
            model_class,
            str(dataset or self.external_config_dict["dataset"]),
        )

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        self.internal_config_dict: dict[str, Any] = {}
        self.keys: dict[str, Key] = {}
        for file in GENERAL_FILES:
            self._add_properties(file)
        self.data_root = Path(self._early("data_path"))
        self._pair = self._read_pair(dataset)
        self._add_properties(_task_file(self._early("eval_task")))
        ours = model in find_models()
        self._model_keys: set[str] = set()
        for file in model_files(model_class):
            self._model_keys |= self._add_properties(file)
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
        given = self.given.get(name) or self._pair.get(name)
        return fit(self.keys[name], given) if given else self.internal_config_dict[name]

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
                others = [other for other, keys in _keys_of_ours().items() if name in keys]
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
        self._check_task()
        super()._set_default_parameters()

    def _check_task(self) -> None:
        config = self.final_config_dict
        task = config["eval_task"]
        eval_args = self.given.get("eval_args") or self._pair.get("eval_args")
        if eval_args:
            raise ConfigError(
                f"{eval_args.origin}: `eval_args` is set by `eval_task: {task}`, and the split by"
                " test_user_ratio, valid_user_ratio and split_seed. Leave it out."
            )
        if task == "rating" and config["train_neg_sample_args"] is not None:
            raise ConfigError(
                "`train_neg_sample_args` samples rows without a rating; with `eval_task: rating`"
                " it must be null. Leave it out."
            )
        for name, why in _NOT_FOR_OURS.items():
            given = self.given.get(name)
            if self.is_ours and given and given.value != self.internal_config_dict[name]:
                raise ConfigError(
                    f"{given.origin}: `{name}` is for RecBole's own models, not for those of this"
                    f" package: {why}. Leave it out."
                )
        loss_type = config.get("loss_type")
        if loss_type in ("BPR", "CE") and task == "rating" and self.is_ours:
            raise ConfigError(
                f"`loss_type: {loss_type}` orders items and predicts no ratings. Leave it out, or"
                " give --eval_task=ranking."
            )
        if max(config["nproc"], config["world_size"], int(os.environ.get("WORLD_SIZE", 1))) > 1:
            self._check_processes()
        if config["learner"] == "sparse_adam":
            for name in ("weight_decay", "clip_grad_norm"):
                if config[name]:
                    raise ConfigError(
                        f"`{name}: {config[name]}` needs the gradients of all rows of a table, and"
                        " `learner: sparse_adam` has those of a batch. Give reg_weight instead, or"
                        " --learner=adam."
                    )
        if config.get("point_estimate") == "median" and task == "ranking":
            raise ConfigError(
                "`point_estimate: median` is of ratings, and orders no items. Leave it out, or give"
                " --eval_task=rating."
            )
        if config["few_shot"] is not None and config["unseen_item_ratio"]:
            raise ConfigError(
                f"`few_shot: {config['few_shot']}` reveals ratings of all items, while those of the"
                f" items that `unseen_item_ratio: {config['unseen_item_ratio']}` draws must stay"
                " hidden. Leave one of them out."
            )
        check_config(self.model_class, config)
        eval_tasks = getattr(self.model_class, "eval_tasks", ("rating", "ranking"))
        if task not in eval_tasks:
            raise ConfigError(
                f"{self.model} does {' and '.join(eval_tasks)} only."
                f" Give --eval_task={eval_tasks[0]}."
            )
        self._check_fields()
        low, high = _two_numbers(config["rating_range"])
        if not low < high:
            raise ConfigError(
                f"`rating_range: {config['rating_range']}` must be [lowest, highest]."
            )
        wanted = EvaluatorType.VALUE if task == "rating" else EvaluatorType.RANKING
        metrics = config["metrics"]
        metrics = [metrics] if isinstance(metrics, str) else metrics
        for metric in [*metrics, config["valid_metric"].split("@")[0]]:
            if task == "rating" and metric.lower() in ("auc", "logloss"):
                raise ConfigError(f"`{metric}` is for labels of 0 and 1, and these are ratings.")
            if metric.lower() not in metric_types:
                raise ConfigError(f"There is no metric `{metric}`.{did_you_mean(metric, _METRICS)}")
            if metric_types[metric.lower()] != wanted:
                raise ConfigError(
                    f"`{metric}` is no metric of `eval_task: {task}`. Choose others, or the other"
                    " task."
                )
        self._check_valid_metric(metrics)

    def _check_processes(self) -> None:
        config = self.final_config_dict
        n_here, n_all = config["nproc"], config["world_size"]
        if not self.is_ours:
            raise ConfigError(
                "On a pair RecBole's own models run in one process. Leave `nproc` and `world_size`"
                " out, and torchrun too."
            )
        if config["enable_scaler"]:
            raise ConfigError(
                "`enable_scaler: True` scales the losses of each process by itself. Leave it out,"
                " or run in one process."
            )
        if n_all > 0 and (n_all % n_here or config["group_offset"] % n_here):
            raise ConfigError(
                f"`world_size: {n_all}` and `group_offset: {config['group_offset']}` must be"
                f" multiples of `nproc: {n_here}`, which each machine starts."
            )

    def _check_fields(self) -> None:
        config = self.final_config_dict
        names = [f"{kind}_FIELD" for kind in ("USER_ID", "ITEM_ID", "RATING", "TIME", "LABEL")]
        if len({config[name] for name in names}) < len(names):
            raise ConfigError(f"{', '.join(names)} must be five different names.")
        try:
            codecs.lookup(config["encoding"])
        except LookupError as error:
            raise ConfigError(
                f"`encoding: {config['encoding']}` is none that Python has."
            ) from error

    def _check_valid_metric(self, metrics: Sequence[str]) -> None:
        config = self.final_config_dict
        name, at, k = config["valid_metric"].partition("@")
        topk = config["topk"] if isinstance(config["topk"], list) else [config["topk"]]
        cut = config["eval_task"] == "ranking" and name.lower() not in _WITHOUT_CUT_OFF
        if bool(at) != cut:
            raise ConfigError(
                f"`valid_metric: {config['valid_metric']}` must be `{name}"
                + (f"@K`, with one of topk {topk} as K." if cut else "`, without a cut-off.")
            )
        if name.lower() not in {m.lower() for m in metrics} or (cut and k not in map(str, topk)):
            raise ConfigError(
                f"`valid_metric: {config['valid_metric']}` is not among the metrics {metrics}"
                + (f" at topk {topk}." if cut else ".")
                + " Choose one of them, or add it."
            )

    def _init_device(self) -> None:
        config = self.final_config_dict
        wanted = config["gpu_id"] if config["use_gpu"] else ""
        gpus = [g for g in str(wanted).strip("()").replace(" ", "").split(",") if g]
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        n_here = int(os.environ.get("LOCAL_WORLD_SIZE", config["nproc"]))
        if "gpu_id" in self.given and gpus and len(gpus) != n_here:
            raise ConfigError(
                f"`gpu_id: {config['gpu_id']}` names {len(gpus)} GPU(s) for {n_here} process(es),"
                f" and each has one. Give --nproc={len(gpus)}, or as many GPUs as processes."
            )
        if gpus and found and "gpu_id" not in self.given:
            gpus = [str(number) for number in range(n_here)]
            if n_here > found:
                raise ConfigError(
                    f"`nproc: {n_here}`: each process has a GPU of its own, and torch sees {found}."
                    " Give fewer processes, or --use_gpu=False."
                )
        if "gpu_id" in self.given and any(not g.isdecimal() or int(g) >= found for g in gpus):
            raise ConfigError(
                f"{self.given['gpu_id'].origin}: `gpu_id: {config['gpu_id']}`, but torch"
                f" {torch.__version__} sees {found} CUDA device(s). Leave `gpu_id` out to run on"
                " what there is, or give --use_gpu=False."
            )
        config["gpu_id"] = ",".join(gpus)
        config["single_spec"], config["local_rank"] = True, 0
        config["device"] = torch.device("cpu")
        if gpus and found:
            own = gpus[int(os.environ.get("LOCAL_RANK", 0))]
            config["device"] = torch.device("cuda", int(own))
            torch.cuda.set_device(config["device"])

    @property
    def given_values(self) -> dict[str, Any]:
        """The values that the user gave, by key: with the property files they are the config."""
        return {key: given.value for key, given in self.given.items()}

    @property
    def is_ours(self) -> bool:
        """Whether the model is one of this package's, not RecBole's own."""
        return self.model in find_models()


def property_files(model_class: type[CrossDomainRecommender]) -> list[Path]:
    """The files that explain a model's keys: those that it shares with others, then its own."""
    shared = [PROPERTIES / "shared" / f"{name}.yaml" for name in model_class.shared_properties]
    return [*shared, PROPERTIES / "model" / f"{model_class.__name__}.yaml"]


@functools.cache
def _keys_of_ours() -> dict[str, set[str]]:
    """The keys of each of our models, its own and the shared ones."""
    return {
        name: {key for file in property_files(model) for key in read_properties(file)[0]}
        for name, model in find_models().items()
    }


def model_files(model_class: type) -> list[Path]:
    """The files that explain the keys of a model, ours or RecBole's."""
    if model_class.__name__ in find_models():
        return property_files(model_class)
    own = RECBOLE_PROPERTIES / "model" / f"{model_class.__name__}.yaml"
    # Some of RecBole's models have no hyperparameters and no file.
    return [*([own] if own.exists() else []), PROPERTIES / "recbole_model.yaml"]


def known_keys(model_class: type, eval_task: str) -> set[str]:
    """The keys that a run of a model can be given."""
    files = [*GENERAL_FILES, _task_file(eval_task), *model_files(model_class)]
    return {key for file in files for key in read_properties(file)[0]}


def _task_file(eval_task: str) -> Path:
    return PROPERTIES / "eval_task" / f"{eval_task}.yaml"


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


_DECISION_TREES = ("XGBOOST", "LightGBM")
_WITHOUT_CUT_OFF = ("gauc",)
_METRICS = [
    "Recall",
    "MRR",
    "NDCG",
    "Hit",
    "MAP",
    "Precision",
    "GAUC",
    "MAE",
    "RMSE",
]


def _two_numbers(value: object) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"`rating_range: {value}` must be [lowest, highest].")
    return float(value[0]), float(value[1])
