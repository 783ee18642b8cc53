"""Text features of a pair's items, aligned by item token and never by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_tools.feature_store import FeatureStore, content_hash, item_texts, read_store
from recbole_cdr_mm.data.pair import DomainName, Pair
from recbole_cdr_mm.errors import DataFormatError


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Features of all items of a pair.

    Attributes:
        matrix: float32 (I, d); a row of zeros for padding and for items without features.
        known: Which items have features, bool (I,).
    """

    matrix: NDArray[np.float32]
    known: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class DomainTexts:
    """Where a domain's texts are: its name, the frame of its `.item` file, its store's folder."""

    name: str
    items: object  # pandas.DataFrame with item_id, title, text; None without an `.item` file
    store_folder: Path
    command: str


def load_text_features(pair: Pair, domains: Mapping[DomainName, DomainTexts]) -> ItemFeatures:
    """Join both domains' feature stores to a pair's items.

    Args:
        pair: The pair.
        domains: Both domains' texts and stores.

    Raises:
        DataFormatError: If a store is missing, damaged, of other items or texts, or of another
            encoder or width than the other domain's. The message gives the command that makes it.
    """
    stores = {domain: _open_store(texts) for domain, texts in domains.items()}
    _check_alike(stores, domains)
    width = stores["source"].matrix.shape[1]
    matrix = np.zeros((pair.n_items, width), dtype=np.float32)
    known = np.zeros(pair.n_items, dtype=bool)
    for domain, store in stores.items():
        row_of = {token: row for row, token in enumerate(store.ids)}
        ids = pair.items(domain)
        rows = np.array([row_of.get(token, -1) for token in pair.item_tokens[ids]], dtype=np.int64)
        with_row = np.flatnonzero(rows >= 0)
        matrix[ids.start + with_row] = store.matrix[rows[with_row]]
        known[ids.start + with_row] = True
    return ItemFeatures(matrix, known)


def _open_store(texts: DomainTexts) -> FeatureStore:
    try:
        store = read_store(texts.store_folder, texts.name, "text")
    except DataFormatError as error:
        raise DataFormatError(f"{error} Make the text features with: {texts.command}") from error
    by_token = item_texts(texts.items, store.info["fields"])
    found = content_hash(list(by_token), list(by_token.values()))
    if found != store.info["content_hash"] or set(store.ids) != set(by_token):
        raise DataFormatError(
            f"{texts.store_folder / texts.name}.text.npy was made from other texts than those of"
            f" {texts.name}.item: {_difference(set(store.ids), set(by_token))}."
            f" Make it again with: {texts.command}"
        )
    return store


def _difference(stored: set[str], present: set[str]) -> str:
    if stored == present:
        return "the items are the same, their texts are not"
    return (
        f"{len(stored - present)} of its {len(stored)} items are not there with a text, and"
        f" {len(present - stored)} of {len(present)} items with a text are not in it"
    )


def _check_alike(
    stores: Mapping[DomainName, FeatureStore], domains: Mapping[DomainName, DomainTexts]
) -> None:
    for key in ("encoder", "revision_or_hash", "pooling", "dim"):
        source, target = (stores[domain].info[key] for domain in ("source", "target"))
        if source != target:
            raise DataFormatError(
                f"The text features of {domains['source'].name} have {key} {source}, those of"
                f" {domains['target'].name} have {key} {target}; both domains need the same."
                f" Make them again with: {domains['target'].command}"
            )
