"""The property files: which of them explain the keys of a run."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import recbole

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.model import find_models
from recbole_cdr_mm.model.cross_domain_recommender import CrossDomainRecommender
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.schema import Key, read_properties

RECBOLE_PROPERTIES = Path(recbole.__file__).parent / "properties"

# The keys of every run.
GENERAL_FILES = (
    RECBOLE_PROPERTIES / "overall.yaml",
    RECBOLE_PROPERTIES / "dataset" / "sample.yaml",
    PROPERTIES / "overall.yaml",
)


def property_files(model_class: type[CrossDomainRecommender]) -> list[Path]:
    """The files that explain a model's keys: those that it shares with others, then its own."""
    shared = [PROPERTIES / "shared" / f"{name}.yaml" for name in model_class.shared_properties]
    files = [*shared, PROPERTIES / "model" / f"{model_class.__name__}.yaml"]
    for file in files:
        if not file.is_file():
            raise ConfigError(
                f"{file}: is missing. It explains keys of {model_class.__name__};"
                " docs/extending.md says how."
            )
    return files


@functools.cache
def keys_of_ours() -> dict[str, set[str]]:
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


@functools.cache
def recbole_bounds() -> dict[str, str]:
    """Types with bounds, by the keys of RecBole's models that they are for."""
    names_of_types, _ = read_properties(PROPERTIES / "recbole_bounds.yaml")
    return {name: text for text, names in names_of_types.items() for name in names}  # type: ignore[attr-defined]


def with_bounds(key: Key) -> Key:
    """A key of one of RecBole's models with the bounds of its name, if its default keeps them."""
    bounded = replace(key, type_text=recbole_bounds().get(key.name, key.type_text))
    return key if bounded.problem_with(key.default) else bounded


def known_keys(model_class: type, eval_task: str) -> set[str]:
    """The keys that a run of a model can be given."""
    files = [*GENERAL_FILES, task_file(eval_task), *model_files(model_class)]
    return {key for file in files for key in read_properties(file)[0]}


def task_file(eval_task: str) -> Path:
    """The file of what an evaluation task sets."""
    return PROPERTIES / "eval_task" / f"{eval_task}.yaml"
