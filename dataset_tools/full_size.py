"""Made-up pairs of exactly the sizes of the paper's tasks: `synthetic --task`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from scipy.special import ndtr

from dataset_tools.convert.amazon_tasks import TABLE_1, TASKS
from dataset_tools.options import check_choice
from dataset_tools.synthetic import (
    CD,
    DAY,
    DAYS,
    FEATURE_NOISE,
    FIRST_DAY,
    MOVIE,
    Style,
    describe,
    sphere,
    write_domains,
    write_planted_store,
)
from recbole_cdr_mm.errors import ConfigError

STARS = np.array([0.06, 0.06, 0.11, 0.22, 0.55])  # shares of one to five, as in Amazon's files
FEWEST = 5  # ratings of each user and of each item, as in a 5-core
OWN_GROUP = 0.75  # share of a user's source items that are of the user's own group
TRANSFERRED = 0.8  # share of the variance of target user vectors that the source explains
BIAS_CORRELATION = 0.7  # of a user's generosity in both domains
USER_BIAS, ITEM_BIAS, SIGNAL, NOISE = 0.5, 0.4, 0.7, 0.6  # standard deviations before the stars
SIZE = 2  # of user and item vectors: what 14 ratings of a user can tell
FEATURE_SIZE = 384  # as MiniLM's
_TEXTS = 100  # different ones of each genre; titles are numbered
_ROWS_AT_ONCE = 1 << 20
# (rank + shift)^-exponent: the best known item of Books then has some ten thousand ratings
_ITEM_LAW, _USER_LAW = (30, 0.8), (50, 0.6)


@dataclass(frozen=True, eq=False)
class FullSizePair:
    """What was made.

    Attributes:
        counts: Of each domain, source first: `items`, `users` and `ratings`.
        n_overlapped: Users in both domains.
        noise_floor: Of each domain, the RMSE of each rating's expectation, which no prediction
            beats.
    """

    counts: dict[str, dict[str, int]]
    n_overlapped: int
    noise_floor: dict[str, float]


def make_task(
    data_path: Path,
    dataset: str,
    *,
    task: str,
    feature_size: int = FEATURE_SIZE,
    seed: int = 0,
) -> FullSizePair:
    """Make a pair of the exact sizes of Table 1 and write it, with planted text features.

    Items and users follow power laws, each has 5 ratings at least, no pair is rated twice, and the
    shares of the stars are Amazon's. Before it becomes a star, a rating is

        b_i + b_u + SIGNAL u . v_i + noise,  u^t = sqrt(TRANSFERRED) (+R or -R) u^s + own

    with +R for users of one group and -R for those of the other. The texts of a user's source items
    tell the group, three in four; in the target domain users take items of both groups alike. So
    one linear map for all users finds nothing, and a map made from the texts does.

    Args:
        data_path: The folder of the domains.
        dataset: The pair; its domains are called `<dataset>_movie` and the like.
        task: movie_cd, book_movie or book_cd.
        feature_size: d, of the text features.
        seed: Decides everything that is drawn.

    Raises:
        ConfigError: If there is no such task, a number cannot be, or a folder cannot be written to.
    """
    check_choice("task", task, list(TASKS))
    if seed < 0 or feature_size < 1:
        raise ConfigError(
            f"seed must be 0 or more and feature_size 1 or more, not {seed} and {feature_size}."
        )
    rng = np.random.default_rng(seed)
    sizes = [TABLE_1[domain] for domain in TASKS[task]]
    n_overlapped = TABLE_1[task]["overlapped users"]
    users = _Users.draw(rng, sizes[0]["users"], sizes[1]["users"], n_overlapped)
    direction = rng.standard_normal(feature_size).astype(np.float32)
    names = [f"{dataset}_{domain.removeprefix('amazon-')}" for domain in TASKS[task]]
    domains = [
        _Domain.draw(rng, style, size, *users.of(domain), is_source=domain == 0)
        for domain, (style, size) in enumerate(zip((MOVIE, CD), sizes, strict=True))
    ]
    frames = {
        name: (domain.ratings(), [domain.items])
        for name, domain in zip(names, domains, strict=True)
    }
    counts = dict(zip(names, sizes, strict=True))
    write_domains(data_path, dataset, frames, counts, {"task": task, "seed": seed})
    for name, domain in zip(names, domains, strict=True):
        domain.write_features(rng, data_path / name, name, direction, seed)
    floors = {name: domain.noise_floor for name, domain in zip(names, domains, strict=True)}
    return FullSizePair(counts, n_overlapped, floors)


@dataclass(frozen=True, eq=False)
class _Users:
    """All users: overlapped ones, source-only ones, target-only ones.

    Attributes:
        number: What their tokens are made of, int64 (U,).
        group: 0 or 1 (U,).
        vectors: Of source and target, float32 (2, U, k).
        biases: Likewise (2, U).
        n_overlapped: Users in both domains.
        n_source: Users of the source domain.
    """

    number: np.ndarray
    group: np.ndarray
    vectors: np.ndarray
    biases: np.ndarray
    n_overlapped: int
    n_source: int

    @staticmethod
    def draw(rng: np.random.Generator, n_source: int, n_target: int, n_overlapped: int) -> _Users:
        n = n_source + n_target - n_overlapped
        group = rng.integers(0, 2, n)
        source, own = np.sqrt(SIZE) * sphere(rng, (2, n, SIZE))
        rotation = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
        sign = np.where(group == 0, 1.0, -1.0)[:, None]  # (U, 1)
        target = np.sqrt(TRANSFERRED) * sign * (source @ rotation)
        target += np.sqrt(1 - TRANSFERRED) * own
        bias, own_bias = USER_BIAS * rng.standard_normal((2, n))
        other = BIAS_CORRELATION * bias + np.sqrt(1 - BIAS_CORRELATION**2) * own_bias
        vectors = np.stack([source, target]).astype(np.float32)
        biases = np.stack([bias, other]).astype(np.float32)
        return _Users(rng.permutation(n), group, vectors, biases, n_overlapped, n_source)

    def of(self, domain: int) -> tuple[np.ndarray, ...]:
        """Number, group, vectors and biases of the users of a domain."""
        n = len(self.number)
        rows = np.r_[: self.n_overlapped, self.n_source : n] if domain else np.r_[: self.n_source]
        return (
            self.number[rows],
            self.group[rows],
            self.vectors[domain, rows],
            self.biases[domain, rows],
        )


@dataclass(frozen=True, eq=False)
class _Domain:
    """Items and ratings of a domain.

    Attributes:
        items: `item_id`, `title` and `text`.
        item_group: What each item's text tells, 0 or 1 (I,).
        number: Of the users' tokens, int64 (U,).
        user: Row of each rating's user, int32 (N,).
        item: Row of its item (N,).
        star: 1 to 5, int8 (N,).
        day: Days after the first one, int16 (N,).
        noise_floor: RMSE of the stars' expectations.
    """

    items: pl.DataFrame
    item_group: np.ndarray
    number: np.ndarray
    user: np.ndarray
    item: np.ndarray
    star: np.ndarray
    day: np.ndarray
    noise_floor: float

    @staticmethod
    def draw(
        rng: np.random.Generator,
        style: Style,
        size: dict[str, int],
        number: np.ndarray,
        group: np.ndarray,
        vectors: np.ndarray,
        biases: np.ndarray,
        *,
        is_source: bool,
    ) -> _Domain:
        n_items, n_ratings = size["items"], size["ratings"]
        item_group = rng.integers(0, 2, n_items)
        item_vectors = sphere(rng, (n_items, SIZE)).astype(np.float32)
        item_biases = (ITEM_BIAS * rng.standard_normal(n_items)).astype(np.float32)
        user, item = _pairs(
            rng,
            _degrees(rng, len(number), n_ratings, *_USER_LAW),
            _degrees(rng, n_items, n_ratings, *_ITEM_LAW),
            group,
            item_group,
            OWN_GROUP if is_source else 0.5,
        )
        exact = biases[user] + item_biases[item]
        for rows in _slices(n_ratings):
            product = np.einsum("nk,nk->n", vectors[user[rows]], item_vectors[item[rows]])
            exact[rows] += SIGNAL * product
        latent = exact + NOISE * rng.standard_normal(n_ratings, dtype=np.float32)
        cuts = np.quantile(latent, np.cumsum(STARS)[:-1])  # (4,)
        star = (1 + np.searchsorted(cuts, latent)).astype(np.int8)
        squares = 0.0
        for rows in _slices(n_ratings):
            above = ndtr((exact[rows, None] - cuts) / NOISE)  # (n, 4)
            squares += np.square(1 + above.sum(1) - star[rows]).sum()
        return _Domain(
            _items(rng, style, item_group),
            item_group,
            number,
            user,
            item,
            star,
            rng.integers(0, DAYS, n_ratings, dtype=np.int16),
            float(np.sqrt(squares / n_ratings)),
        )

    def ratings(self) -> Iterator[pl.DataFrame]:
        """The rows of the `.inter` file, some at a time."""
        tokens = "u" + pl.Series(self.number).cast(pl.String).str.zfill(7)
        for rows in _slices(len(self.user)):
            yield pl.DataFrame(
                {
                    "user_id": tokens.gather(self.user[rows]),
                    "item_id": self.items["item_id"].gather(self.item[rows]),
                    "rating": self.star[rows].astype(np.float64),
                    "timestamp": FIRST_DAY + DAY * self.day[rows].astype(np.float64),
                }
            )

    def write_features(
        self, rng: np.random.Generator, folder: Path, name: str, direction: np.ndarray, seed: int
    ) -> None:
        """One direction, times 1 or -1 by the item's group, and noise."""
        matrix = rng.standard_normal((len(self.items), len(direction)), dtype=np.float32)
        matrix *= FEATURE_NOISE
        matrix += np.where(self.item_group == 0, 1, -1).astype(np.float32)[:, None] * direction
        items = pd.DataFrame(self.items.to_dict(as_series=False))
        write_planted_store(folder, name, items, items["item_id"].tolist(), matrix, seed)


def _slices(n: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, n, _ROWS_AT_ONCE))


def _degrees(
    rng: np.random.Generator, n: int, total: int, shift: int, exponent: float
) -> np.ndarray:
    """How many ratings each of n users or items has: a power law on top of `FEWEST`, (n,)."""
    shares = (np.arange(n) + shift) ** -exponent
    extra = rng.multinomial(total - FEWEST * n, shares / shares.sum())
    return rng.permutation(FEWEST + extra)


def _pairs(
    rng: np.random.Generator,
    user_degree: np.ndarray,
    item_degree: np.ndarray,
    user_group: np.ndarray,
    item_group: np.ndarray,
    own_group: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Who rates what: users and items have the given numbers of ratings, no pair has two.

    Each user's ratings are dealt out to the items of both groups, `own_group` of them to those of
    the user's own, as near to that as the items' numbers allow; then each rating gets an item.

    Returns:
        Rows of users, sorted, and of items, int32 (N,).
    """
    user = np.repeat(np.arange(len(user_degree), dtype=np.int32), user_degree)  # (N,)
    other = rng.random(len(user), dtype=np.float32) >= own_group  # (N,)
    wanted = user_group.astype(bool)[user] ^ other  # group of the item, (N,)
    surplus = int(wanted.sum()) - int(item_degree[item_group == 1].sum())
    moved = rng.choice(np.flatnonzero(wanted == (surplus > 0)), abs(surplus), replace=False)
    wanted[moved] ^= True
    item = np.empty(len(user), dtype=np.int32)
    for group in (0, 1):
        places = np.flatnonzero(wanted == group)
        degree = np.where(item_group == group, item_degree, 0)
        own = np.repeat(np.arange(len(degree), dtype=np.int32), degree)
        item[places] = rng.permutation(own)
    _swap_repeated(rng, user, item, wanted)
    return user, item


def _swap_repeated(
    rng: np.random.Generator, user: np.ndarray, item: np.ndarray, group: np.ndarray
) -> None:
    """Exchange the items of repeated pairs with those of other ratings of the same group."""
    n_items = int(item.max()) + 1
    pools = [np.flatnonzero(group == g) for g in (0, 1)]
    while True:
        key = user.astype(np.int64) * n_items + item
        order = np.argsort(key, kind="stable")
        repeated = order[1:][np.diff(key[order]) == 0]
        if not len(repeated):
            return
        for pool, rows in zip(pools, (repeated[group[repeated] == g] for g in (0, 1)), strict=True):
            others = rng.choice(pool, min(len(rows) * 3, len(pool)), replace=False)
            mixed = np.union1d(rows, others)
            item[mixed] = rng.permutation(item[mixed])


def _items(rng: np.random.Generator, style: Style, item_group: np.ndarray) -> pl.DataFrame:
    """Tokens, numbered titles and texts."""
    n, n_genres = len(item_group), len(style.genres[0])
    pool = [
        describe(rng, style, group, genre)
        for group in (0, 1)
        for genre in range(n_genres)
        for _ in range(_TEXTS)
    ]
    chosen = item_group * n_genres * _TEXTS + rng.integers(0, n_genres * _TEXTS, n)  # (I,)
    titles, texts = (pl.Series(column).gather(chosen) for column in zip(*pool, strict=True))
    number = pl.Series(np.arange(n)).cast(pl.String)
    return pl.DataFrame(
        {
            "item_id": style.letter + number.str.zfill(6),
            "title": titles + ", no. " + number,
            "text": texts,
        }
    )
