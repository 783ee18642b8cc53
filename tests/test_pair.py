from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from small_pairs import (
    COLUMNS,
    edit_line,
    frame,
    in_tokens,
    random_domain,
    random_pair,
    rows_of,
    write_lines,
    write_small_pair,
)

from dataset_tools.atomic import read_inter
from recbole_cdr_mm.config import MMConfig
from recbole_cdr_mm.data.dataset import PairDataset
from recbole_cdr_mm.data.folds import draw_folds
from recbole_cdr_mm.data.history import build_histories
from recbole_cdr_mm.data.loader import DrawingLoader, RowLoader
from recbole_cdr_mm.data.negatives import NegativeSampler
from recbole_cdr_mm.data.pair import Pair, Ratings, join_domains, row_order
from recbole_cdr_mm.data.split import ColdStartSplit, FewShot, split_cold_start
from recbole_cdr_mm.errors import ConfigError, DataFormatError


def load(tmp_path: Path, **config_dict: Any) -> PairDataset:
    return PairDataset(MMConfig("GlobalMean", "pair", config_dict=config_dict))


# One id space


def test_ids_stand_in_the_documented_ranges() -> None:
    source = frame(("b", "y", 4, 1), ("z", "x", 2, 2), ("a", "x", 3, 3), ("b", "x", 1, 0))
    target = frame(("a", "x", 5, 1), ("b", "w", 4, 2), ("c", "x", 1, 3))
    pair = join_domains(source, target)
    #                                  overlapped | source only | target only
    assert pair.user_tokens.tolist() == ["[PAD]", "a", "b", "z", "c"]
    assert (pair.n_overlapped, pair.n_source_only, pair.n_users) == (2, 1, 5)
    assert pair.overlapped_users.tolist() == [1, 2]
    #                                            source | target; `x` is one item of each
    assert pair.item_tokens.tolist() == ["[PAD]", "x", "y", "w", "x"]
    assert (pair.n_source_items, pair.n_items) == (2, 5)
    assert (pair.items("source"), pair.items("target")) == (slice(1, 3), slice(3, 5))
    # Rows are ordered by user, then time.
    assert pair.source.user.tolist() == [1, 2, 2, 3]
    assert pair.source.item.tolist() == [1, 1, 2, 1]
    assert pair.source.rating.tolist() == [3, 1, 4, 2]
    assert pair.source.time.tolist() == [3, 0, 1, 2]
    assert pair.target.item.tolist() == [4, 3, 4]
    assert pair.statistics() == {
        "source": {"users": 3, "items": 2, "ratings": 4},
        "target": {"users": 3, "items": 2, "ratings": 3},
    }
    dtypes = [getattr(pair.source, name).dtype.name for name in COLUMNS]
    assert dtypes == ["int64", "int64", "float32", "float64"]


def test_a_token_may_look_like_padding() -> None:
    pair = join_domains(frame(("[PAD]", "[PAD]", 4, 1)), frame(("[PAD]", "[PAD]", 5, 1)))
    assert (pair.source.user.tolist(), pair.source.item.tolist()) == ([1], [1])
    assert (pair.target.user.tolist(), pair.target.item.tolist()) == ([1], [2])


def test_random_domains_keep_every_row(rng: np.random.Generator) -> None:
    source = random_domain(rng, [f"u{n}" for n in range(9)], list("abcdef"))
    target = random_domain(rng, [f"u{n}" for n in range(5, 15)], list("defghi"))
    pair = join_domains(source, target)
    for ratings, given in ((pair.source, source), (pair.target, target)):
        assert in_tokens(pair, ratings) == sorted(given.itertuples(index=False, name=None))
    first_only = 1 + pair.n_overlapped
    assert set(pair.target.user) & set(range(first_only, first_only + pair.n_source_only)) == set()
    assert pair.target.item.min() == pair.source.item.max() + 1 == pair.items("target").start


def test_shuffled_lines_give_the_same_pair(rng: np.random.Generator) -> None:
    source = random_domain(rng, [f"u{n}" for n in range(9)], list("abcdef"))
    source["time"] = source["time"] // 5  # ties
    source = pd.concat([source, source.assign(rating=6 - source["rating"])])  # rated twice at once
    target = random_domain(rng, [f"u{n}" for n in range(5, 15)], list("defghi"))
    pair = join_domains(source, target)
    shuffled = join_domains(
        source.sample(frac=1, random_state=1), target.sample(frac=1, random_state=2)
    )
    for domain in ("source", "target"):
        for name in COLUMNS:
            was, now = (getattr(getattr(p, domain), name) for p in (pair, shuffled))
            np.testing.assert_array_equal(was, now)
    assert pair.user_tokens.tolist() == shuffled.user_tokens.tolist()
    assert pair.item_tokens.tolist() == shuffled.item_tokens.tolist()


@pytest.mark.parametrize("is_timed", [True, False])
def test_rows_are_sorted_once(rng: np.random.Generator, is_timed: bool) -> None:
    user, item = rng.integers(0, 5, 200), rng.integers(0, 9, 200)
    rating, time = rng.integers(1, 6, 200) / 1.0, rng.integers(0, 4, 200) / 1.0
    order = row_order(user, item, rating, time if is_timed else None)
    keys = (rating, item, time, user) if is_timed else (user,)
    assert order is not None
    np.testing.assert_array_equal(order, np.lexsort(keys))
    user, item, rating, time = (column[order] for column in (user, item, rating, time))
    assert row_order(user, item, rating, time if is_timed else None) is None
    none = np.empty(0)
    assert row_order(none, none, none, none) is None


def test_without_timestamps_the_order_is_the_files() -> None:
    source = frame(("a", "y", 1), ("b", "x", 2), ("a", "x", 3), time=False)
    target = frame(("a", "x", 5, 9))
    pair = join_domains(source, target)
    assert not pair.has_timestamps
    assert pair.source.rating.tolist() == [1, 3, 2]
    turned = join_domains(source[::-1], target)
    assert turned.source.rating.tolist() == [3, 1, 2]
    columns = ("user", "item", "rating")
    assert rows_of(turned.source, columns) == rows_of(pair.source, columns)


def test_no_overlapped_users() -> None:
    with pytest.raises(
        DataFormatError, match=r"No user is in both .*`a`, 1 target users such as `b`"
    ):
        join_domains(frame(("a", "x", 1, 1)), frame(("b", "x", 1, 1)))


# The split


def test_the_split_hides_all_target_ratings_of_whole_users(rng: np.random.Generator) -> None:
    pair = random_pair(rng, n_overlapped=50)
    split = split_cold_start(pair, test_user_ratio=0.3, valid_user_ratio=0.2, split_seed=1)
    assert (len(split.test_users), len(split.valid_users)) == (
        15,
        7,
    )  # 0.3 of 50, 0.2 of the other 35
    kinds = {"test": set(split.test_users), "valid": set(split.valid_users)}
    assert kinds["test"] | kinds["valid"] <= set(pair.overlapped_users.tolist())
    assert not kinds["test"] & kinds["valid"]
    everything = rows_of(pair.target)
    for kind, users in kinds.items():
        assert rows_of(getattr(split, kind)) == {row for row in everything if row[0] in users}
    cold = kinds["test"] | kinds["valid"]
    assert rows_of(split.train) == {row for row in everything if row[0] not in cold}
    assert split.unseen_test_items == len(set(split.test.item) - set(split.train.item))


def test_split_seed_and_nothing_else_chooses_the_users(rng: np.random.Generator) -> None:
    def users(seed: int, pair: Pair) -> list[int]:
        split = split_cold_start(pair, test_user_ratio=0.3, valid_user_ratio=0.2, split_seed=seed)
        return [*split.test_users, -1, *split.valid_users]

    pair, other = random_pair(rng, 50), random_pair(rng, 50)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - which must not matter
    first = users(7, pair)
    assert users(7, pair) == users(7, other) == first
    assert users(8, pair) != first


def test_without_validation_users(rng: np.random.Generator) -> None:
    pair = random_pair(rng)
    split = split_cold_start(pair, test_user_ratio=0.2, valid_user_ratio=0, split_seed=1)
    assert (len(split.test_users), len(split.valid_users), len(split.valid)) == (4, 0, 0)
    assert len(split.train) + len(split.test) == len(pair.target)


@pytest.mark.parametrize(
    ("n_overlapped", "ratios", "kind"),
    [
        (20, (0.2, 0.1), None),
        (2, (0.2, 0.1), "test"),
        (4, (0.2, 0.1), "validation"),
        (4, (0.2, 0.0), None),
        (3, (0.5, 0.9), "training"),
        (1, (0.9, 0.0), "training"),
    ],
)
def test_too_few_users_for_the_ratios(
    rng: np.random.Generator, n_overlapped: int, ratios: tuple[float, float], kind: str | None
) -> None:
    pair = random_pair(rng, n_overlapped)
    given = {"test_user_ratio": ratios[0], "valid_user_ratio": ratios[1], "split_seed": 1}
    if kind is None:
        split_cold_start(pair, **given)
        return
    with pytest.raises(
        ConfigError, match=f"leave no {kind} user of {n_overlapped} overlapped users"
    ):
        split_cold_start(pair, **given)


def test_positives_keep_the_users(rng: np.random.Generator) -> None:
    pair = random_pair(rng)
    split = split_cold_start(pair, test_user_ratio=0.3, valid_user_ratio=0.2, split_seed=1)
    positives = split.at_least(4)
    assert positives.test_users is split.test_users
    for part in ("train", "valid", "test"):
        kept = {row for row in rows_of(getattr(split, part)) if row[2] >= 4}
        assert rows_of(getattr(positives, part)) == kept != rows_of(getattr(split, part))


# The split's few-shot part

POOL = 4


def few_shot_split(pair: Pair, few_shot: FewShot | None, **given: Any) -> ColdStartSplit:
    ratios = {"test_user_ratio": 0.3, "valid_user_ratio": 0.2, "split_seed": 1}
    return split_cold_start(pair, **{**ratios, **given}, few_shot=few_shot)


def rows_by_user(ratings: Ratings, users: NDArray[np.int64]) -> dict[int, list[tuple[float, ...]]]:
    """Each user's rows, those with the lowest time first."""
    rows = {int(user): [] for user in users}
    for row in sorted(rows_of(ratings), key=lambda row: row[3]):
        if row[0] in rows:
            rows[row[0]].append(row)
    return rows


def some_domains(
    rng: np.random.Generator, timestamped: str = "both"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two domains, of which one or both have times."""
    users = [f"o{n}" for n in range(50)]
    source = random_domain(rng, users, [f"i{n}" for n in range(12)])
    target = random_domain(rng, users, [f"i{n}" for n in range(6, 20)])
    return (
        source.drop(columns=[] if timestamped in ("both", "source") else "time"),
        target.drop(columns=[] if timestamped in ("both", "target") else "time"),
    )


@pytest.mark.parametrize("timestamped", ["both", "source", "target", "neither"])
def test_the_tested_rows_are_the_same_whatever_is_revealed(
    rng: np.random.Generator, timestamped: str
) -> None:
    pair = join_domains(*some_domains(rng, timestamped))
    whole = few_shot_split(pair, None)
    splits = [few_shot_split(pair, FewShot(n, POOL)) for n in range(POOL + 1)]
    for split in splits:
        for part in ("train", "valid", "test"):
            assert rows_of(getattr(split, part)) == rows_of(getattr(splits[0], part))
        for part in ("test_users", "valid_users"):
            assert getattr(split, part).tolist() == getattr(whole, part).tolist()
    assert rows_of(splits[0].train) == rows_of(whole.train)
    assert not len(splits[0].revealed)
    revealed = [rows_of(split.revealed) for split in splits]
    assert all(few < more for few, more in pairwise(revealed))
    assert all(rows_of(split.aside) == revealed[-1] for split in splits)  # the whole pool
    tested = rows_of(splits[0].test) | rows_of(splits[0].valid)
    assert not revealed[-1] & (tested | rows_of(whole.train))
    n_users = len({row[0] for row in tested})
    assert [len(rows) for rows in revealed] == [n * n_users for n in range(POOL + 1)]


@pytest.mark.parametrize("timestamped", ["both", "target"])
def test_the_earliest_rows_are_revealed_and_those_behind_the_pool_tested(
    rng: np.random.Generator, timestamped: str
) -> None:
    pair = join_domains(*some_domains(rng, timestamped))
    split = few_shot_split(pair, FewShot(2, POOL))
    cold = {"test": split.test_users, "valid": split.valid_users}
    revealed = set()
    for part, users in cold.items():
        behind = set()
        for rows in rows_by_user(pair.target, users).values():
            behind |= set(rows[POOL:])
            revealed |= set(rows[:2]) if len(rows) > POOL else set()
        assert rows_of(getattr(split, part)) == behind != set()
    assert rows_of(split.revealed) == revealed


def test_users_with_no_more_than_the_pool_have_nothing_revealed_and_nothing_tested(
    rng: np.random.Generator,
) -> None:
    pair = random_pair(rng, 50)
    split = few_shot_split(pair, FewShot(1, POOL))
    users = np.union1d(split.test_users, split.valid_users)
    counts = {user: len(rows) for user, rows in rows_by_user(pair.target, users).items()}
    assert {POOL, POOL + 1} <= {*counts.values()}, "the limit itself was not tried"
    kept = {user for user, count in counts.items() if count > POOL}
    assert set(split.revealed.user) == kept
    assert {*split.test.user, *split.valid.user} == kept


def without_target_times(source: pd.DataFrame, target: pd.DataFrame, seed: int) -> Pair:
    """The pair whose target file has no timestamps, and its lines in another order."""
    lines = target.drop(columns="time").sample(frac=1, random_state=seed)
    return join_domains(source, lines)


def revealed_items(pair: Pair, split_seed: int) -> dict[int, set[int]]:
    split = few_shot_split(pair, FewShot(2, POOL), split_seed=split_seed)
    rows = zip(split.revealed.user.tolist(), split.revealed.item.tolist(), strict=True)
    items: dict[int, set[int]] = {}
    for user, item in rows:
        items.setdefault(user, set()).add(item)
    return items


def test_without_timestamps_the_revealed_rows_are_drawn_by_split_seed_alone(
    rng: np.random.Generator,
) -> None:
    domains = some_domains(rng)
    pair = without_target_times(*domains, seed=0)
    first = revealed_items(pair, 1)
    np.random.seed(5)  # noqa: NPY002 - which must not matter
    assert revealed_items(without_target_times(*domains, seed=1), 1) == first
    split = few_shot_split(pair, FewShot(2, POOL))
    shuffled = few_shot_split(without_target_times(*domains, seed=1), FewShot(2, POOL))
    columns = ("user", "item", "rating")  # the time is the place in the file
    for part in ("train", "valid", "test", "revealed"):
        was, now = (rows_of(getattr(s, part), columns) for s in (split, shuffled))
        assert was == now != set()
    other = revealed_items(pair, 2)
    common = [user for user in first if user in other]
    assert common
    assert any(first[user] != other[user] for user in common)
    untimed = domains[0].drop(columns="time")
    assert revealed_items(join_domains(untimed, domains[1].drop(columns="time")), 1) == first


def test_without_timestamps_every_row_is_as_likely_to_be_revealed(
    rng: np.random.Generator,
) -> None:
    pair = without_target_times(*some_domains(rng), seed=0)
    n_seeds, hits, chances = 300, Counter(), Counter()
    own = rows_by_user(pair.target, pair.overlapped_users)
    for seed in range(n_seeds):
        for user, items in revealed_items(pair, seed).items():
            in_order = sorted(row[1] for row in own[user])
            for place, item in enumerate(in_order):
                hits[place] += item in items
                chances[place] += 2 / len(in_order)
    for place, expected in chances.items():
        assert abs(hits[place] - expected) <= 5 * np.sqrt(expected), place


def test_without_timestamps_items_rated_twice_are_revealed_whatever_the_order_of_the_file(
    rng: np.random.Generator,
) -> None:
    source, target = some_domains(rng)
    target = pd.concat([target, target.assign(rating=5.5 - target["rating"] / 2)])
    splits = [
        few_shot_split(without_target_times(source, target, seed), FewShot(2, POOL))
        for seed in (0, 1)
    ]
    columns = ("user", "item", "rating")
    assert rows_of(splits[0].revealed, columns) == rows_of(splits[1].revealed, columns)


def test_without_few_shot_all_ratings_of_cold_start_users_are_tested(
    rng: np.random.Generator,
) -> None:
    pair = random_pair(rng, 50)
    split = few_shot_split(pair, None)
    assert len(split.revealed) == len(split.aside) == 0
    cold = {*split.test_users, *split.valid_users}
    hidden = {row for row in rows_of(pair.target) if row[0] in cold}
    assert rows_of(split.test) | rows_of(split.valid) == hidden
    for name in COLUMNS:
        few_shot = few_shot_split(pair, FewShot(2, POOL))
        np.testing.assert_array_equal(getattr(split.train, name), getattr(few_shot.train, name))


def test_positives_of_what_is_revealed_and_all_that_is_set_aside(rng: np.random.Generator) -> None:
    split = few_shot_split(random_pair(rng, 50), FewShot(2, POOL))
    kept = {row for row in rows_of(split.revealed) if row[2] >= 4}
    assert rows_of(split.at_least(4).revealed) == kept != rows_of(split.revealed)
    assert rows_of(split.at_least(4).aside) == rows_of(split.aside)  # liked or not


def test_no_more_is_revealed_than_is_set_aside() -> None:
    FewShot(4, 4)
    message = r"`few_shot: 5` reveals more .* `few_shot_pool: 4` sets aside\. .*_pool=5 or more\.$"
    with pytest.raises(ConfigError, match=message):
        FewShot(5, 4)


def test_a_pool_that_leaves_nothing_to_measure(rng: np.random.Generator) -> None:
    """Of the test users, or of the validation users: whose largest number of ratings is lower."""
    pair, kinds = random_pair(rng, 50), set()
    for seed in range(20):
        split = few_shot_split(pair, None, split_seed=seed)
        most = {
            kind: max(map(len, rows_by_user(pair.target, users).values()))
            for kind, users in (("test", split.test_users), ("validation", split.valid_users))
        }
        kind = min(most, key=lambda kind: most[kind])
        kinds.add(kind)
        few_shot_split(pair, FewShot(0, most[kind] - 1), split_seed=seed)
        message = (
            rf"^`few_shot_pool: {most[kind]}` leaves no rating to measure: no {kind} user has more"
            rf" than {most[kind]} target ratings\. Give --few_shot_pool below that"
        )
        with pytest.raises(ConfigError, match=message):
            few_shot_split(pair, FewShot(0, most[kind]), split_seed=seed)
        if most["validation"] < most["test"]:  # without validation users they do not matter
            pool = FewShot(0, most["validation"])
            few_shot_split(pair, pool, split_seed=seed, valid_user_ratio=0)
    assert kinds == {"test", "validation"}


# Histories, folds


@pytest.mark.parametrize("last", [None, 1, 3, 100])
def test_histories_are_the_users_last_rows_in_the_order_of_time(
    rng: np.random.Generator, last: int | None
) -> None:
    pair = random_pair(rng)
    histories = build_histories(pair.source, pair.n_users, last=last)
    batch = rng.permutation(np.r_[np.arange(pair.n_users), 3, 3])  # users twice, users without rows
    item, rating, row = histories.of(torch.from_numpy(batch))
    found = [
        (item[row == place].tolist(), rating[row == place].tolist()) for place in range(len(batch))
    ]
    for user, (items, ratings) in zip(batch, found, strict=True):
        own = np.flatnonzero(pair.source.user == user)
        own = own[np.argsort(pair.source.time[own])][-(last or 10**6) :]
        assert items == pair.source.item[own].tolist()
        assert ratings == pair.source.rating[own].tolist()
    assert row.tolist() == sorted(row.tolist())
    assert any(not items for items, _ in found)


def test_nobody_has_a_history() -> None:
    nothing = Ratings(*(np.array([], dtype=d) for d in (np.int64, np.int64, np.float32, float)))
    item, rating, row = build_histories(nothing, 4).of(torch.arange(4))
    assert (len(item), len(rating), len(row)) == (0, 0, 0)


def test_folds_hold_each_overlapped_training_user_once(rng: np.random.Generator) -> None:
    pair = random_pair(rng, n_overlapped=40)
    split = split_cold_start(pair, test_user_ratio=0.3, valid_user_ratio=0.2, split_seed=1)
    fold = draw_folds(pair, split, 5, seed=1).numpy()
    warm = set(pair.overlapped_users) - set(split.test_users) - set(split.valid_users)
    assert set(np.flatnonzero(fold < 5)) == warm
    sizes = np.bincount(fold[fold < 5])
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 1
    assert fold.tolist() == draw_folds(pair, split, 5, seed=1).tolist()
    assert fold.tolist() != draw_folds(pair, split, 5, seed=2).tolist()
    draw_folds(pair, split, len(warm), seed=1)
    message = rf"simulation_folds {len(warm) + 1} needs as many .* there are {len(warm)}\."
    with pytest.raises(ConfigError, match=message):
        draw_folds(pair, split, len(warm) + 1, seed=1)


# Batches and negatives


def epoch(loader: RowLoader | DrawingLoader, number: int, column: str = "row") -> list[list[int]]:
    loader.set_epoch(number)
    return [batch[column].tolist() for batch in loader]


def test_batches_hold_every_row_once_in_an_order_of_seed_name_and_epoch() -> None:
    def loader(seed: int = 1, name: str = "source") -> RowLoader:
        columns = {"row": torch.arange(10), "twice": 2 * torch.arange(10)}
        return RowLoader(columns, batch_size=4, seed=seed, name=name)

    one = loader()
    assert (len(one), one.n_rows) == (3, 10)
    first = epoch(one, 0)
    assert [len(batch) for batch in first] == [4, 4, 2]
    rows = [row for batch in first for row in batch]
    assert sorted(rows) == list(range(10)) != rows
    torch.manual_seed(5)
    second = epoch(one, 1)
    assert second != first == [batch["row"].tolist() for batch in loader()]
    assert epoch(one, 0) == first  # whatever was drawn in between
    assert [batch["row"].tolist() for batch in one] == first  # and once more
    others = [epoch(loader(seed=2), 0), epoch(loader(name="target"), 0)]
    assert all(other != first for other in others)
    for batch in one:
        assert batch["twice"].tolist() == [2 * row for row in batch["row"].tolist()]


def test_batches_may_keep_the_rows_of_a_user_together(rng: np.random.Generator) -> None:
    user = torch.from_numpy(rng.choice([2, 3, 5, 8, 13, 40], 200))
    columns = {"row": torch.arange(200), "user": user}
    loader = RowLoader(columns, batch_size=16, seed=1, name="meta", together="user")
    first = epoch(loader, 0)
    assert [len(batch) for batch in first] == [16] * 12 + [8]
    assert sorted(row for batch in first for row in batch) == list(range(200))
    orders = []
    for number in range(4):
        met = [u for batch in epoch(loader, number, "user") for u in batch]
        orders.append([u for place, u in enumerate(met) if place == 0 or met[place - 1] != u])
        assert sorted(orders[-1]) == [2, 3, 5, 8, 13, 40]  # each user begins once
    assert len(set(map(tuple, orders))) > 1
    assert epoch(loader, 0) == first
    assert epoch(RowLoader(columns, batch_size=16, seed=1, name="meta"), 0) != first


def test_negatives_are_all_the_unknown_items_of_the_domain_and_no_others(
    rng: np.random.Generator,
) -> None:
    first, end, n_users, n_draws = 5, 15, 8, 4000
    rated = rng.random((n_users, end - first)) < rng.random(n_users)[:, None]
    rated[0] = False  # nobody knows this user
    rated[1] = True
    rated[2] = np.arange(end - first) != 3  # one item is left
    user, item = np.nonzero(np.vstack([rated, rated]))  # rows may be there twice
    user %= n_users
    ratings = Ratings(user, first + item, np.ones(len(user), np.float32), np.zeros(len(user)))
    sampler = NegativeSampler(ratings, first, end, torch.device("cpu"))
    users = torch.from_numpy(rng.permutation(np.repeat(np.arange(n_users + 2), n_draws)))
    drawn = sampler.draw(users, torch.Generator().manual_seed(1))
    again = sampler.draw(users, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)
    for number in range(n_users + 2):
        own = rated[number] if number < n_users else np.zeros(end - first, bool)
        unknown = np.flatnonzero(~own | own.all()) + first  # who knows all gets any
        counts = Counter(drawn[users == number].tolist())
        assert sorted(counts) == unknown.tolist()
        share = np.array(list(counts.values())) / n_draws
        sigma = np.sqrt(len(unknown) - 1) / len(unknown) / np.sqrt(n_draws)
        assert np.abs(share - 1 / len(unknown)).max() <= 5 * sigma


def test_batches_may_add_a_negative_of_the_epochs_own_draw(rng: np.random.Generator) -> None:
    pair = random_pair(rng)
    columns = {"row": torch.arange(len(pair.target)), "user": torch.from_numpy(pair.target.user)}
    items = pair.items("target")
    sampler = NegativeSampler(pair.target, items.start, items.stop, torch.device("cpu"))
    loader = DrawingLoader(
        RowLoader(columns, batch_size=16, seed=1, name="target"),
        lambda batch, generator: {"neg_item": sampler.draw(batch["user"], generator)},
    )
    assert (loader.n_rows, len(loader)) == (len(pair.target), -(-len(pair.target) // 16))
    first = epoch(loader, 3, "neg_item")
    assert epoch(loader, 4, "neg_item") != first == epoch(loader, 3, "neg_item")
    known = rows_of(pair.target, ("user", "item"))
    for batch in loader:
        drawn = zip(batch["user"].tolist(), batch["neg_item"].tolist(), strict=True)
        assert not known & set(drawn)


# From files to RecBole's form


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_small_pair(tmp_path / "dataset")
    return tmp_path / "dataset"


def test_seed_does_not_touch_the_split(tmp_path: Path, data: Path) -> None:
    def test_users(**given: Any) -> list[int]:
        return load(tmp_path, **given).split.test_users.tolist()

    assert test_users(seed=1) == test_users(seed=2, epochs=3) != test_users(split_seed=1)


@pytest.mark.parametrize("train_domains", ["both", "target"])
def test_the_three_parts_hide_what_the_split_hides(
    tmp_path: Path, data: Path, train_domains: str
) -> None:
    config = MMConfig("FM", "pair", config_dict={"train_domains": train_domains})
    dataset = PairDataset(config)
    pair, split = dataset.pair, dataset.split
    train, valid, test = dataset.build()
    expected = rows_of(split.train, ("user", "item", "rating"))
    expected |= (
        rows_of(pair.source, ("user", "item", "rating")) if train_domains == "both" else set()
    )

    def in_recbole(part: Any) -> set[tuple[float, ...]]:
        names = ("user_id", "item_id", "rating")
        return set(zip(*(part.inter_feat[name].tolist() for name in names), strict=True))

    assert in_recbole(train) == expected
    assert in_recbole(valid) == rows_of(split.valid, ("user", "item", "rating"))
    assert in_recbole(test) == rows_of(split.test, ("user", "item", "rating"))
    assert dataset.description["test_ratings"] == len(test.inter_feat) > 0
    hidden = set(split.test_users) | set(split.valid_users)
    of_target = train.inter_feat["item_id"].numpy() >= pair.items("target").start
    assert not hidden & set(train.inter_feat["user_id"].numpy()[of_target])
    label = (train.inter_feat["rating"] - 1) / 4  # in [0, 1], as RecBole's losses need it
    assert torch.equal(train.inter_feat["label"], label)
    assert (dataset.user_num, dataset.item_num) == (pair.n_users, pair.n_items) == (61, 61)
    assert dataset.id2token("item_id", pair.n_items - 1) == pair.item_tokens[-1]
    assert dataset.token2id("user_id", pair.user_tokens[5]) == 5


def test_shuffled_files_give_the_same_data_set(
    tmp_path: Path, data: Path, rng: np.random.Generator
) -> None:
    before = load(tmp_path)
    for name in ("pair_movie", "pair_cd"):
        for end in ("inter", "item"):
            path = data / name / f"{name}.{end}"
            header, *lines = path.read_text().splitlines()
            write_lines(path, header, *rng.permutation(lines))
    after = load(tmp_path)
    assert after.config["data_fingerprint"] == before.config["data_fingerprint"]
    for part in ("source", "target"):
        for name in COLUMNS:
            was, now = (getattr(getattr(d.pair, part), name) for d in (before, after))
            np.testing.assert_array_equal(was, now)
    assert after.description == before.description


def test_ranking_keeps_positives_and_describes_everything(tmp_path: Path, data: Path) -> None:
    rating = load(tmp_path)
    config = MMConfig("Popularity", "pair", config_dict={"eval_task": "ranking"})
    ranking = PairDataset(config)
    assert ranking.description == rating.description
    assert ranking.rows["test"] < ranking.description["test_ratings"] == rating.rows["test"]
    for part in (ranking.pair.source, ranking.split.train, ranking.split.test):
        assert part.rating.min() >= 4
    for positive_only in (True, False):
        one, other = (each.histories(positive_only=positive_only) for each in (rating, ranking))
        assert torch.equal(one.start, other.start)
        assert torch.equal(one.item, other.item)
    assert len(ranking.histories(positive_only=True).item) == len(ranking.pair.source)
    assert len(ranking.histories().item) == len(rating.pair.source) > len(ranking.pair.source)


def test_ranking_has_the_lower_ratings_of_training_beside_its_positives(
    tmp_path: Path, data: Path
) -> None:
    rating, ranking = load(tmp_path), load(tmp_path, eval_task="ranking")
    for found, all_ratings in (
        (ranking.rated_source, rating.pair.source),
        (ranking.rated_train, rating.split.train),
    ):
        assert found.rating.min() < 4
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(found, name), getattr(all_ratings, name))


@pytest.mark.parametrize("domain", ["movie", "cd"])
def test_models_that_read_lower_ratings_are_told_apart_by_them(
    tmp_path: Path, data: Path, domain: str
) -> None:
    before = load(tmp_path, eval_task="ranking")
    assert before.config["lower_fingerprint"] is None
    assert len(before.histories(positive_only=True).item)
    assert before.config["lower_fingerprint"] is None
    assert len(before.rated_train)
    path = data / f"pair_{domain}" / f"pair_{domain}.inter"
    header, *rows = path.read_text().splitlines()
    trained = set(before.pair.user_tokens[before.split.train.user])
    low = next(
        row
        for row in rows
        if float(row.split("\t")[2]) < 3 and (domain == "movie" or row.split("\t")[0] in trained)
    )
    user, item, rating, *rest = low.split("\t")
    rows[rows.index(low)] = "\t".join([user, item, str(float(rating) + 0.5), *rest])
    write_lines(path, header, *rows)
    after = load(tmp_path, eval_task="ranking")
    assert len(after.rated_source)
    assert after.config["data_fingerprint"] == before.config["data_fingerprint"]
    assert after.config["lower_fingerprint"] != before.config["lower_fingerprint"]


def test_half_stars_survive_and_ratings_outside_the_range_do_not(
    tmp_path: Path, data: Path
) -> None:
    path = data / "pair_cd" / "pair_cd.inter"
    rating = path.read_text().splitlines()[6].split("\t")[2]
    edit_line(path, 7, f"\t{rating}\t", "\t3.5\t")
    assert (load(tmp_path).pair.target.rating == 3.5).sum() == 1
    edit_line(path, 7, "\t3.5\t", "\t5.5\t")
    message = (
        r"^pair_cd\.inter, line 7, field `rating:float`: 5\.5 is outside 1 to 5\. Set `rating_ra"
    )
    with pytest.raises(DataFormatError, match=message):
        load(tmp_path)
    assert load(tmp_path, rating_range=[0.5, 5.5]).pair.target.rating.max() == 5.5


@pytest.mark.parametrize(
    ("given", "keep"),
    [
        ({"val_interval": {"rating": "[3,inf)"}}, lambda f: f[f["rating"] >= 3]),
        (
            {"item_inter_num_interval": "[10,inf)"},
            lambda f: f[f.groupby("item_id")["item_id"].transform("size") >= 10],
        ),
        (
            {"rm_dup_inter": "last"},
            lambda f: f.sort_values("timestamp").drop_duplicates(
                ["user_id", "item_id"], keep="last"
            ),
        ),
    ],
)
def test_recboles_filters_act_on_each_domain_alone(
    tmp_path: Path, data: Path, given: dict[str, Any], keep: Any
) -> None:
    for name in ("pair_movie", "pair_cd"):  # rate some items a second time
        path = data / name / f"{name}.inter"
        lines = path.read_text().splitlines()
        write_lines(
            path,
            *lines,
            *(f"{line.rsplit(chr(9), 2)[0]}\t2\t{n}" for n, line in enumerate(lines[1:30])),
        )
    # Tokens that both domains use: taken together their items would have twice the ratings.
    for name, letter in (("pair_movie", "m"), ("pair_cd", "c")):
        path = data / name / f"{name}.inter"
        path.write_text(path.read_text().replace(f"\t{letter}", "\ti"))
    dataset = load(tmp_path, **given)
    for name, ratings in (("pair_movie", dataset.pair.source), ("pair_cd", dataset.pair.target)):
        raw = read_inter(data / name / f"{name}.inter", rating_range=(1, 5))
        kept = keep(raw)
        assert 0 < len(kept) < len(raw)
        assert in_tokens(dataset.pair, ratings) == sorted(kept.itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"val_interval": {"rating": "[6,inf)"}}, r"or leave nothing of it: Some feat is empty"),
        ({"val_interval": {"stars": "[3,inf)"}}, r"Field \[stars\] not defined in dataset"),
    ],
)
def test_filters_that_cannot_be_used(
    tmp_path: Path, data: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **given)


class TestUserLink:
    HEADER = "source_user_id:token\ttarget_user_id:token"

    @pytest.fixture
    def renamed(self, data: Path) -> list[str]:
        """Source users with names of their own; those of the target domain by the same order."""
        path = data / "pair_movie" / "pair_movie.inter"
        path.write_text(path.read_text().replace("u0", "s0"))
        users = sorted({line.split("\t")[0] for line in path.read_text().splitlines()[1:]})
        return [user.replace("s0", "u0", 1) for user in users]

    def test_joins_users_of_other_names(
        self, tmp_path: Path, data: Path, renamed: list[str]
    ) -> None:
        with pytest.raises(DataFormatError, match=r"No user is in both domains.*`user_link` file"):
            load(tmp_path)
        lines = [f"{user.replace('u0', 's0', 1)}\t{user}" for user in renamed]
        link = write_lines(tmp_path / "link.tsv", self.HEADER, *lines, "stranger\tu1")
        assert load(tmp_path, user_link=str(link)).pair.n_overlapped == 40

    def test_users_that_it_does_not_name_keep_their_token(
        self, tmp_path: Path, data: Path, renamed: list[str]
    ) -> None:
        first, second = load_overlapped(data, renamed)[:2]
        path = data / "pair_movie" / "pair_movie.inter"
        path.write_text(path.read_text().replace(second.replace("u0", "s0", 1), second))
        link = write_lines(
            tmp_path / "link.tsv", self.HEADER, f"{first.replace('u0', 's0', 1)}\t{first}"
        )
        pair = load(tmp_path, user_link=str(link), test_user_ratio=0.5, valid_user_ratio=0).pair
        assert pair.user_tokens[pair.overlapped_users].tolist() == [first, second]

    def test_never_makes_one_user_of_two(
        self, tmp_path: Path, data: Path, renamed: list[str]
    ) -> None:
        first, second = load_overlapped(data, renamed)[:2]
        link = tmp_path / "link.tsv"
        ours = [user.replace("u0", "s0", 1) for user in (first, second)]
        write_lines(link, self.HEADER, *(f"{user}\t{first}" for user in ours))
        with pytest.raises(
            DataFormatError, match=r"link\.tsv, line 3, field `target_user_id:token`"
        ):
            load(tmp_path, user_link=str(link))
        write_lines(link, self.HEADER, f"{ours[0]}\t{ours[1]}")
        with pytest.raises(
            DataFormatError, match=rf"link\.tsv: the target user `{ours[1]}` is linked"
        ):
            load(tmp_path, user_link=str(link))

    def test_needs_both_columns(self, tmp_path: Path, data: Path) -> None:
        link = write_lines(tmp_path / "link.tsv", "source_user_id:token\tuser:token", "a\tb")
        with pytest.raises(DataFormatError, match=r"line 1: there is no column `target_user_id`"):
            load(tmp_path, user_link=str(link))
        with pytest.raises(DataFormatError, match=r"there is no such file"):
            load(tmp_path, user_link="nowhere.tsv")


def load_overlapped(data: Path, users: list[str]) -> list[str]:
    target = read_inter(data / "pair_cd" / "pair_cd.inter", rating_range=(1, 5))
    return sorted(set(users) & set(target["user_id"]))
