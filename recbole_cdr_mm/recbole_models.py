"""RecBole's own models on a pair: what each can do, and why not the rest.

`RECBOLE_MODELS` is the one source: `MMConfig` asks it before anything is read, `build_model` before
anything large is made, and `python -m recbole_cdr_mm.recbole_models` prints it as the table of
docs/recbole_models.md.
"""

from __future__ import annotations

import importlib.util
import linecache
import math
import pickle
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import psutil

from recbole_cdr_mm.errors import ConfigError

_PAIRS = "is trained on pairs of items and predicts no ratings"
_PRESENCE = "learns which items a user has, not how they are rated, and predicts no ratings"


@dataclass(frozen=True)
class Option:
    """A key of a model of which not all values work here.

    Attributes:
        key: The key.
        values: Those that work; the first is RecBole's default.
        why: Why the others do not.
        task: The task that this is about; None for both.
    """

    key: str
    values: tuple[object, ...]
    why: str
    task: str | None = None


@dataclass(frozen=True)
class RecBoleModel:
    """What one of RecBole's models does on a pair. All of them rank.

    Attributes:
        kind: `general` or `context-aware`.
        no_ratings: Why it predicts no ratings, as the rest of a sentence that begins with its name;
            None where it does.
        options: Keys of which not all values work.
        library: What it imports beside RecBole's own requirements.
        state: Attributes that training changes, beside parameters and buffers; a resumed run needs
            them.
        n_bytes: The memory that it needs for dense matrices, by users and items; None where it
            makes none that matter.
        remark: What else a user should know.
    """

    kind: str
    no_ratings: str | None = None
    options: tuple[Option, ...] = ()
    library: str | None = None
    state: tuple[str, ...] = ()
    n_bytes: Callable[[int, int], int] | None = None
    remark: str = ""


def _general(no_ratings: str | None = None, **values: Any) -> RecBoleModel:
    return RecBoleModel("general", no_ratings, **values)


def _context(no_ratings: str | None = None, **values: Any) -> RecBoleModel:
    return RecBoleModel("context-aware", no_ratings, **values)


# The bytes were measured at their peak (docs/recbole_models.md says how).
RECBOLE_MODELS: Mapping[str, RecBoleModel] = MappingProxyType(
    {
        "ADMMSLIM": _general(
            _PRESENCE,
            n_bytes=lambda users, items: 37 * items**2,
            remark="Needs 37 bytes for each pair of items.",
        ),
        "AsymKNN": _general(
            _PRESENCE,
            n_bytes=lambda users, items: 12 * users * items,
            remark="Needs 12 bytes or more for each user and item.",
        ),
        "BPR": _general(_PAIRS),
        "CDAE": _general(_PRESENCE),
        "ConvNCF": _general(_PAIRS),
        "DGCF": _general(
            _PAIRS,
            remark="Its batches must be small enough: an error says how small.",
        ),
        "DMF": _general(
            options=(
                Option(
                    "inter_matrix_type",
                    ("01",),
                    "RecBole would multiply the scaled label by the rating",
                    task="rating",
                ),
            ),
        ),
        "DiffRec": _general(_PRESENCE, state=("Lt_history", "Lt_count")),
        "EASE": _general(
            _PRESENCE,
            n_bytes=lambda users, items: 20 * items**2,
            remark="Needs 20 bytes for each pair of items.",
        ),
        "ENMF": _general(_PRESENCE),
        "FISM": _general(
            "is trained through one sigmoid more than it predicts with, so that its scores are no"
            " ratings",
        ),
        "GCMC": _general(_PAIRS),
        "ItemKNN": _general(_PRESENCE),
        "LDiffRec": _general(
            _PRESENCE, state=("Lt_history", "Lt_count", "update_count", "update_count_vae")
        ),
        "LINE": _general(_PAIRS),
        "LightGCN": _general(_PAIRS),
        "MacridVAE": _general(_PRESENCE, state=("update",)),
        "MultiDAE": _general(_PRESENCE),
        "MultiVAE": _general(_PRESENCE, state=("update",)),
        "NAIS": _general(
            options=(
                Option(
                    "train_domains",
                    ("both",),
                    "it divides by the length of a user's history, and a cold-start user has none"
                    " in the target domain",
                    task="rating",
                ),
            ),
        ),
        "NCEPLRec": _general(_PRESENCE),
        "NCL": _general(
            _PAIRS,
            library="faiss",
            remark="Needs the library faiss (`pip install faiss-cpu`), and `num_clusters` users and"
            " items.",
        ),
        "NGCF": _general(_PAIRS),
        "NNCF": _general(
            options=(
                Option(
                    "neigh_info_method",
                    ("random", "louvain"),
                    "`knn` ends with a TypeError in RecBole 1.2.1",
                ),
            ),
            n_bytes=lambda users, items: users * items,
            remark="Needs a byte for each user and item; `neigh_info_method: louvain` needs the"
            " libraries networkx and python-louvain.",
        ),
        "NeuMF": _general(),
        "Pop": _general(
            "counts how often an item occurs and predicts no ratings",
            remark="Counts the items of training batches, sampled ones among them; our `Popularity`"
            " counts ratings.",
        ),
        "RaCT": _general(
            _PRESENCE,
            state=("update",),
            remark="Trains in three runs, `train_stage` actor_pretrain, critic_pretrain, finetune,"
            " each with the checkpoint of the one before as `pre_model_path`; the first two last"
            " `pretrain_epochs`, without validation.",
        ),
        "Random": _general(
            "draws its scores at random and predicts no ratings",
            remark="All users of an evaluation batch get one list.",
        ),
        "RecVAE": _general(_PRESENCE),
        "SGL": _general(_PAIRS),
        "SLIMElastic": _general(_PRESENCE, remark="Fits a regression for each item: slow."),
        "SimpleX": _general(_PAIRS),
        "SpectralCF": _general(_PAIRS),
        "AFM": _context(),
        "AutoInt": _context(),
        "DCN": _context(),
        "DCNV2": _context(),
        "DSSM": _context(
            "scores by a cosine, which keeps its ratings in the middle of the range (2.1 to 3.9 of"
            " 1 to 5), and predicts no others",
        ),
        "DeepFM": _context(),
        "EulerNet": _context(),
        "FFM": _context(),
        "FM": _context(),
        "FNN": _context(),
        "FiGNN": _context(),
        "FwFM": _context(),
        "KD_DAGFM": _context(
            options=(
                Option(
                    "teacher",
                    ("CrossNet", "CIN"),
                    "RecBole would evaluate it as Python code",
                ),
            ),
            remark="`phase` distillation and finetuning need the checkpoint of the phase before as"
            " `warm_up`.",
        ),
        "LR": _context(),
        "NFM": _context(),
        "PNN": _context(),
        "WideDeep": _context(),
        "xDeepFM": _context(),
    }
)


def known_model(model_class: type) -> RecBoleModel | None:
    """The table's entry of a model class; None for a class that is not RecBole's or newer."""
    is_recboles = model_class.__module__.startswith("recbole.model.")
    return RECBOLE_MODELS.get(model_class.__name__) if is_recboles else None


def check_config(model_class: type, config: Mapping[str, Any]) -> None:
    """Find out what a model cannot do, before anything is read. What is not known may try.

    Args:
        model_class: One of RecBole's models, or a user's own.
        config: All keys and values.

    Raises:
        ConfigError: If it does not do the task, lacks a library, or has an option that fails here.
    """
    name, model = model_class.__name__, known_model(model_class)
    if model is None:
        return
    task = config["eval_task"]
    if task == "rating" and model.no_ratings:
        raise ConfigError(f"{name} {model.no_ratings}. Give --eval_task=ranking.")
    if model.library and importlib.util.find_spec(model.library) is None:
        raise ConfigError(
            f"{name} needs the library `{model.library}`, which is not installed. Install it, or"
            " choose another model."
        )
    if config.get("numerical_features"):
        raise ConfigError(
            f"`numerical_features: {config['numerical_features']}`: RecBole's models see the users,"
            " items and ratings of a pair, and no numbers beside them. Leave it out."
        )
    for option in model.options:
        value = config.get(option.key)
        if value not in option.values and option.task in (None, task):
            wanted = " or ".join(f"--{option.key}={value}" for value in option.values)
            where = f" with `eval_task: {task}`" if option.task else ""
            raise ConfigError(
                f"{name} cannot have `{option.key}: {value}`{where}: {option.why}. Give {wanted}."
            )


def build_model(config: Any, dataset: Any) -> Any:
    """Make the model of a run.

    Args:
        config: The run's configuration.
        dataset: The training part of the pair.

    Raises:
        ConfigError: If it would not fit into memory or does not fit the pair, or if one of
            RecBole's models refuses its configuration.
    """
    model_class = config.model_class
    if known_model(model_class) is None:
        return model_class(config, dataset)
    check_size(model_class.__name__, config, dataset)
    try:
        return model_class(config, dataset)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{model_class.__name__} needs the library `{error.name}`, which is not installed."
            " Install it, or choose other values."
        ) from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"{model_class.__name__}: there is no file `{error.filename}` of a trained model to"
            " begin from. Correct its path."
        ) from error
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{model_class.__name__}: the file of a trained model holds more than tensors and plain"
            " values, and is not read. Name a checkpoint that this package wrote."
        ) from error
    except (AssertionError, IndexError, NotImplementedError, RuntimeError, ValueError) as error:
        # What RecBole's constructors happen to raise; an error from elsewhere is a bug and goes on.
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise ConfigError(
            f"{model_class.__name__} refuses its configuration: {refusal}. Correct the key."
        ) from error


def check_size(name: str, config: Any, dataset: Any) -> None:
    """Find out that a model of the table does not fit the pair, before it is made.

    Args:
        name: The model.
        config: The run's configuration.
        dataset: The training part of the pair.

    Raises:
        ConfigError: If memory, clusters or batches do not fit.
    """
    users, items = dataset.user_num, dataset.item_num
    n_bytes = RECBOLE_MODELS[name].n_bytes
    needed = n_bytes(users, items) if n_bytes else 0
    available = psutil.virtual_memory().available
    if needed > available:
        raise ConfigError(
            f"{name} needs about {needed / 2**30:,.1f} GiB of memory for {users:,} users and"
            f" {items:,} items, and {available / 2**30:,.1f} GiB are available. Keep fewer items,"
            " for example with --item_inter_num_interval=[20,inf), or choose another model."
        )
    if name == "NCL" and config["num_clusters"] > min(users, items):
        raise ConfigError(
            f"NCL cannot make `num_clusters: {config['num_clusters']}` of {users} users and"
            f" {items} items. Give --num_clusters={max(min(users, items) // 40, 1)} or so."
        )
    if name == "DGCF":
        _check_dgcf_batches(config["train_batch_size"], dataset.inter_num, users, items)


def _check_dgcf_batches(batch_size: int, rows: int, users: int, items: int) -> None:
    # RecBole draws the larger side's share of a batch from both sides, without replacement.
    if max(users, items) // (rows // batch_size + 1) > min(users, items):
        fits = rows // math.ceil(max(users, items) / min(users, items))
        raise ConfigError(
            f"DGCF cannot draw as many users and items as `train_batch_size: {batch_size}` asks"
            f" for, of {users} users and {items} items. Give --train_batch_size={fits} or less."
        )


def _refusal(error: Exception) -> str | None:
    """What a model of RecBole says when it refuses a value; None for an error from elsewhere."""
    of_models = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith("recbole.model.")
    ]
    if not of_models:
        return None
    frame, line = of_models[-1]
    said = " ".join(str(error).split()).rstrip(".")
    return said or f"`{linecache.getline(frame.f_code.co_filename, line).strip()}` does not hold"


def markdown_table() -> str:
    """The table of docs/recbole_models.md."""
    lines = ["| model | kind | ranking | rating | remark |", "| --- | --- | --- | --- | --- |"]
    for name, model in RECBOLE_MODELS.items():
        rating = f"no: {model.no_ratings}" if model.no_ratings else "yes"
        remarks = [_remark_on(option) for option in model.options] + [model.remark]
        remark = " ".join(filter(None, remarks))
        lines.append(f"| {name} | {model.kind} | yes | {rating} | {remark} |")
    return "\n".join(lines)


def _remark_on(option: Option) -> str:
    values = " or ".join(f"`{value}`" for value in option.values)
    task = f" for {option.task}" if option.task else ""
    return f"`{option.key}` must be {values}{task}: {option.why}."


if __name__ == "__main__":
    print(markdown_table())
