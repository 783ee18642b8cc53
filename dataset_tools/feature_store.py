"""Side features beside their domain: a matrix, the item of each of its rows, and how it was made.

A store of kind `text` of the domain `movie` is `movie.text.npy` (float16 or float32, (I, d)),
`movie.text.ids` (the item of each row, one a line) and `movie.text.json`. Rows are found by item,
never by position. The content hash of texts tells whether they are still those that were encoded;
that of images, whose raw files are not kept, whether the rows are still those that were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm.errors import ConfigError, DataFormatError

DTYPES = ("float16", "float32")
INFO_KEYS = ("encoder", "revision_or_hash", "pooling", "fields", "counts", "content_hash")
ALIKE = {  # what stores of two domains must agree in to share one space, by kind
    "text": ("encoder", "revision_or_hash", "pooling", "dim"),
    "image": ("encoder", "pooling", "dim"),  # Amazon's features have a file for each domain
}
BLOCK = 1024  # rows that are in memory at a time


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Side features of a domain: row i of `matrix` (I, d) belongs to the item `ids[i]`."""

    ids: list[str]
    matrix: np.memmap
    info: dict[str, Any]


class FeatureRows:
    """Rows of a matrix, taken and changed in type only when they are read.

    Stands for a matrix that need not fit into memory: it is read in blocks, by a slice or an array
    of row numbers.

    Args:
        matrix: Features (I, d); may be memory-mapped.
        rows: Which of its rows to take, int64; by default all.
        dtype: The type to give them, of `DTYPES`; by default their own.

    >>> FeatureRows(np.eye(3), np.array([2, 0]), "float16")[0:1]
    array([[0., 0., 1.]], dtype=float16)
    """

    ndim = 2

    def __init__(
        self, matrix: np.ndarray, rows: np.ndarray | None = None, dtype: str | None = None
    ) -> None:
        self.matrix = matrix
        self.rows = np.arange(len(matrix)) if rows is None else rows
        self.dtype = np.dtype(dtype or matrix.dtype)
        self.shape = (len(self.rows), matrix.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        """Read a block of rows (B, d).

        Raises:
            ConfigError: If the type cannot hold a number.
        """
        block = self.matrix[self.rows[part]]
        largest = np.abs(block).max(initial=0)
        if np.isfinite(largest) and largest > np.finfo(self.dtype).max:
            raise ConfigError(
                f"dtype `{self.dtype.name}` cannot hold features as large as {largest:.0f}. Take "
                "--dtype=float32."
            )
        return block.astype(self.dtype)


def advice(kind: str) -> str:
    """Say how to put a store right.

    >>> advice("image")
    'Make the store again with `python -m dataset_tools image`.'
    """
    return f"Make the store again with `python -m dataset_tools {kind}`."


def item_texts(items: pd.DataFrame, fields: Sequence[str]) -> dict[str, str]:
    """Join what is written about each item into one text.

    Args:
        items: Items as `read_items` gives them; the first column is the item.
        fields: The columns to join, in this order; those that the frame lacks are left out.

    Returns:
        The text of each item that has one: fields with single blanks, joined as sentences.

    >>> items = pd.DataFrame({"item_id": ["a", "b"], "title": ["Up ", ""], "text": ["A  bee", ""]})
    >>> item_texts(items, ["title", "text"])
    {'a': 'Up. A bee'}
    """
    columns = [items[field] for field in fields if field in items]
    texts = {
        item: join_sentences(" ".join(cell.split()) for cell in cells)
        for item, *cells in zip(items.iloc[:, 0], *columns, strict=True)
    }
    return {item: text for item, text in texts.items() if text}


def content_hash(ids: Iterable[str], texts: Iterable[str]) -> str:
    """Hash which item has which text, whatever the order of the items.

    Args:
        ids: Items, each once.
        texts: The text of each; items with an empty one count as absent.

    Returns:
        SHA-256 in hexadecimal over the pairs sorted by item, each part led by its length.

    >>> content_hash(["a", "b"], ["x", "y"]) == content_hash(["b", "a", "c"], ["y", "x", ""])
    True
    >>> content_hash(["a"], ["bc"]) == content_hash(["ab"], ["c"])
    False
    """
    digest = hashlib.sha256()
    for pair in sorted(zip(ids, texts, strict=True)):
        if pair[1]:
            for part in pair:
                data = part.encode()
                digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def matrix_hash(ids: Sequence[str], matrix: np.ndarray | FeatureRows) -> str:
    """Hash which item has which row, whatever the order of the rows.

    Args:
        ids: The item of each row, each once.
        matrix: Features (I, d); read in blocks.

    Returns:
        SHA-256 in hexadecimal over type and width and then items and rows, sorted by item, each
        item led by its length.

    >>> rows = np.eye(2, dtype=np.float32)
    >>> matrix_hash(["a", "b"], rows) == matrix_hash(["b", "a"], rows[::-1])
    True
    >>> matrix_hash(["a", "b"], rows) == matrix_hash(["b", "a"], rows)
    False
    """
    digest = hashlib.sha256(f"{matrix.dtype.name} {matrix.shape[1]} ".encode())
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    for part in _blocks(len(ids)):
        for index, row in zip(order[part], matrix[order[part]], strict=True):
            item = ids[index].encode()
            digest.update(b"%d:" % len(item) + item + row.tobytes())
    return digest.hexdigest()


def check_features(name: str, matrix: np.ndarray | FeatureRows) -> None:
    """Read all features, in blocks, to see that they can be stored.

    Args:
        name: Where they are to be stored, for the error.
        matrix: Features (I, d).

    Raises:
        ConfigError: If the type of the rows cannot hold a number.
        DataFormatError: If a number is not finite.
    """
    for part in _blocks(len(matrix)):
        _check_finite(name, matrix[part])


def store_paths(directory: Path, name: str, kind: str) -> tuple[Path, Path, Path]:
    """Say where a store is.

    Args:
        directory: The folder of the domain.
        name: The domain.
        kind: What the features are made of, `text` or `image`.

    Returns:
        The files of the matrix, of the items and of the description.
    """
    npy, ids, description = (directory / f"{name}.{kind}.{end}" for end in ("npy", "ids", "json"))
    return npy, ids, description


def write_store(
    directory: Path,
    name: str,
    kind: str,
    ids: Sequence[str],
    matrix: np.ndarray | FeatureRows,
    info: dict[str, Any],
) -> None:
    """Write a feature store in place of the one that may be there.

    The description is removed before the first file is replaced and comes back last, so a crash in
    between leaves a store that does not open, never one made of two.

    Args:
        directory: The folder of the domain.
        name: The domain.
        kind: What the features are made of, `text` or `image`.
        ids: The item of each row, each once.
        matrix: Features, float16 or float32 (I, d), all finite; read in blocks.
        info: The description, with `INFO_KEYS`; `dim` and `dtype` are added.

    Raises:
        DataFormatError: If ids and matrix are no valid store.
        ConfigError: If the folder cannot be written to.
    """
    npy, lines, description = store_paths(directory, name, kind)
    _check(npy.name, kind, ids, matrix)
    info = info | {"dim": matrix.shape[1], "dtype": matrix.dtype.name}
    # The three take their places in reverse order, the description last.
    with atomic_path(description) as d, atomic_path(lines) as i, atomic_path(npy) as n:
        _write_matrix(n, npy.name, matrix)
        i.write_text("".join(f"{item}\n" for item in ids), encoding="utf-8", newline="\n")
        d.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8", newline="\n")
        description.unlink(missing_ok=True)


def read_store(directory: Path, name: str, kind: str = "text") -> FeatureStore:
    """Open a feature store without reading its matrix into memory.

    Args:
        directory: The folder of the domain.
        name: The domain.
        kind: What the features are made of.

    Returns:
        The store. That its content hash still holds is for the caller to compare: by
        `content_hash` of the domain's texts, or by `matrix_hash` of a store of images.

    Raises:
        DataFormatError: If a file is missing or broken, or the files do not fit each other.
    """
    paths = store_paths(directory, name, kind)
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataFormatError(
            f"{directory}: there is no {' and no '.join(missing)}. {advice(kind)}"
        )
    npy, lines, description = paths
    info = _read_info(description, kind)
    try:
        matrix = np.load(npy, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python, which fails in many ways
        reason = " ".join(str(error).split())
        raise DataFormatError(
            f"{npy.name}: is damaged or no matrix ({reason}). {advice(kind)}"
        ) from error
    try:
        ids = lines.read_text(encoding="utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise DataFormatError(f"{lines.name}: is not UTF-8 ({error}). {advice(kind)}") from error
    _check(npy.name, kind, ids, matrix)
    if (matrix.shape[1], matrix.dtype.name) != (info["dim"], info["dtype"]):
        raise DataFormatError(
            f"{npy.name}: is {matrix.dtype.name} with {matrix.shape[1]} columns, but "
            f"{description.name} says {info['dtype']} with {info['dim']}. {advice(kind)}"
        )
    return FeatureStore(ids, matrix, info)


def join_sentences(parts: Iterable[str]) -> str:
    """Join the parts that are not empty as sentences.

    >>> join_sentences(["Up", "", "Who flies?", "A house"])
    'Up. Who flies? A house'
    """
    text = ""
    for part in filter(None, parts):
        gap = "" if not text else " " if text[-1] in ".!?:;" else ". "
        text += gap + part
    return text


def _blocks(rows: int) -> Iterator[slice]:
    """Cut rows into parts that fit into memory."""
    return (slice(start, start + BLOCK) for start in range(0, rows, BLOCK))


def _write_matrix(path: Path, name: str, matrix: np.ndarray | FeatureRows) -> None:
    """Write what `np.save` would, block by block."""
    header = {
        "descr": np.lib.format.dtype_to_descr(matrix.dtype),
        "fortran_order": False,
        "shape": matrix.shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in _blocks(len(matrix)):
            block = matrix[part]
            _check_finite(name, block)
            file.write(block.tobytes())


def _check_finite(name: str, block: np.ndarray) -> None:
    """Refuse numbers that are none."""
    if not np.isfinite(block).all():
        raise DataFormatError(
            f"{name}: features are not finite. If they are float16, use `--dtype=float32`."
        )


def _check(name: str, kind: str, ids: Sequence[str], matrix: np.ndarray | FeatureRows) -> None:
    """Refuse items and features that do not fit each other."""
    if matrix.ndim != 2 or matrix.dtype.name not in DTYPES:
        raise DataFormatError(
            f"{name}: must be a matrix of {' or '.join(DTYPES)}, but has shape {matrix.shape} and "
            f"type {matrix.dtype.name}. {advice(kind)}"
        )
    if len(matrix) != len(ids):
        raise DataFormatError(
            f"{name}: has {len(matrix)} rows, but there are {len(ids)} item ids. {advice(kind)}"
        )
    seen: set[str] = set()
    for row, item in enumerate(ids, start=1):
        if item in seen or not item or "\n" in item:
            what = f"{item!r} stands there twice" if item in seen else f"{item!r} is no item"
            raise DataFormatError(f"{name}: item ids, line {row}: {what}. {advice(kind)}")
        seen.add(item)


def _read_info(path: Path, kind: str) -> dict[str, Any]:
    """Read the description of a store."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFormatError(f"{path.name}: is no JSON ({error}). {advice(kind)}") from error
    known = info if isinstance(info, dict) else {}
    lacking = [key for key in (*INFO_KEYS, "dim", "dtype") if key not in known]
    if not lacking and not _is_list_of_text(known["fields"]):
        raise DataFormatError(f"{path.name}: `fields` is no list of names. {advice(kind)}")
    if lacking:
        raise DataFormatError(
            f"{path.name}: says nothing of `{'`, `'.join(lacking)}`. {advice(kind)}"
        )
    return known


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
