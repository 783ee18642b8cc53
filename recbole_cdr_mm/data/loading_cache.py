"""What was read of large atomic files, kept so that the next start need not read them again."""

from __future__ import annotations

import functools
import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

import numpy as np
import pandas as pd
import platformdirs
from numpy.typing import NDArray

from dataset_tools.feature_store import content_hash, item_texts
from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm.errors import ConfigError

_SMALLEST = 8 << 20  # bytes of a file; smaller ones are read faster than they are looked up
_FORMAT = 2

Arrays = Mapping[str, NDArray]


@dataclass(frozen=True, eq=False)
class ItemTexts:
    """Which items of a domain have a text, and a hash of these texts, see `content_hash`."""

    items: frozenset[str]
    content_hash: str


class LoadingCache:
    """A folder with one file for each atomic file and way of reading it.

    A file counts only for the very contents that it was made of, by their SHA-256; for others it is
    made anew in the same place. It may be removed at any time.

    Args:
        loading_cache: The key: True for the user's cache folder, a path, or False for none.
    """

    def __init__(self, loading_cache: bool | str) -> None:
        self._folder: Path | None = None
        if loading_cache is True:
            self._folder = platformdirs.user_cache_path("recbole_cdr_mm")
        elif loading_cache:
            self._folder = Path(loading_cache)

    def ratings(
        self, path: Path, options: Mapping[str, object], read: Callable[..., pd.DataFrame]
    ) -> pd.DataFrame:
        """What `read(path, **options)` gives of an `.inter` file: categories and floats."""
        make = functools.partial(read, path, **options)
        return _as_frame(self._kept(path, f"ratings {options}", lambda: _as_arrays(make())))

    def texts(
        self,
        path: Path,
        fields: Sequence[str],
        options: Mapping[str, object],
        read: Callable[..., pd.DataFrame],
    ) -> ItemTexts:
        """Texts of an `.item` file, as `read(path, fields=fields, **options)` gives their parts."""

        def make() -> Arrays:
            by_token = item_texts(read(path, fields=fields, **options), fields)
            digest = content_hash(list(by_token), list(by_token.values()))
            return {"items": _as_bytes(by_token), "content_hash": np.array(digest)}

        kept = self._kept(path, f"texts {list(fields)} {options}", make)
        return ItemTexts(frozenset(_as_tokens(kept["items"])), str(kept["content_hash"]))

    def _kept(self, path: Path, options: str, make: Callable[[], Arrays]) -> Arrays:
        if self._folder is None or not path.is_file() or path.stat().st_size < _SMALLEST:
            return make()
        place = hashlib.sha256(f"{path.resolve()} {options}".encode()).hexdigest()[:16]
        file = self._folder / f"{path.name}-{place}.npz"
        with path.open("rb") as stream:
            contents = f"{_FORMAT} {hashlib.file_digest(stream, 'sha256').hexdigest()}"
        try:
            # Opened here, for np.load leaves a damaged file open.
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                if str(stored["contents"]) == contents:
                    return {name: stored[name] for name in stored.files}
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            pass  # not there, or damaged: it is made anew
        arrays = make()
        try:
            with atomic_path(file) as temporary, temporary.open("wb") as target:
                np.savez(target, contents=np.array(contents), **arrays)  # type: ignore[arg-type]
        except ConfigError as error:
            getLogger().warning(f"What was read of {path.name} is not kept for later. {error}")
        return arrays


def _as_arrays(frame: pd.DataFrame) -> Arrays:
    arrays: dict[str, NDArray] = {}
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            arrays[f"codes:{name}"] = column.cat.codes.to_numpy()
            arrays[f"tokens:{name}"] = _as_bytes(column.cat.categories)
        else:
            arrays[f"floats:{name}"] = column.to_numpy()
    return arrays


def _as_frame(arrays: Arrays) -> pd.DataFrame:
    columns: dict[str, object] = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind == "codes":
            categories = pd.Index(_as_tokens(arrays[f"tokens:{name}"]), dtype=object)
            columns[name] = pd.Categorical.from_codes(array, categories)
        elif kind == "floats":
            columns[name] = array
    return pd.DataFrame(columns)


def _as_bytes(tokens: Sequence[str] | Mapping[str, str]) -> NDArray[np.uint8]:
    """Tokens as the lines of a text; none of them has a line break."""
    return np.frombuffer("\n".join(tokens).encode(), dtype=np.uint8)


def _as_tokens(lines: NDArray[np.uint8]) -> list[str]:
    return lines.tobytes().decode().split("\n") if len(lines) else []
