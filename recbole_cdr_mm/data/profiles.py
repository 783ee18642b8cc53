"""What a user's source history says about the user, for errors by group of users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_tools.biases import fit_biases
from recbole_cdr_mm.data.pair import Pair

# As BiasTransfer's defaults, so that two runs with other values have the same groups.
_ROUNDS, _ITEM_SHRINKAGE, _USER_SHRINKAGE = 10, 3.0, 5.0


@dataclass(frozen=True, eq=False)
class UserProfiles:
    """Properties of users in the source domain, by user id.

    Attributes:
        history_length: Source ratings, int64 (U,).
        generosity: Regularised user bias in the source domain, in stars, float32 (U,).
        mainstream: Taste: the mean over the user's source items of the share of source items that
            have fewer ratings, float32 (U,). 0: only the least rated items, near 1: only the most
            rated; nan without ratings.
    """

    history_length: NDArray[np.int64]
    generosity: NDArray[np.float32]
    mainstream: NDArray[np.float32]


def user_profiles(pair: Pair) -> UserProfiles:
    """Describe all users of a pair by their source ratings, liked or not."""
    source, items = pair.source, pair.items("source")
    biases = fit_biases(
        source.user,
        source.item,
        source.rating,
        n_users=pair.n_users,
        n_items=items.stop,
        rounds=_ROUNDS,
        item_shrinkage=_ITEM_SHRINKAGE,
        user_shrinkage=_USER_SHRINKAGE,
    )
    length = np.bincount(source.user, minlength=pair.n_users)
    counts = np.bincount(source.item, minlength=items.stop)
    fewer = np.searchsorted(np.sort(counts[items]), counts) / (items.stop - items.start)
    total = np.bincount(source.user, weights=fewer[source.item], minlength=pair.n_users)
    with np.errstate(invalid="ignore"):
        mainstream = total / length
    return UserProfiles(length, biases.user.astype(np.float32), mainstream.astype(np.float32))
