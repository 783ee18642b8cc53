"""Rows that outlive the process that makes them, so that a later call goes on where it stopped.

The rows that are done lie in a hidden file `.<dataset>.<kind>.part`, each with a checksum, and
beside it lies `.part.json`, which says what they were made from. A row that a killed process has
half written, or that a power cut has left empty, has no right checksum and is made again.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dataset_tools.manifest import read_object
from dataset_tools.safe_output import atomic_path, locked
from recbole_cdr_mm.errors import ConfigError

SYNC_SECONDS = 30.0  # what a power cut may cost; a killed process loses no whole batch
PACKAGES = ("numpy", "pillow", "scikit-learn", "tokenizers", "torch", "transformers")


@contextmanager
def resumed_rows(
    path: Path,
    key: Mapping[str, Any],
    shape: tuple[int, int],
    batch_size: int,
    encode: Callable[[slice], np.ndarray],
    unit: str,
) -> Iterator[np.ndarray]:
    """Make rows in batches, but for those that an earlier call with the same key has made.

    Args:
        path: The part file. It is removed at the end of a `with` block that went well.
        key: All that decides the rows, as plain values; the versions of `PACKAGES` are added.
            Rows of another key are thrown away.
        shape: How many rows and columns there are, I and d; at least one row.
        batch_size: Rows a step. Batches are the same wherever a call goes on.
        encode: Makes the rows of a slice, float32 (B, d).
        unit: What a row is made from, for messages.

    Yields:
        All rows, float32 (I, d), memory-mapped.

    Raises:
        ConfigError: If another process makes the same rows, or the folder cannot be written to.
    """
    rows, columns = shape
    record = np.dtype([("row", "<f4", (columns,)), ("checksum", "<u4")])
    with locked(path, "--feature_path"):
        done = _earlier_rows(path, _with_versions(key), record)
        if done < rows:
            done -= done % batch_size
        if done:
            print(f"Goes on after {done:,} of {rows:,} {unit}s of an earlier run.", file=sys.stderr)
        with path.open("r+b") as file:
            file.truncate(done * record.itemsize)
            file.seek(0, os.SEEK_END)
            bar = tqdm(total=rows, initial=done, unit=unit, desc="encode", disable=None)
            synced = time.monotonic()
            with bar:
                for start in range(done, rows, batch_size):
                    part = slice(start, min(start + batch_size, rows))
                    data = _records(encode(part), record)
                    with _explained(path):
                        file.write(data)
                        file.flush()
                        if time.monotonic() - synced > SYNC_SECONDS:
                            os.fsync(file.fileno())
                            synced = time.monotonic()
                    bar.update(part.stop - part.start)
        yield np.memmap(path, record, mode="r", shape=(rows,))["row"]
        path.unlink()
        _key_path(path).unlink()


def _earlier_rows(path: Path, key: dict[str, Any], record: np.dtype) -> int:
    """Count the rows there are of this key; without one, begin a part file and its key."""
    key_path = _key_path(path)
    earlier = read_object(key_path)
    if earlier == key and path.is_file():
        return _whole_rows(path, record)
    if earlier:
        other = ", ".join(name for name in key if key[name] != earlier.get(name)) or "part file"
        print(f"Starts anew, for an earlier run had other settings: {other}.", file=sys.stderr)
    with _explained(path):
        path.unlink(missing_ok=True)  # first, so that no rows lie beside a key that is not theirs
        with atomic_path(key_path) as temporary:
            temporary.write_text(json.dumps(key, indent=2) + "\n", encoding="utf-8")
        path.touch()
    return 0


def _whole_rows(path: Path, record: np.dtype) -> int:
    """Count the rows from the first one on whose checksum is right."""
    count = path.stat().st_size // record.itemsize
    if not count:
        return 0  # an empty file cannot be mapped
    records = np.asarray(np.memmap(path, record, mode="r", shape=(count,)))
    for index, (row, checksum) in enumerate(zip(records["row"], records["checksum"], strict=True)):
        if zlib.crc32(row) != checksum:
            return index
    return count


def _records(rows: np.ndarray, record: np.dtype) -> bytes:
    """Rows (B, d) with their checksums."""
    records = np.empty(len(rows), dtype=record)
    records["row"] = rows
    records["checksum"] = [zlib.crc32(row) for row in records["row"]]
    return records.tobytes()


def _with_versions(key: Mapping[str, Any]) -> dict[str, Any]:
    """Add what is installed, and take the detour over JSON that the earlier key has taken."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return json.loads(json.dumps({**key, "versions": versions}))


def _key_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: cannot write here ({error.strerror}). Choose another folder as "
            "--feature_path, or allow writing to this one."
        ) from error
