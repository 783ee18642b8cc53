"""Two domains in one id space.

Users: 0 is padding, then the overlapped users, then those of the source domain only, then those of
the target domain only. Items: 0 is padding, then the source items, then the target items. Within
each range ids follow the sorted tokens, so the order of the lines in the files does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from recbole_cdr_mm.errors import DataFormatError

DomainName = Literal["source", "target"]
PAD = "[PAD]"


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings as arrays of one length N: ids `user`, `item`, float32 `rating`, float64 `time`.

    `time` holds seconds, or the row's place in the file where the domain has no timestamps.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rating: NDArray[np.float32]
    time: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)

    def where(self, mask: NDArray[np.bool_]) -> Ratings:
        """The rows for which a mask of shape (N,) is true."""
        return Ratings(self.user[mask], self.item[mask], self.rating[mask], self.time[mask])

    def at_least(self, threshold: float) -> Ratings:
        """The rows rated `threshold` or more."""
        return self.where(self.rating >= threshold)

    def in_order(self, order: NDArray[np.integer]) -> Ratings:
        """The rows at the places that `order` of shape (N,) names."""
        return Ratings(self.user[order], self.item[order], self.rating[order], self.time[order])


@dataclass(frozen=True, eq=False)
class Pair:
    """A source and a target domain in one id space.

    Attributes:
        source: All ratings of the source domain.
        target: All ratings of the target domain.
        user_tokens: Tokens by user id as they stand in the files, (U,); row 0 is padding. A token
            stands for two users where `keep_links` has cut the link of a person.
        item_tokens: Tokens by item id as they stand in the files, (I,); row 0 is padding. A token
            may stand in both domains, for two items.
        n_overlapped: Overlapped users; their ids are 1 .. n_overlapped.
        n_source_only: Users of the source domain only; their ids follow.
        n_source_items: Source items; their ids are 1 .. n_source_items.
        timestamped: The domains that have real timestamps.
    """

    source: Ratings
    target: Ratings
    user_tokens: NDArray[np.object_]
    item_tokens: NDArray[np.object_]
    n_overlapped: int
    n_source_only: int
    n_source_items: int
    timestamped: frozenset[DomainName]

    @property
    def n_users(self) -> int:
        """Users with the padding row."""
        return len(self.user_tokens)

    @property
    def n_items(self) -> int:
        """Items of both domains with the padding row."""
        return len(self.item_tokens)

    @property
    def has_timestamps(self) -> bool:
        """Whether both domains have real timestamps."""
        return len(self.timestamped) == 2

    @property
    def overlapped_users(self) -> NDArray[np.int64]:
        """Ids of the overlapped users, (n_overlapped,)."""
        return np.arange(1, 1 + self.n_overlapped)

    def items(self, domain: DomainName) -> slice:
        """The ids of a domain's items."""
        first_target = 1 + self.n_source_items
        return slice(1, first_target) if domain == "source" else slice(first_target, self.n_items)

    def statistics(self) -> dict[str, dict[str, int]]:
        """Users, items and ratings of each domain."""
        domains: dict[DomainName, Ratings] = {"source": self.source, "target": self.target}
        return {
            name: {
                "users": int(np.count_nonzero(np.bincount(ratings.user))),
                "items": len(range(*self.items(name).indices(self.n_items))),
                "ratings": len(ratings),
            }
            for name, ratings in domains.items()
        }


def join_domains(source: pd.DataFrame, target: pd.DataFrame) -> Pair:
    """Put two domains into one id space.

    Args:
        source: The source domain, with columns user, item (tokens), rating and, optionally, time.
        target: The target domain, likewise.

    Raises:
        DataFormatError: If no user is in both domains.
    """
    frames: dict[DomainName, pd.DataFrame] = {"source": source, "target": target}
    users = {domain: _categories(frame["user"]) for domain, frame in frames.items()}
    items = {domain: _categories(frame["item"]) for domain, frame in frames.items()}
    source_users, target_users = (users[domain].categories for domain in frames)
    in_both = {
        "source": source_users.isin(target_users),
        "target": target_users.isin(source_users),
    }
    overlapped = source_users[in_both["source"]]
    if not len(overlapped):
        raise DataFormatError(
            f"No user is in both domains ({len(source_users)} source users such as"
            f" `{source_users[0]}`, {len(target_users)} target users such as"
            f" `{target_users[0]}`). Users are the same where their tokens are equal; if the"
            " domains name them differently, give a `user_link` file."
        )
    source_only, target_only = (users[domain].categories[~in_both[domain]] for domain in frames)
    first_user_alone = 1 + len(overlapped)
    source_items, target_items = (items[domain].categories for domain in frames)

    def ratings(domain: DomainName, first_user: int, first_item: int) -> Ratings:
        ids = np.empty(len(in_both[domain]), dtype=np.int64)
        ids[in_both[domain]] = np.arange(1, first_user_alone)
        ids[~in_both[domain]] = first_user + np.arange(len(ids) - len(overlapped))
        frame, user = frames[domain], ids[users[domain].codes]
        item = first_item + items[domain].codes.astype(np.int64)
        rating = frame["rating"].to_numpy(np.float32)
        time = frame["time"].to_numpy(np.float64) if "time" in frame else None
        place = np.arange(len(frame), dtype=np.float64)
        rows = Ratings(user, item, rating, place if time is None else time)
        # Behind this, rows in the order of their users' tokens are in that of their ids.
        is_alone = user >= first_user_alone
        rows = rows.in_order(np.r_[np.flatnonzero(~is_alone), np.flatnonzero(is_alone)])
        order = row_order(rows.user, rows.item, rows.rating, None if time is None else rows.time)
        return rows if order is None else rows.in_order(order)

    return Pair(
        source=ratings("source", first_user_alone, 1),
        target=ratings("target", first_user_alone + len(source_only), 1 + len(source_items)),
        user_tokens=np.array([PAD, *overlapped, *source_only, *target_only], dtype=object),
        item_tokens=np.array([PAD, *source_items, *target_items], dtype=object),
        n_overlapped=len(overlapped),
        n_source_only=len(source_only),
        n_source_items=len(source_items),
        timestamped=frozenset(domain for domain, frame in frames.items() if "time" in frame),
    )


def _categories(tokens: pd.Series) -> pd.Categorical:
    """Tokens as places among the sorted ones that are there."""
    if not isinstance(tokens.dtype, pd.CategoricalDtype):
        return pd.Categorical(tokens.astype(object))
    codes, categories = tokens.cat.codes.to_numpy(), tokens.cat.categories
    is_there = np.bincount(codes, minlength=len(categories)) > 0
    place = np.cumsum(is_there, dtype=codes.dtype) - 1
    return pd.Categorical.from_codes(place[codes], categories[is_there], validate=False)


def row_order(
    user: NDArray[np.integer],
    item: NDArray[np.integer],
    rating: NDArray[np.floating],
    time: NDArray[np.floating] | None,
) -> NDArray[np.integer] | None:
    """Order a domain's rows by user and time; without times a user's rows stay as they are.

    Item and rating break ties of equal times, so that shuffled lines of a file with timestamps give
    the same rows.

    Args:
        user: Ids, or whatever is ordered as they are, (N,).
        item: Likewise (N,).
        rating: Of the rows (N,).
        time: Of the rows (N,), or None.

    Returns:
        The places of the rows in that order, (N,); None if they are in it.
    """
    keys: dict[str, NDArray] = {"user": user}
    if time is not None:
        keys |= {"time": time, "item": item, "rating": rating}
    if _are_in_order(list(keys.values())):
        return None
    # Polars sorts by several columns in an eighth of the time that numpy.lexsort takes.
    order = pl.DataFrame(keys).select(pl.arg_sort_by(list(keys), maintain_order=True))
    return order.to_series().to_numpy()


def _are_in_order(keys: list[NDArray]) -> bool:
    """Whether rows are sorted by the first key and, where that is equal, by the next one."""
    is_equal = np.ones(max(0, len(keys[0]) - 1), dtype=bool)
    for key in keys:
        if np.any(is_equal & (key[:-1] > key[1:])):
            return False
        is_equal &= key[:-1] == key[1:]
    return True
