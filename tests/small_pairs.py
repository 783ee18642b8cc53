"""Small pairs of domains, in memory and on disk, for the tests of config and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataset_tools.synthetic import SyntheticPair, make_pair, write_pair, write_planted_features
from recbole_cdr_mm.data.pair import Pair, Ratings, join_domains

INTER_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
COLUMNS = ("user", "item", "rating", "time")


def write_small_pair(data_path: Path, name: str = "pair", *, seed: int = 0) -> SyntheticPair:
    """Write 40 overlapped users, 10 of each domain alone, 30 items a domain, and text features."""
    pair = make_pair(
        "demo",
        n_overlapped=40,
        n_source_only=10,
        n_target_only=10,
        n_source_items=30,
        n_target_items=30,
        source_ratings_per_user=8,
        target_ratings_per_user=8,
        integer_ratings=True,
        seed=seed,
    )
    write_pair(pair, data_path, name)
    write_planted_features(pair, data_path, name, 8)
    return pair


def write_lines(path: Path, *lines: str) -> Path:
    """Write a file line by line, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def edit_line(path: Path, number: int, old: str, new: str) -> None:
    """Replace a part of one line; the header is line 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new)
    write_lines(path, *lines)


def frame(*rows: tuple[object, ...], time: bool = True) -> pd.DataFrame:
    """A domain as `join_domains` takes it, from tuples (user, item, rating, time)."""
    columns = ["user", "item", "rating", *(["time"] if time else [])]
    return pd.DataFrame(list(rows), columns=columns)


def random_domain(
    rng: np.random.Generator, users: list[str], items: list[str], share: float = 0.4
) -> pd.DataFrame:
    """Rate random items, each user at least one, in half stars, all at different times."""
    rated = rng.random((len(users), len(items))) < share
    rated[np.arange(len(users)), rng.integers(0, len(items), len(users))] = True
    user, item = np.nonzero(rated)
    return pd.DataFrame(
        {
            "user": np.array(users, dtype=object)[user],
            "item": np.array(items, dtype=object)[item],
            "rating": rng.integers(2, 11, len(user)) / 2,
            "time": rng.permutation(len(user)).astype(float),
        }
    )


def random_pair(rng: np.random.Generator, n_overlapped: int = 20) -> Pair:
    """Random ratings of overlapped and other users; some tokens are items of both domains."""
    shared = [f"o{n}" for n in range(n_overlapped)]
    source = random_domain(rng, [*shared, "s0", "s1", "s2"], [f"i{n}" for n in range(12)])
    target = random_domain(rng, [*shared, "t0", "t1"], [f"i{n}" for n in range(6, 20)])
    return join_domains(source, target)


def rows_of(ratings: Ratings, columns: tuple[str, ...] = COLUMNS) -> set[tuple[float, ...]]:
    """The rows by ids."""
    return set(zip(*(getattr(ratings, name).tolist() for name in columns), strict=True))


def in_tokens(pair: Pair, ratings: Ratings) -> list[tuple[Any, ...]]:
    """The rows by tokens, sorted."""
    user, item = pair.user_tokens[ratings.user], pair.item_tokens[ratings.item]
    return sorted(zip(user, item, ratings.rating.tolist(), ratings.time.tolist(), strict=True))
