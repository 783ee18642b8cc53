"""A plan: which runs a benchmark is made of, from one YAML file."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_cdr_mm.benchmark.results import Run
from recbole_cdr_mm.config import MMConfig, find_model
from recbole_cdr_mm.errors import ConfigError, UserError, did_you_mean
from recbole_cdr_mm.given import Given, fit, read_config_file
from recbole_cdr_mm.identity import Identity
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.model.base_models import BASE_MODELS
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.property_files import known_keys
from recbole_cdr_mm.recbole_models import known_model
from recbole_cdr_mm.schema import Key, read_properties

ALL = "all"
# RecBole's models that are floors of a task: strong, and without a bridge.
RECBOLE_FLOORS = {"rating": (), "ranking": ("ItemKNN", "EASE")}
# The floors that are compared with, whatever models a plan names.
FLOORS = {
    "rating": ("ItemMean", "BiasTransfer", "CalibratedTransfer"),
    "ranking": ("Popularity", "RidgeBridge", *RECBOLE_FLOORS["ranking"]),
}
# Keys on which a plan varies all models, with the plan's own keys of the same meaning.
_AXES = {
    "dataset": "datasets",
    "eval_task": "eval_tasks",
    "test_user_ratio": "test_user_ratios",
    "seed": "seeds",
    "base_model": "base_models",
    "preset": "presets",
}
_CHOICES = {
    "eval_task": tuple(FLOORS),
    "base_model": tuple(BASE_MODELS),
    "preset": ("default", "paper"),
}
# Keys of a run that others set: the plan's own keys, or the benchmark itself.
_SET_BY = {key: f"`{plural}`" for key, plural in _AXES.items()}
_SET_BY |= {"model": "`models`", "split_seed": "`seeds`"}
_SET_BY |= dict.fromkeys(
    ("result_json", "save_predictions", "checkpoint_dir", "pretrained_path", "resume", "worker"),
    "the benchmark itself",
)


@dataclass(frozen=True)
class Plan:
    """The runs of a benchmark, in the order of its tables.

    Attributes:
        title: Heading of the report.
        runs: The runs; two that are the same have the same key.
    """

    title: str
    runs: list[Run]


@dataclass(frozen=True)
class _Block:
    """Runs of one model: every combination of the values of its axes."""

    model: str
    axes: Mapping[str, Sequence[Any]]
    variant: str | None
    values: Mapping[str, Any]


def read_plan(path: Path, config: Mapping[str, Any]) -> Plan:
    """Read a plan, and work out the runs that it asks for.

    Args:
        path: A YAML file with keys of properties/benchmark.yaml.
        config: Keys of all runs that win over those of the plan. As there, a key that a model lacks
            is left out of its runs.

    Raises:
        ConfigError: For an unknown key or value, of the plan or of any run in it.
    """
    values = _read_values(path)
    values["config"] = {**values["config"], **config}
    _refuse_set_keys(path, values)
    _refuse_unknown_keys(path, values)
    identity = Identity()
    runs: list[Run] = []
    for block in _blocks(path, values):
        runs += _runs_of(path, block, values, identity)
    if not runs:
        raise ConfigError(f"{path}: no model can do any of `eval_tasks`. Add models or tasks.")
    return Plan(values["title"], runs)


def _read_values(path: Path) -> dict[str, Any]:
    """The plan's keys over the defaults, checked."""
    defaults, keys = read_properties(PROPERTIES / "benchmark.yaml")
    given = read_config_file(path, "--plan")
    for name, value in given.items():
        if name not in keys:
            hint = did_you_mean(name, keys) or " Keys of runs belong under `config`."
            raise ConfigError(f"{value.origin}: unknown key `{name}` of a plan.{hint}")
    values: dict[str, Any] = {**defaults, **{n: fit(keys[n], g) for n, g in given.items()}}
    for axis, name in {"model": "models", **_AXES}.items():
        _check_axis(str(path), name, keys[name], values[name], _CHOICES.get(axis))
    for name in ("config", "rating", "ranking"):
        _check_mapping(f"{path}: `{name}`", values[name])
    for model, of_model in values["model_config"].items():
        _check_mapping(f"{path}: `model_config: {model}`", of_model)
    for number, variant in enumerate(values["variants"], start=1):
        _check_variant(f"{path}, variant {number}", variant, keys)
    if values["tuned"] and not Path(values["tuned"]).is_dir():
        raise ConfigError(
            f"{path}: `tuned: {values['tuned']}` is no folder. Name the one that"
            " `python -m recbole_cdr_mm.tune --out=DIR` has written, or leave it out."
        )
    return values


def _check_axis(
    where: str, name: str, key: Key, values: Any, allowed: tuple[str, ...] | None
) -> None:
    """Check the values on one axis: their type, and that there are some, once each."""
    fit(key, Given(values, where))
    if not values or len(set(map(str, values))) < len(values):
        raise ConfigError(f"{where}: `{name}: {values}` must name one or more, once each.")
    for value in values:
        if allowed and value not in allowed:
            raise ConfigError(f"{where}: `{name}: {values}`: there are {' and '.join(allowed)}.")


def _check_mapping(where: str, keys: Any) -> None:
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f"{where} must hold `key: value` lines, and holds {keys}.")


def _check_variant(where: str, variant: Any, keys: Mapping[str, Key]) -> None:
    _check_mapping(where, variant)
    name, models = variant.get("name"), _listed(variant.get("model", []))
    if not name or not isinstance(name, str) or not models:
        raise ConfigError(f"{where}: give it a `name`, and a `model` or a list of models.")
    for model in models:
        if not isinstance(model, str):
            raise ConfigError(f"{where}: `model: {model}` must be the name of a model.")
        _does(model, "ranking")  # so that an unknown model is told at once
    for key, value in variant.items():
        if key in _AXES:
            _check_axis(where, key, keys[_AXES[key]], _listed(value), _CHOICES.get(key))
        elif key in _SET_BY and key != "model":
            raise ConfigError(f"{where}: `{key}` is set by {_SET_BY[key]}. Leave it out.")
        elif value == []:
            raise ConfigError(f"{where}: `{key}: []` has no value. Give some, or leave it out.")
    for axis, has in (("base_model", _has_base_model), ("preset", _has_presets)):
        without = [model for model in models if axis in variant and not has(model)]
        if without:
            raise ConfigError(f"{where}: {without[0]} has no `{axis}`. Leave one of them out.")


def _refuse_set_keys(path: Path, values: Mapping[str, Any]) -> None:
    blocks = {name: values[name] for name in ("config", "rating", "ranking")}
    blocks |= {f"model_config: {model}": keys for model, keys in values["model_config"].items()}
    for name, keys in blocks.items():
        for key in keys:
            if key in _SET_BY:
                raise ConfigError(
                    f"{path}: `{key}` of `{name}` is set by {_SET_BY[key]}. Leave it out."
                )


def _refuse_unknown_keys(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse keys of all runs that none of them has, and those of models that are not run."""
    run = {model for task in values["eval_tasks"] for model in _models(path, values, task)}
    run |= {model for variant in values["variants"] for model in _listed(variant["model"])}
    for model in values["model_config"]:
        if model not in run:
            raise ConfigError(
                f"{path}: `model_config: {model}`: the plan does not run it."
                f"{did_you_mean(str(model), run) or ' Leave it out.'}"
            )
    blocks = {"config": values["eval_tasks"], "rating": ["rating"], "ranking": ["ranking"]}
    for name, tasks in blocks.items():
        models = {model for task in tasks for model in _models(path, values, task)}
        known = {key for model in models for t in tasks for key in _known_keys(model, t)}
        for key in values[name]:
            if key not in known:
                raise ConfigError(
                    f"{path}: unknown key `{key}` of `{name}`."
                    + (did_you_mean(key, known) or " No model of the plan has it. Leave it out.")
                )


@functools.cache
def _known_keys(model: str, task: str) -> set[str]:
    return known_keys(find_model(model), task)


# Blocks of runs


def _blocks(path: Path, values: Mapping[str, Any]) -> Iterator[_Block]:
    axes = {key: values[plural] for key, plural in _AXES.items()}
    for task in values["eval_tasks"]:
        for model in _models(path, values, task):
            yield _Block(model, _fitting(model, {**axes, "eval_task": [task]}), None, {})
    for variant in values["variants"]:
        yield from _variant_blocks(variant, axes)


def _models(path: Path, values: Mapping[str, Any], task: str) -> list[str]:
    """The models that do a task, floors first, each once."""
    ours = list(find_models())
    named = [m for model in values["models"] for m in (ours if model == ALL else [model])]
    for model in named:
        if not any(_does(model, t) for t in values["eval_tasks"]):
            tasks = " and ".join(values["eval_tasks"])
            if model not in ours or ALL not in values["models"]:
                raise ConfigError(f"{path}: {model} does no {tasks}. Leave it out of `models`.")
    wanted = dict.fromkeys([*FLOORS[task], *named])
    kinds = ("floor", "single-domain", "cross-domain", "RecBole")
    able = [model for model in wanted if _does(model, task)]
    return sorted(able, key=lambda model: kinds.index(kind_of(model, task)))


def _variant_blocks(
    variant: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]
) -> Iterator[_Block]:
    keys = dict(variant)
    name, models = keys.pop("name"), _listed(keys.pop("model"))
    own_axes = {key: _listed(keys.pop(key)) for key in _AXES if key in keys}
    grid = {key: _listed(value) for key, value in keys.items()}
    for model in models:
        # The base model and the preset of the main runs, and not all of them, unless it says so.
        single = {key: axes[key][:1] for key in ("base_model", "preset")}
        fitting = _fitting(model, {**axes, **single, **own_axes})
        for combination in itertools.product(*grid.values()):
            values = dict(zip(grid, combination, strict=True))
            yield _Block(model, fitting, name, values)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _fitting(model: str, axes: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The axes on which a model can vary; none for what it does not have."""
    return {
        **axes,
        "eval_task": [task for task in axes["eval_task"] if _does(model, task)],
        "base_model": axes["base_model"] if _has_base_model(model) else [None],
        "preset": axes["preset"] if _has_presets(model) else ["default"],
    }


def _has_base_model(model: str) -> bool:
    ours = find_models().get(model)
    return ours is not None and "base_model" in ours.shared_properties


def _has_presets(model: str) -> bool:
    ours = find_models().get(model)
    return ours is not None and ours.kind != "floor"


def _does(model: str, task: str) -> bool:
    ours = find_models().get(model)
    if ours is not None:
        return task in ours.eval_tasks
    known = known_model(find_model(model))
    return known is None or task == "ranking" or not known.no_ratings


def kind_of(model: str, task: str) -> str:
    """What tables group a model by: floor, single-domain, cross-domain or RecBole."""
    ours = find_models().get(model)
    if ours is not None:
        return ours.kind
    return "floor" if model in RECBOLE_FLOORS[task] else "RecBole"


# Runs of a block


def _runs_of(
    path: Path,
    block: _Block,
    values: Mapping[str, Any],
    identity: Identity,
) -> Iterator[Run]:
    axes = block.axes
    choices = (axes[key] for key in ("dataset", "eval_task", "preset", "base_model"))
    for dataset, task, preset, base_model in itertools.product(*choices):
        kept = {"base_model": base_model, "preset": preset}
        if block.model not in find_models():
            kept = {}
        made_for = dict(dataset=dataset, eval_task=task, preset=preset, base_model=base_model)
        tuned, trials, tuned_on = _tuned(values["tuned"], block.model, made_for)
        for_all = {**values["config"], **values[task]}.items()
        given = {
            **{key: v for key, v in for_all if key in _known_keys(block.model, task)},
            **tuned,
            **values["model_config"].get(block.model, {}),
            **block.values,
            **{key: value for key, value in kept.items() if value is not None},
            "eval_task": task,
        }
        draws = [
            {"test_user_ratio": ratio, "seed": seed, "split_seed": seed}
            for ratio, seed in itertools.product(axes["test_user_ratio"], axes["seed"])
        ]
        try:
            first = {**given, **draws[0]}
            resolved = identity.of(MMConfig(block.model, dataset, config_dict=first))
        except UserError as error:
            raise ConfigError(f"{path}: {block.model} on {dataset}: {error}") from error
        for draw in draws:
            yield Run(
                key=resolved.key(draw),
                label=_label(block),
                model=block.model,
                kind=kind_of(block.model, task),
                dataset=dataset,
                eval_task=task,
                test_user_ratio=draw["test_user_ratio"],
                seed=draw["seed"],
                preset=preset,
                base_model=base_model,
                variant={"name": block.variant, "values": dict(block.values)}
                if block.variant
                else None,
                trials=trials,
                config={**given, **draw},
                tuned_on=tuned_on,
            )


def _label(block: _Block) -> str:
    values = ", ".join(f"{key}={value}" for key, value in block.values.items())
    return f"{block.model} ({values})" if values else block.model


def _tuned(
    folder: str | None, model: str, made_for: Mapping[str, Any]
) -> tuple[dict[str, Any], int | None, list[int] | None]:
    """The best values of a search that was made for such runs, its trials and its split seeds."""
    file = Path(folder or "") / f"{model}.json"
    if folder is None or not file.exists():
        return {}, None, None
    try:
        search = json.loads(file.read_text(encoding="utf-8"))
        if any(search[key] != value for key, value in made_for.items()):
            return {}, None, None
        return dict(search["best"]), int(search["trials"]), list(search["split_seeds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: is no outcome of `python -m recbole_cdr_mm.tune` ({error!r}). Correct"
            " `tuned`, or search again."
        ) from error
