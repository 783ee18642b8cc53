"""Item texts as features: centred, and what they let expect of items that nobody has rated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_cdr_mm.layers.ridge_regression import decompose


def centred_texts(features: Tensor, known: Tensor) -> Tensor:
    """Text features at unit length, centred over the items that have any, and at unit length again.

    Args:
        features: (I, d); rows that are not known are not read.
        known: Which items have texts, bool (I,).

    Returns:
        (I, d); zeros for items without texts.
    """
    texts = normalize(features)  # the one copy, which all else is done in
    texts -= known.to(texts.dtype) @ texts / known.sum()
    return normalize(texts, out=texts).masked_fill_(~known.unsqueeze(1), 0.0)


def expected_from_texts(texts: Tensor, values: Tensor, seen: Tensor, *, penalty: float) -> Tensor:
    """What texts let expect of values that are known of other items, by a ridge regression.

    Args:
        texts: Of all items, (I, d); zeros for items without one.
        values: Of all items, (I, p); those of unseen items are not read.
        seen: Whose values are known, bool (I,).
        penalty: In mean squared lengths of a text; see `RidgeRegression`.

    Returns:
        Expected values of the unseen items (Q, p): of one without a text the mean over seen items
        without one, and the mean over all seen items where there is nothing better.

    >>> texts = torch.tensor([[1.0], [-1.0], [0.5], [0.0]])
    >>> values, seen = torch.tensor([[4.0], [2.0], [0.0], [0.0]]), torch.arange(4) < 2
    >>> expected_from_texts(texts, values, seen, penalty=1.0).flatten()
    tensor([3.3333, 3.0000])
    """
    has_text = texts.any(1)  # (I,)
    told, silent = seen & has_text, seen & ~has_text
    query = texts[~seen]  # (Q, d)
    expected = values[silent if silent.any() else seen].mean(0).repeat(len(query), 1)  # (Q, p)
    if told.any():
        ridge, known = decompose(texts[told]), values[told]  # known (n, p)
        moment = ridge.features.T.to(known.dtype) @ known  # (r, p)
        shrunk = ridge.shrinkage(penalty).to(known.dtype).unsqueeze(1) * moment  # (r, p)
        weights = ridge.rotation.to(known.dtype) @ shrunk  # (d, p)
        of_texts = known.mean(0) + (query - ridge.centre.to(known.dtype)) @ weights
        expected = torch.where(has_text[~seen].unsqueeze(1), of_texts, expected)
    return expected
