"""Users' ratings of one domain as sparse rows, 1 for each rated item."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_cdr_mm.data.pair import Ratings


def sparse_rows(ratings: Ratings, users: NDArray[np.int64], items: slice) -> Tensor:
    """The rows of some users in one domain.

    Args:
        ratings: The domain's ratings; those of other users are left out.
        users: Ids of the users, sorted, int64 (n,).
        items: The ids of the domain's items, m of them.

    Returns:
        Sparse float64 (n, m), coalesced; 1 also where an item was rated more than once.
    """
    own = ratings.where(np.isin(ratings.user, users))
    place = np.stack([np.searchsorted(users, own.user), own.item - items.start])  # (2, N)
    ones = torch.ones(len(own), dtype=torch.float64)
    shape = len(users), items.stop - items.start
    indices = torch.from_numpy(place)
    rows = torch.sparse_coo_tensor(indices, ones, shape, check_invariants=True).coalesce()
    rows.values().fill_(1.0)
    return rows
