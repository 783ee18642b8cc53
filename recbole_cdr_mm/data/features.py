"""Text features of a pair's items, aligned by item token and never by position."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dataset_tools.feature_store import ADVICE, FeatureStore, content_hash, item_texts, read_store
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

    @property
    def fingerprint(self) -> str:
        """A hash of the features: what a checkpoint must agree with."""
        digest = hashlib.sha256(self.matrix.tobytes())
        digest.update(self.known.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class DomainTexts:
    """Where a domain's texts and their features are.

    Attributes:
        name: The domain.
        read_items: Reads the given fields of its `.item` file.
        store_folder: The folder of its feature store.
        command: What makes the store.
    """

    name: str
    read_items: Callable[[Sequence[str]], pd.DataFrame]
    store_folder: Path
    command: str


def load_text_features(pair: Pair, domains: Mapping[DomainName, DomainTexts]) -> ItemFeatures:
    """Join the feature stores of one or both domains to a pair's items.

    Args:
        pair: The pair.
        domains: The domains' texts and stores.

    Raises:
        DataFormatError: If a store is missing, damaged, of other items or texts, or of another
            encoder or width than the other domain's. The message gives the command that makes it.
    """
    stores = {domain: _open_store(texts) for domain, texts in domains.items()}
    _check_alike(stores, domains)
    width = next(iter(stores.values())).matrix.shape[1]
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
        problem = str(error).removesuffix(ADVICE).strip()
        raise DataFormatError(f"{problem} Make the text features with: {texts.command}") from error
    fields = store.info["fields"]
    by_token = item_texts(texts.read_items(fields), fields)
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
    first, *others = domains
    for key, other in itertools.product(("encoder", "revision_or_hash", "pooling", "dim"), others):
        one, another = stores[first].info[key], stores[other].info[key]
        if one != another:
            raise DataFormatError(
                f"The text features of {domains[first].name} have {key} {one}, those of"
                f" {domains[other].name} have {key} {another}; both domains need the same."
                f" Make them again with: {domains[other].command}"
            )
