"""Checkpoints that hold tensors and plain values only, written atomically.

A checkpoint is a file of torch.save that torch.load accepts with `weights_only=True`. What torch
does not take, NumPy arrays and SciPy matrices, lies in an `.npz` file beside it. That file has the
hash of its contents in its name, and the checkpoint names it: wherever a run is killed, a
checkpoint finds the arrays of its own epoch. A tensor of zeros alone, such as a table that is not
fitted yet, is stored as one zero.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm.errors import ConfigError

FORMAT = 1

_MARK = "recbole_cdr_mm"  # the key under which a checkpoint says that it is one of ours
_IN_NPZ = "__npz__"  # the key of what stands in the checkpoint for a value of the .npz file
_PLAIN = (type(None), bool, int, float, str, bytes)
_COMPRESSED = ("csr", "csc", "bsr")  # stored as they are; other formats by way of coo
_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; the one that was there before stays until then.

    Args:
        path: The checkpoint's file. Arrays go to `<path>.<hash>.npz` beside it.
        state: Tensors, plain values, NumPy arrays and SciPy sparse matrices, nested in dicts,
            lists and tuples. NumPy's scalars are stored as Python's.

    Raises:
        TypeError: If `state` holds anything else. Nothing is written then.
        ConfigError: If the folder cannot be made or written to.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    content = {key: _pack(value, key, arrays) for key, value in state.items()}
    outdated = set(_array_files(path))
    arrays_file = path.with_name(f"{path.name}.{_hash(arrays)}.npz") if arrays else None
    content[_MARK] = {"format": FORMAT, "arrays": arrays_file.name if arrays_file else None}
    try:
        if arrays_file:
            with atomic_path(arrays_file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]  # taken for `allow_pickle`
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except BaseException:
        if arrays_file and arrays_file not in outdated:
            arrays_file.unlink(missing_ok=True)
        raise
    for file in outdated - {arrays_file}:
        file.unlink(missing_ok=True)


def load_checkpoint(
    path: str | Path, map_location: str | torch.device | None = None
) -> dict[str, Any]:
    """Read a checkpoint that `save_checkpoint` wrote. Nothing in it is executed.

    Args:
        path: The checkpoint's file.
        map_location: The device on which its tensors are wanted, as for torch.load.

    Returns:
        What was saved; arrays and sparse matrices have their type, format and dtype back.

    Raises:
        ConfigError: If the file, or the `.npz` file that it names, is missing, damaged or not
            written by `save_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such checkpoint. Correct the path or train first.")
    try:
        _check_sums(path)  # torch.load itself does not notice a flipped bit
        content = torch.load(path, map_location=map_location, weights_only=True)
        mark = content.pop(_MARK)
        if mark["format"] != FORMAT:
            raise ValueError(f"format {mark['format']}, not {FORMAT}")
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    arrays = _load_arrays(path, mark["arrays"]) if mark["arrays"] else {}
    return {key: _unpack(value, arrays) for key, value in content.items()}


def plain_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the values of a config into what JSON can say.

    Args:
        values: Keys and values of a config, such as RecBole's `config.final_config_dict`.

    Returns:
        The same with enums by their value, tuples and sets as lists, and whatever else is no
        plain value (a device, a class) by its text.

    >>> plain_config({"topk": (5, 10), "device": torch.device("cpu")})
    {'topk': [5, 10], 'device': 'cpu'}
    """
    return {str(key): _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (type(None), bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return plain_config(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(entry) for entry in value), key=str)
    return str(value)


def _pack(value: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """Move the arrays of a value to `arrays`, and leave in their places what says where."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return _one_zero(value)
    if _is_state_dict(value):
        return _each(value, _one_zero)
    if sp.issparse(value):  # asked first, as SciPy's dok format is a dict besides
        parts, kind = _sparse_parts(value)
    elif isinstance(value, Mapping):
        return {key: _pack(entry, f"{where}.{key}", arrays) for key, entry in value.items()}
    elif isinstance(value, list | tuple):
        entries = [_pack(entry, f"{where}.{place}", arrays) for place, entry in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        parts = {"data": np.asarray(value)}
        kind = {"kind": "matrix" if isinstance(value, np.matrix) else "array"}
    else:
        raise TypeError(f"{where}: a checkpoint cannot hold {type(value).__name__}.")
    keys = {part: f"{where}.{part}" for part in parts}
    arrays.update({keys[part]: array for part, array in parts.items()})
    return {_IN_NPZ: keys, **kind}


def _unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Put the arrays back into the places that `_pack` took them from."""
    if isinstance(value, torch.Tensor):
        return _in_full(value)
    if _is_state_dict(value):
        return _each(value, _in_full)
    if isinstance(value, dict) and _IN_NPZ in value:
        return _rebuild({part: arrays[key] for part, key in value[_IN_NPZ].items()}, value)
    if isinstance(value, dict):
        return {key: _unpack(entry, arrays) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_unpack(entry, arrays) for entry in value)
    return value


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, OrderedDict) and all(
        isinstance(entry, torch.Tensor) for entry in value.values()
    )


def _each(state_dict: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A state dict with its tensors changed."""
    changed = copy.copy(state_dict)  # with the attribute in which torch keeps the layers' versions
    changed.update({key: change(tensor) for key, tensor in state_dict.items()})
    return changed


def _one_zero(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a single zero in the place of a tensor of zeros; torch.save writes that zero."""
    if tensor.layout is not torch.strided or tensor.any():
        return tensor
    return tensor.new_zeros(()).expand(tensor.shape)


def _in_full(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with memory of its own for each value."""
    is_view = tensor.layout is torch.strided and 0 in tensor.stride()
    return tensor.contiguous() if is_view else tensor


def _sparse_parts(matrix: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    kind = {
        "kind": "matrix" if isinstance(matrix, sp.spmatrix) else "array",
        "format": matrix.format,
        "shape": [int(length) for length in matrix.shape],
    }
    if matrix.format in _COMPRESSED:
        return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}, kind
    matrix = matrix.tocoo()
    return {"data": matrix.data, "row": matrix.row, "col": matrix.col}, kind


def _rebuild(parts: dict[str, np.ndarray], kind: Mapping[str, Any]) -> Any:
    if "format" not in kind:
        return parts["data"].view(np.matrix) if kind["kind"] == "matrix" else parts["data"]
    shape = tuple(kind["shape"])
    if kind["format"] in _COMPRESSED:
        make = getattr(sp, f"{kind['format']}_{kind['kind']}")
        return make((parts["data"], parts["indices"], parts["indptr"]), shape=shape)
    make = getattr(sp, f"coo_{kind['kind']}")
    return make((parts["data"], (parts["row"], parts["col"])), shape=shape).asformat(kind["format"])


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key, array in arrays.items():
        digest.update(f"{key} {array.dtype} {array.shape} {array.strides}".encode())
        digest.update(array.ravel(order="K").view(np.uint8).data)
    return digest.hexdigest()[:16]


def _array_files(path: Path) -> list[Path]:
    """List the `.npz` files of a checkpoint, those included that a killed run left behind."""
    ours = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.npz")
    return [file for file in path.parent.glob("*.npz") if ours.fullmatch(file.name)]


def _load_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    file = path.parent / Path(name).name  # the bare name: a checkpoint opens no other folder
    if not file.is_file():
        raise ConfigError(
            f"{path}: its arrays should lie beside it in `{file.name}`, which is missing. "
            "Copy both files, or train again."
        )
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return dict(stored)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error


def _check_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"the check sum of `{damaged}` is wrong")


def _unreadable(path: Path, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    return ConfigError(
        f"{path}: damaged, or not written by this package ({reason}). "
        "Name another checkpoint or train again."
    )
