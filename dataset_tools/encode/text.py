"""Item texts to text features: the command `text`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataset_tools.atomic import read_items
from dataset_tools.domains import domains_of
from dataset_tools.encode.part_file import resumed_rows
from dataset_tools.encode.text_encoders import TextEncoder, load_text_encoder
from dataset_tools.feature_store import (
    DTYPES,
    FeatureRows,
    check_features,
    content_hash,
    item_texts,
    store_paths,
    write_store,
)
from dataset_tools.manifest import MANIFEST, describe_file, write_manifest
from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import ConfigError, DataFormatError

TEXT_FIELDS = ("title", "text")
DEFAULT_ENCODER = "bert-base-uncased"  # the paper's


@dataclass(frozen=True)
class EncodedDomain:
    """What became of a domain's texts, for the summary."""

    name: str
    items: int
    with_text: int
    truncated: int
    dim: int
    folder: Path


def encode_dataset(
    data_path: Path,
    dataset: str,
    encoder: str = DEFAULT_ENCODER,
    *,
    feature_path: Path | None = None,
    fields: Sequence[str] | None = None,
    dtype: str = "float32",
    **options: Any,
) -> list[EncodedDomain]:
    """Encode the item texts of a domain, or of both domains of a pair, and store them.

    Identical texts are encoded once, the longest first. What a killed call has encoded lies in a
    hidden part file in the folder of the first store, and the next call goes on from there.

    Args:
        data_path: The folder of the domains.
        dataset: A domain or a pair.
        encoder: `lsa`, `minilm`, or any name or folder that transformers knows.
        feature_path: Where stores go, to `<feature_path>/<domain>/`; without it, beside the domain.
        fields: Columns of the `.item` files that make the text. By default those of `title` and
            `text` that are there.
        dtype: Of the stored features, `float16` or `float32`.
        **options: Of `TransformerEncoder`.

    Returns:
        A summary of each domain.

    Raises:
        ConfigError: If an option or the encoder cannot be used, or another process encodes the
            same data set.
        DataFormatError: If a domain is missing or malformed, or no item has a text.
    """
    check_choice("dtype", dtype, DTYPES)
    domains = domains_of(data_path, dataset)
    frames = {name: _read_items(data_path, name, fields) for name in domains}
    _check_fields(frames, fields)
    used = list(fields or TEXT_FIELDS)
    texts = {name: item_texts(frame, used) for name, frame in frames.items()}
    work = _Work.of(texts, encoder, used, options)
    folders = {name: (feature_path or data_path) / name for name in domains}
    with resumed_rows(
        folders[domains[0]] / f".{dataset}.text.part",
        work.key(),
        (len(work.texts), work.model.dim),
        work.model.batch_size,
        lambda part: work.model.encode(work.texts[part]),
        "text",
    ) as matrix:
        check_features(dataset, FeatureRows(matrix, dtype=dtype))  # before the first store is new
        inputs = [path for name in domains if (path := _item_path(data_path, name)).is_file()]
        return [
            work.store(folders[name], name, frames[name], texts[name], matrix, dtype, inputs)
            for name in domains
        ]


@dataclass(frozen=True, eq=False)
class _Work:
    """The texts to encode, in the order in which they are encoded, and what encodes them."""

    encoder: str
    model: TextEncoder
    fields: list[str]
    texts: list[str]
    lengths: np.ndarray
    tokens: str

    @classmethod
    def of(
        cls,
        texts: dict[str, dict[str, str]],
        encoder: str,
        fields: list[str],
        options: dict[str, Any],
    ) -> _Work:
        """Put the texts of all domains in order; it does not depend on that of the items."""
        if not any(texts.values()):
            raise DataFormatError(
                f"No item of {' or '.join(f'`{name}`' for name in texts)} has a text in the fields "
                f"{', '.join(fields)} of its .item file. Add texts, or train with "
                "--item_features=id."
            )
        unique = sorted({text for of_items in texts.values() for text in of_items.values()})
        model = load_text_encoder(encoder, unique, options)
        lengths, tokens = model.measure(unique)
        order = np.argsort(-lengths, kind="stable")  # the longest first, equals by their texts
        ordered = [unique[row] for row in order]
        return cls(encoder, model, fields, ordered, lengths[order], tokens)

    def settings(self) -> dict[str, Any]:
        """What the encoding was told, defaults included."""
        return {
            "encoder": self.encoder,
            "pooling": self.model.pooling,
            "fields": self.fields,
            "max_length": self.model.max_length,
            "batch_size": self.model.batch_size,
            "device": self.model.device,
        }

    def key(self) -> dict[str, Any]:
        """All that decides the rows."""
        return {
            **self.settings(),
            "revision_or_hash": self.model.revision_or_hash,
            "texts": content_hash(map(str, range(len(self.texts))), self.texts),
            "tokens": self.tokens,
        }

    def store(
        self,
        folder: Path,
        name: str,
        items: pd.DataFrame,
        texts: dict[str, str],
        matrix: np.ndarray,
        dtype: str,
        inputs: list[Path],
    ) -> EncodedDomain:
        """Write the store of a domain, and its manifest."""
        row_of = {text: row for row, text in enumerate(self.texts)}
        rows = np.array([row_of[text] for text in texts.values()], dtype=np.int64)
        counts = {
            "items": len(items),
            "with_text": len(rows),
            "truncated": int((self.lengths[rows] > self.model.max_length).sum()),
        }
        info = {
            "encoder": self.encoder,
            "revision_or_hash": self.model.revision_or_hash,
            "pooling": self.model.pooling,
            "fields": self.fields,
            "counts": counts,
            "content_hash": content_hash(texts.keys(), texts.values()),
        }
        write_store(folder, name, "text", list(texts), FeatureRows(matrix, rows, dtype), info)
        write_manifest(
            folder / f"{name}.text{MANIFEST}",
            "text",
            {"dataset": name, **self.settings(), "dtype": dtype},
            [describe_file(path) for path in inputs],
            counts,
            [describe_file(path) for path in store_paths(folder, name, "text")],
        )
        return EncodedDomain(name, **counts, dim=matrix.shape[1], folder=folder)


def _item_path(data_path: Path, name: str) -> Path:
    return data_path / name / f"{name}.item"


def _read_items(data_path: Path, name: str, fields: Sequence[str] | None) -> pd.DataFrame:
    """Items of a domain; none if it has no `.item` file."""
    path = _item_path(data_path, name)
    if not path.is_file():
        return pd.DataFrame({"item_id": []}, dtype=str)
    return read_items(path, fields=fields or TEXT_FIELDS)


def _check_fields(frames: dict[str, pd.DataFrame], fields: Sequence[str] | None) -> None:
    """Refuse a field that was asked for and that no domain has."""
    there = {field: None for frame in frames.values() for field in frame.columns[1:]}
    for field in fields or ():
        if field not in there:
            names = " or ".join(f"{name}.item" for name in frames)
            raise ConfigError(f"fields: there is no column `{field}` in {names}.")
