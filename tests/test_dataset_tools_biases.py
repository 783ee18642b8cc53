from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dataset_tools.biases import fit_biases

N_USERS, N_ITEMS = 8, 6


def biases_by_hand(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: NDArray[np.float64],
    rounds: int,
    a: float,
    b: float,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    mean, of_user, of_item = rating.mean(), np.zeros(N_USERS), np.zeros(N_ITEMS)
    for _ in range(rounds):
        for i in set(item):
            rows = item == i
            of_item[i] = (rating - mean - of_user[user])[rows].sum() / (rows.sum() + a)
        for u in set(user):
            rows = user == u
            of_user[u] = (rating - mean - of_item[item])[rows].sum() / (rows.sum() + b)
    return mean, of_user, of_item


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rounds", "a", "b"), [(1, 3.0, 5.0), (10, 3.0, 5.0), (10, 0.0, 0.0)])
def test_biases(rng: np.random.Generator, rounds: int, a: float, b: float, dtype: type) -> None:
    user, item = rng.integers(0, N_USERS, 60), rng.integers(0, N_ITEMS, 60)
    kept = (user != 3) & (item != 2)  # they have no row
    user, item, rating = user[kept], item[kept], rng.integers(2, 11, kept.sum()) / 2
    given = rating.astype(dtype)
    before = given.copy()
    found = fit_biases(
        user,
        item,
        given,
        n_users=N_USERS,
        n_items=N_ITEMS,
        rounds=rounds,
        item_shrinkage=a,
        user_shrinkage=b,
    )
    mean, of_user, of_item = biases_by_hand(user, item, rating, rounds, a, b)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    np.testing.assert_allclose(found.user, of_user, atol=1e-12)
    np.testing.assert_allclose(found.item, of_item, atol=1e-12)
    assert found.user[3] == found.item[2] == 0
    assert np.abs(found.user).max() > 0.1
    assert np.array_equal(given, before)
