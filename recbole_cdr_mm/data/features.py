"""Side features of a pair's items, aligned by item token and never by position."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dataset_tools.feature_store import (
    ALIKE,
    FeatureStore,
    advice,
    matrix_hash,
    read_store,
)
from recbole_cdr_mm.data.loading_cache import ItemTexts
from recbole_cdr_mm.data.pair import DomainName, Pair
from recbole_cdr_mm.errors import DataFormatError

FeatureKind = Literal["text", "image"]

_ITEMS_AT_ONCE = 1 << 14  # whose features are held twice


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Features of all items of a pair.

    Attributes:
        matrix: float32 (I, d). The rows of items that are not known, and that of padding, say
            nothing: they are zeros, or another domain's where that has been read before.
        known: Which items of the domains asked for have features, bool (I,).
    """

    matrix: NDArray[np.float32]
    known: NDArray[np.bool_]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the features: what a checkpoint must agree with."""
        digest = hashlib.sha256(self.matrix.data)
        digest.update(self.known.data)
        return digest.hexdigest()[:16]

    def of(self, items: Sequence[slice]) -> ItemFeatures:
        """The same matrix, of which only some ranges of items are known."""
        known = np.zeros_like(self.known)
        for ids in items:
            known[ids] = self.known[ids]
        return ItemFeatures(self.matrix, known)


@dataclass(frozen=True, eq=False)
class DomainFeatures:
    """Where the features of a domain's items are, and what they were made of.

    Attributes:
        name: The domain.
        kind: `text` or `image`.
        texts: Gives the texts that the given fields of its `.item` file make.
        store_folder: The folder of its feature store.
        command: What makes the store.
    """

    name: str
    kind: FeatureKind
    texts: Callable[[Sequence[str]], ItemTexts]
    store_folder: Path
    command: str


def load_features(pair: Pair, domains: Mapping[DomainName, DomainFeatures]) -> ItemFeatures:
    """Join the feature stores of one or both domains to a pair's items.

    Args:
        pair: The pair.
        domains: The domains' stores, all of one kind.

    Raises:
        DataFormatError: If a store is missing, damaged, of other items or texts, or of another
            encoder or width than the other domain's. The message gives the command that makes it.
    """
    stores = {domain: _open_store(source) for domain, source in domains.items()}
    _check_alike(stores, domains)
    width = next(iter(stores.values())).matrix.shape[1]
    matrix = np.zeros((pair.n_items, width), dtype=np.float32)
    known = np.zeros(pair.n_items, dtype=bool)
    for domain, store in stores.items():
        row_of = {token: row for row, token in enumerate(store.ids)}
        ids = pair.items(domain)
        rows = np.array([row_of.get(token, -1) for token in pair.item_tokens[ids]], dtype=np.int64)
        with_row = np.flatnonzero(rows >= 0)
        if not len(with_row):
            source = domains[domain]
            raise DataFormatError(
                f"{_file(source)} has no row for any item of {source.name}."
                f" Make it again with: {source.command}"
            )
        for part in np.array_split(with_row, 1 + len(with_row) // _ITEMS_AT_ONCE):
            found = torch.from_numpy(store.matrix[rows[part]])  # NumPy is slow with float16
            torch.from_numpy(matrix)[ids.start + part] = found.float()
        known[ids.start + with_row] = True
    return ItemFeatures(matrix, known)


def _open_store(source: DomainFeatures) -> FeatureStore:
    try:
        store = read_store(source.store_folder, source.name, source.kind)
    except DataFormatError as error:
        problem = str(error).removesuffix(advice(source.kind)).strip()
        raise DataFormatError(
            f"{problem} Make the {source.kind} features with: {source.command}"
        ) from error
    check = {"text": _check_texts, "image": _check_matrix}
    check[source.kind](source, store)
    return store


def _check_texts(source: DomainFeatures, store: FeatureStore) -> None:
    found = source.texts(store.info["fields"])
    if found.content_hash != store.info["content_hash"] or found.items != set(store.ids):
        raise DataFormatError(
            f"{_file(source)} was made from other texts than those of"
            f" {source.name}.item: {_difference(set(store.ids), found.items)}."
            f" Make it again with: {source.command}"
        )


def _check_matrix(source: DomainFeatures, store: FeatureStore) -> None:
    if matrix_hash(store.ids, store.matrix) != store.info["content_hash"]:
        raise DataFormatError(
            f"{_file(source)}: its rows or items are not those that were written."
            f" Make it again with: {source.command}"
        )


def _file(source: DomainFeatures) -> str:
    return f"{source.store_folder / source.name}.{source.kind}.npy"


def _difference(stored: set[str], present: frozenset[str]) -> str:
    if stored == present:
        return "the items are the same, their texts are not"
    return (
        f"{len(stored - present)} of its {len(stored)} items are not there with a text, and"
        f" {len(present - stored)} of {len(present)} items with a text are not in it"
    )


def _check_alike(
    stores: Mapping[DomainName, FeatureStore], domains: Mapping[DomainName, DomainFeatures]
) -> None:
    first, *others = domains
    for other in others:
        for key in ALIKE[domains[other].kind]:
            one, another = stores[first].info[key], stores[other].info[key]
            if one != another:
                raise DataFormatError(
                    f"The {domains[other].kind} features of {domains[first].name} have {key} {one},"
                    f" those of {domains[other].name} have {key} {another}; both domains need the"
                    f" same. Make them again with: {domains[other].command}"
                )
