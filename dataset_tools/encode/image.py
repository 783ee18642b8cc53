"""Amazon's image features of the 2014 release to a feature store: `image --features=FILE`.

A file `image_features_X.b` is records back to back: the ten characters of an asin, then 4096
float32, little-endian. It is read in blocks, for it is larger than memory.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NoReturn

import numpy as np
from tqdm import tqdm

from dataset_tools.domains import items_of, refuse_pair
from dataset_tools.feature_store import DTYPES, matrix_hash, store_paths, write_store
from dataset_tools.manifest import MANIFEST, describe_file, write_manifest
from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import ConfigError, DataFormatError

ENCODER = "amazon-2014"
ASIN_SIZE = 10
DIM = 4096
RECORD = np.dtype([("asin", "u1", (ASIN_SIZE,)), ("features", "<f4", (DIM,))])
BLOCK = 256  # records that are in memory at a time, 4 MB
GZIP_MAGIC = b"\x1f\x8b"
RELEASE = "Is it image_features_X.b of the 2014 release?"


@dataclass(frozen=True)
class StoredImages:
    """What became of a domain's images, for the summary."""

    items: int
    with_image: int
    records: int
    folder: Path


def store_images(
    features: Path,
    dataset: str,
    data_path: Path,
    *,
    feature_path: Path | None = None,
    dtype: str = "float32",
) -> StoredImages:
    """Store the image features of a domain's items, those of its `.inter` and its `.item` file.

    Nothing is written before everything is read; until then rows wait in a nameless file beside
    the store to be, which ends with the process.

    Args:
        features: `image_features_X.b`, packed or not. An item that stands there twice must have
            the same features both times.
        dataset: The domain.
        data_path: The folder of the domains.
        feature_path: Where the store goes, to `<feature_path>/<domain>/`; without it, beside the
            domain.
        dtype: Of the stored features, `float16` or `float32`.

    Returns:
        Counts of what was read and stored.

    Raises:
        ConfigError: If an option cannot be used, `dataset` is a pair, or the store cannot be
            written.
        DataFormatError: If a file is missing, cut off or malformed, or has no item of the domain;
            names the record, counted from 1, and its first byte in the unpacked file.
    """
    check_choice("dtype", dtype, DTYPES)
    refuse_pair(
        data_path,
        dataset,
        "a file has the images of one category",
        "--features=image_features_X.b",
    )
    items = items_of(data_path, dataset)
    folder = (feature_path or data_path) / dataset
    records = _Records(features)
    with _nameless_file(folder) as rows:
        ids = _keep_rows(records, items, rows, np.dtype(dtype))
        if not ids:
            raise DataFormatError(
                f"{features.name}: has no item of `{dataset}`: there it is for example "
                f"{records.first!r}, here {min(items)!r}. Take the file of this domain's category."
            )
        matrix = np.memmap(rows, dtype=dtype, mode="r", shape=(len(ids), DIM))  # (I, d)
        counts = {"items": len(items), "with_image": len(ids), "records": records.count}
        info = {
            "encoder": ENCODER,
            "revision_or_hash": f"sha256:{records.digest.hexdigest()}",
            "pooling": "none",
            "fields": [],
            "counts": counts,
            "content_hash": matrix_hash(ids, matrix),
        }
        write_store(folder, dataset, "image", ids, matrix, info)
    write_manifest(
        folder / f"{dataset}.image{MANIFEST}",
        "image",
        {"dataset": dataset, "dtype": dtype},
        [describe_file(features)],
        counts,
        [describe_file(path) for path in store_paths(folder, dataset, "image")],
    )
    return StoredImages(**counts, folder=folder)


class _Records:
    """The records of a file, read once, in blocks.

    Attributes:
        count: Records read so far.
        first: The first item.
        digest: SHA-256 over the unpacked bytes read so far.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataFormatError(f"{path}: there is no such file. Correct --features.")
        self.path = path
        self.count = 0
        self.first = ""
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Items and features, float32 (B, d), of each block."""
        for data in self._blocks():
            self.digest.update(data)
            whole = len(data) // RECORD.itemsize
            block = np.frombuffer(data, dtype=RECORD, count=whole)
            items = self._read_items(block["asin"])
            if rest := len(data) % RECORD.itemsize:
                self.refuse(
                    whole,
                    f"the file ends after {rest:,} of the record's {RECORD.itemsize:,} bytes. "
                    f"{RELEASE} Then download it again.",
                )
            self.first = self.first or items[0]
            yield items, block["features"]
            self.count += whole
        if not self.count:
            raise DataFormatError(f"{self.path.name}: is empty. Download it again.")

    def refuse(self, index: int, what: str) -> NoReturn:
        """Raise the error for a record of the block that was read last."""
        record = self.count + index
        raise DataFormatError(
            f"{self.path.name}, record {record + 1:,}, byte {record * RECORD.itemsize:,}: {what}"
        )

    def _read_items(self, asins: np.ndarray) -> list[str]:
        """Read asins, uint8 (B, 10), as text."""
        unprintable = ((asins <= ord(" ")) | (asins > ord("~"))).any(axis=1)  # (B,)
        if unprintable.any():
            index = int(unprintable.argmax())
            self.refuse(
                index, f"{asins[index].tobytes()!r} is no asin of ten characters. {RELEASE}"
            )
        text = asins.tobytes().decode("ascii")
        return [text[start : start + ASIN_SIZE] for start in range(0, len(text), ASIN_SIZE)]

    def _blocks(self) -> Iterator[bytes]:
        """Contents of the file, unpacked: whole records, but for the last block of a cut file."""
        try:
            with self.path.open("rb") as raw:
                packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
                raw.seek(0)
                file = gzip.open(raw) if packed else raw
                size = os.fstat(raw.fileno()).st_size
                bar = tqdm(total=size, unit="B", unit_scale=True, desc="read", disable=None)
                with bar:
                    while data := file.read(BLOCK * RECORD.itemsize):
                        yield data
                        bar.update(raw.tell() - bar.n)
        except EOFError:
            self.refuse(0, "the packed file ends here or soon after. Download it again.")
        except (gzip.BadGzipFile, zlib.error) as error:
            self.refuse(
                0, f"here or soon after is no sound gzip file ({error}). Download it again."
            )
        except OSError as error:
            raise DataFormatError(f"{self.path}: cannot be read ({error.strerror}).") from error


def _keep_rows(records: _Records, items: set[str], rows: IO[bytes], dtype: np.dtype) -> list[str]:
    """Copy the features of the wanted items to a file; give the item of each row."""
    row_of: dict[str, int] = {}
    for block_items, block in records:
        for index, item in enumerate(block_items):
            if item not in items:
                continue
            row = _cast(records, index, item, block[index], dtype).tobytes()
            if item not in row_of:
                row_of[item] = len(row_of)
                rows.write(row)
            elif row != _row(rows, row_of[item], len(row)):
                records.refuse(
                    index,
                    f"{item!r} stands in an earlier record with other features. "
                    "Download the file again.",
                )
    rows.flush()
    return list(row_of)


def _cast(
    records: _Records, index: int, item: str, features: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    """Change the type of an item's features (d,); refuse what is no number or too large."""
    largest = np.abs(features).max()
    if not np.isfinite(largest):
        records.refuse(index, f"the features of {item!r} are not finite. Download the file again.")
    if largest > np.finfo(dtype).max:
        raise ConfigError(
            f"dtype `{dtype}` cannot hold features as large as {largest:.0f}, those of {item!r}. "
            "Take --dtype=float32."
        )
    return features.astype(dtype)


def _row(rows: IO[bytes], row: int, size: int) -> bytes:
    """Read a row back and return to the end of the file."""
    rows.seek(row * size)
    data = rows.read(size)
    rows.seek(0, os.SEEK_END)
    return data


@contextmanager
def _nameless_file(folder: Path) -> Iterator[IO[bytes]]:
    """Give a file in the folder, which is made where it is missing, that no one else can see."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = TemporaryFile(dir=folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot write here ({error.strerror}). Choose another folder as "
            "--feature_path, or allow writing to this one."
        ) from error
    with file:
        yield file
