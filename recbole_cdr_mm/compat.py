"""Makes RecBole 1.2.1 run on NumPy 2, pandas 3, SciPy 1.17 and torch 2.13, without ray.

RecBole was written for the releases of 2022 and 2023. `apply` mends what later releases took
away, and one thing that slows everything down: each patch of `PATCHES` has a guard that looks at
the running releases, and none changes a number. Importing this module does nothing.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import nn

from recbole_cdr_mm.checkpoint import load_checkpoint, plain_config, save_checkpoint
from recbole_cdr_mm.errors import ConfigError

RECBOLE_VERSION = "1.2.1"

# What RecBole's Config sets; it spells some of the types as NumPy 2 no longer does.
_NUMPY_ALIASES: dict[str, type] = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
}

_NEWEST_RAY = (2, 6)  # RecBole's metadata: ray<=2.6.3

_applied: list[str] | None = None


@dataclass(frozen=True)
class Patch:
    """One thing that RecBole expects and that the running releases may no longer give.

    Attributes:
        name: What the log line says.
        needed: Whether the running releases lack it; looks, and changes nothing.
        install: Puts it in place.
    """

    name: str
    needed: Callable[[], bool]
    install: Callable[[], None]


def apply() -> list[str]:
    """Make the installed RecBole run on the running releases. Entry points call this first.

    A second call finds everything in place and does nothing.

    Returns:
        The names of the patches in force, in the order of `PATCHES`.

    Raises:
        ConfigError: If RecBole is missing or is not 1.2.1.
    """
    global _applied
    if _applied is None:
        _check_recbole()
        needed = [patch for patch in PATCHES if patch.needed()]
        for patch in needed:
            patch.install()
        _applied = [patch.name for patch in needed]
        getLogger().info(
            f"recbole_cdr_mm.compat: RecBole {RECBOLE_VERSION} patched for the running releases: "
            f"{', '.join(_applied) or 'nothing to do'}"
        )
    return list(_applied)


def _check_recbole() -> None:
    remedy = f"Install it with: pip install --no-deps recbole=={RECBOLE_VERSION}"
    try:
        recbole = importlib.import_module("recbole")
    except ModuleNotFoundError as error:
        if error.name != "recbole":
            raise
        where = f"Python environment {sys.prefix}"
        raise ConfigError(f"{where}: RecBole is not installed. {remedy}") from None
    found = getattr(recbole, "__version__", "of unknown version")
    if found != RECBOLE_VERSION:
        raise ConfigError(
            f"{recbole.__file__}: RecBole {found} found, {RECBOLE_VERSION} needed. {remedy}"
        )


class _Overlay(ModuleType):
    """A module with some of its names replaced, for one importing module instead of for all.

    RecBole's long methods call `pd.read_csv` or `torch.load` in their midst. Handing the module
    that holds such a method an overlay changes that one call, and leaves both RecBole's method
    and everybody else's pandas and torch as they are.
    """

    def __init__(self, module: ModuleType, **replaced: object) -> None:
        super().__init__(module.__name__, module.__doc__)
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


# ray: RecBole's quick start imports ray.tune, which it uses for hyperparameter search only.


class _MissingTune(ModuleType):
    """Stands for `ray.tune` where the ray of RecBole is missing: an error on first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what import machinery and inspect ask every module
            raise AttributeError(name)
        raise ConfigError(
            f"recbole.quick_start: `ray.tune.{name}` needs ray 2.6 or older, which cannot be "
            "imported here. Search hyperparameters with `python -m recbole_cdr_mm.tune`."
        )


def _ray_is_missing() -> bool:
    """Whether there is no ray, or one newer than RecBole knows how to use."""
    try:
        release = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return True
    if tuple(int(part) for part in release.split(".")[:2]) > _NEWEST_RAY:
        return True
    try:
        importlib.import_module("ray.tune")
    except Exception:  # an old ray on a new stack fails in many ways, not only by ImportError
        return True
    return False


def _import_quick_start_without_ray() -> None:
    # The stand-in is there for this one import; others still see the ray that there is, or none.
    real = sys.modules.get("ray")
    stand_in = ModuleType("ray")
    stand_in.tune = _MissingTune("ray.tune")  # type: ignore[attr-defined]
    sys.modules["ray"] = stand_in
    try:
        importlib.import_module("recbole.quick_start.quick_start")
    finally:
        del sys.modules["ray"]
        if real is not None:
            sys.modules["ray"] = real


# NumPy: np.float and its like, which RecBole uses in metrics, interactions and layers.


def _missing_aliases() -> dict[str, type]:
    # vars, not hasattr: NumPy answers hasattr for these names with a warning.
    return {name: kind for name, kind in _NUMPY_ALIASES.items() if name not in vars(np)}


def _numpy_aliases_are_missing() -> bool:
    return bool(_missing_aliases())


def _add_numpy_aliases() -> None:
    from recbole.config import Config

    def compatibility_settings(self: Config) -> None:
        """Add the names that NumPy lacks; unlike RecBole's own, replace none that it has."""
        for name, kind in _missing_aliases().items():
            setattr(np, name, kind)

    Config.compatibility_settings = compatibility_settings
    for name, kind in _missing_aliases().items():
        setattr(np, name, kind)


# SciPy: dok_matrix._update, with which LightGCN, NGCF and others fill their adjacency matrix.


def _dok_update_is_missing() -> bool:
    return not hasattr(sp.dok_matrix, "_update")


def _add_dok_update() -> None:
    def update(self: sp.dok_matrix, entries: dict[tuple[int, int], float]) -> None:
        """Set entries of the matrix; the keys are not checked, as in SciPy 1.12."""
        self._dict.update(entries)

    sp.dok_matrix._update = update


# pandas: RecBole fills missing values by `frame[field].fillna(..., inplace=True)`. Since
# copy-on-write that fills a temporary column and leaves the frame as it was.


def _chained_fill_is_lost() -> bool:
    frame = pd.DataFrame({"field": [np.nan]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["field"].fillna(0.0, inplace=True)
    return bool(frame["field"].isna().any())


def _fill_empty_sequences() -> None:
    from recbole.data.dataset import dataset

    load_feat = dataset.Dataset._load_feat

    def read_csv(*args: Any, **kwargs: Any) -> pd.DataFrame:
        """Read an atomic file, whose headers end with the type, with '' for missing sequences."""
        frame = pd.read_csv(*args, **kwargs)
        sequences = [header for header in frame if header.endswith("_seq")]
        return frame.fillna(dict.fromkeys(sequences, ""))

    def load_feat_quietly(self: dataset.Dataset, filepath: str, source: Any) -> pd.DataFrame | None:
        with warnings.catch_warnings():  # the fill that is lost now finds nothing to fill
            warnings.simplefilter("ignore", pd.errors.ChainedAssignmentError)
            return load_feat(self, filepath, source)

    dataset.pd = _Overlay(pd, read_csv=read_csv)
    dataset.Dataset._load_feat = load_feat_quietly


def _fill_missing_values() -> None:
    from recbole.data.dataset import dataset
    from recbole.utils import FeatureType

    def fill_nan(self: dataset.Dataset) -> None:
        """Fill missing tokens by 0, floats by their mean, sequences by an empty one."""
        for frame in (getattr(self, name) for name in self.feat_name_list):
            for field in frame:
                column, kind = frame[field], self.field2type[field]
                if kind == FeatureType.TOKEN:
                    frame[field] = column.fillna(0)
                elif kind == FeatureType.FLOAT:
                    frame[field] = column.fillna(column.mean())
                else:
                    dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
                    empty = np.array([], dtype=dtype)
                    frame[field] = [empty if isinstance(row, float) else row for row in column]

    dataset.Dataset._fill_nan = fill_nan


# pandas: Series.agg(len) once gave the length of each row; now it gives the number of rows.


def _agg_counts_rows() -> bool:
    return not isinstance(pd.Series([[1, 2], [3]]).agg(len), pd.Series)


def _length_of_each_row(values: Any) -> Any:
    return values.map(builtins.len) if isinstance(values, pd.Series) else builtins.len(values)


def _measure_each_row() -> None:
    # The functions with `agg(len)` are long and call `len` on a Series nowhere else, so their
    # modules get a `len` of their own; agg hands it the whole Series.
    for name in ("dataset", "kg_dataset", "sequential_dataset"):
        module = importlib.import_module(f"recbole.data.dataset.{name}")
        module.len = _length_of_each_row  # type: ignore[attr-defined]


# pandas: `column.values` is read-only since copy-on-write, as other frames may share it. torch
# makes a tensor of it all the same, over the same memory, so that writing to an Interaction would
# change those frames behind pandas' back.


def _values_are_read_only() -> bool:
    return not pd.Series([1]).values.flags.writeable  # `values`, since RecBole calls that


def _copy_read_only_values() -> None:
    from recbole.data import interaction
    from recbole.data.dataset import dataset

    def writeable(make: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
        def make_from(values: Any) -> torch.Tensor:
            if isinstance(values, np.ndarray) and not values.flags.writeable:
                values = values.copy()
            return make(values)

        return make_from

    dataset.torch = _Overlay(
        torch,
        LongTensor=writeable(torch.LongTensor),
        FloatTensor=writeable(torch.FloatTensor),
    )
    interaction.torch = _Overlay(torch, as_tensor=writeable(torch.as_tensor))


# torch: the trainer makes a torch.cuda.amp.GradScaler each epoch, which warns that it will go.


def _old_grad_scaler_warns() -> bool:
    return _torch_version() >= (2, 4)


def _make_new_grad_scalers() -> None:
    from recbole.trainer import trainer

    trainer.amp = _Overlay(trainer.amp, GradScaler=partial(torch.amp.GradScaler, "cuda"))


# torch: load refuses anything but tensors and plain values, and RecBole pickles its Config.


def _torch_refuses_objects() -> bool:
    return _torch_version() >= (2, 6)


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def _store_plain_checkpoints() -> None:
    from recbole.trainer import trainer

    def save(state: dict[str, Any], path: str, **_: Any) -> None:
        parts = dict(state, config=plain_config(state["config"].final_config_dict))
        # Modules among the other parameters have their tensors in state_dict already.
        others = state.get("other_parameter") or {}
        parts["other_parameter"] = {
            name: value for name, value in others.items() if not isinstance(value, nn.Module)
        }
        save_checkpoint(path, parts)

    trainer.torch = _Overlay(torch, save=save, load=load_checkpoint)


def _load_plain_checkpoints() -> None:
    import recbole.quick_start
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.quick_start import quick_start
    from recbole.utils import EvaluatorType, InputType, ModelType, get_model, init_logger, init_seed

    restored = {
        "MODEL_TYPE": ModelType,
        "MODEL_INPUT_TYPE": InputType,
        "eval_type": EvaluatorType,
        "device": torch.device,
    }

    def restore_config(values: dict[str, Any]) -> Config:
        # Config's own constructor would mix in sys.argv and the property files once more.
        config = Config.__new__(Config)
        config._init_parameters_category()
        config.yaml_loader = config._build_yaml_loader()
        config.final_config_dict = {
            key: restored[key](value) if key in restored else value for key, value in values.items()
        }
        if config["device"].type == "cuda" and not torch.cuda.is_available():
            config["device"] = torch.device("cpu")
        return config

    def load_data_and_model(model_file: str) -> tuple[Any, ...]:
        """Build data set, loaders and model again as a checkpoint describes them.

        Returns:
            Config, model, data set, and the loaders of training, validation and test data.
        """
        checkpoint = load_checkpoint(model_file, map_location="cpu")
        config = restore_config(checkpoint["config"])
        init_seed(config["seed"], config["reproducibility"])
        init_logger(config)
        dataset = create_dataset(config)
        loaders = data_preparation(config, dataset)
        init_seed(config["seed"], config["reproducibility"])
        model = get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])
        model.load_state_dict(checkpoint["state_dict"])
        model.load_other_parameter(checkpoint.get("other_parameter"))
        return config, model, dataset, *loaders

    quick_start.load_data_and_model = load_data_and_model
    recbole.quick_start.load_data_and_model = load_data_and_model


# torch: RecBole's module of SINE switches anomaly detection on, for all of torch, when it is
# imported: with all sequential models, by whoever asks for one of them, for a model of a later
# folder, or for one that does not exist. What the process trains then takes several times as long.


def _sine_slows_everything() -> bool:
    recbole = Path(importlib.import_module("recbole").__file__ or "").parent
    sine = recbole / "model" / "sequential_recommender" / "sine.py"
    return "set_detect_anomaly(True)" in sine.read_text(encoding="utf-8")


def _keep_anomaly_detection_as_it_is() -> None:
    from recbole.utils import utils

    def unchanged(look: Callable[..., Any]) -> Callable[..., Any]:
        def look_without_a_trace(*args: Any) -> Any:
            with torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled()):
                return look(*args)

        return look_without_a_trace

    utils.importlib = _Overlay(
        importlib,
        util=_Overlay(importlib.util, find_spec=unchanged(importlib.util.find_spec)),
        import_module=unchanged(importlib.import_module),
    )


PATCHES: tuple[Patch, ...] = (
    Patch("quick start without ray", _ray_is_missing, _import_quick_start_without_ray),
    Patch("NumPy aliases", _numpy_aliases_are_missing, _add_numpy_aliases),
    Patch("dok_matrix._update", _dok_update_is_missing, _add_dok_update),
    Patch("empty sequences", _chained_fill_is_lost, _fill_empty_sequences),
    Patch("missing values", _chained_fill_is_lost, _fill_missing_values),
    Patch("Series.agg(len)", _agg_counts_rows, _measure_each_row),
    Patch("writeable tensors", _values_are_read_only, _copy_read_only_values),
    Patch("GradScaler", _old_grad_scaler_warns, _make_new_grad_scalers),
    Patch("plain checkpoints", _torch_refuses_objects, _store_plain_checkpoints),
    Patch("load_data_and_model", _torch_refuses_objects, _load_plain_checkpoints),
    Patch("anomaly detection", _sine_slows_everything, _keep_anomaly_detection_as_it_is),
)
