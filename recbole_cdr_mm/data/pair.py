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

    def in_order(self, order: NDArray[np.int64]) -> Ratings:
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
                "users": len(np.unique(ratings.user)),
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
    source_users, target_users = set(source["user"].unique()), set(target["user"].unique())
    overlapped = sorted(source_users & target_users)
    if not overlapped:
        raise DataFormatError(
            f"No user is in both domains ({len(source_users)} source users such as"
            f" `{min(source_users)}`, {len(target_users)} target users such as"
            f" `{min(target_users)}`). Users are the same where their tokens are equal; if the"
            " domains name them differently, give a `user_link` file."
        )
    source_only = sorted(source_users - target_users)
    users = pd.Index([*overlapped, *source_only, *sorted(target_users - source_users)])
    source_items = pd.Index(sorted(source["item"].unique()))
    target_items = pd.Index(sorted(target["item"].unique()))
    return Pair(
        source=_to_ids(source, users, source_items, first_item=1),
        target=_to_ids(target, users, target_items, first_item=1 + len(source_items)),
        user_tokens=np.array([PAD, *users], dtype=object),
        item_tokens=np.array([PAD, *source_items, *target_items], dtype=object),
        n_overlapped=len(overlapped),
        n_source_only=len(source_only),
        n_source_items=len(source_items),
        timestamped=frozenset(domain for domain, frame in frames.items() if "time" in frame),
    )


def _to_ids(frame: pd.DataFrame, users: pd.Index, items: pd.Index, first_item: int) -> Ratings:
    """Number a domain's rows, and order them by user, time, and place in the file."""
    place = np.arange(len(frame), dtype=np.float64)
    ratings = Ratings(
        user=users.get_indexer(frame["user"]).astype(np.int64) + 1,
        item=items.get_indexer(frame["item"]).astype(np.int64) + first_item,
        rating=frame["rating"].to_numpy(np.float32),
        time=frame["time"].to_numpy(np.float64) if "time" in frame else place,
    )
    # Without timestamps 'last' means file order; item and rating break ties of equal timestamps, so
    # that shuffled lines of a file with timestamps give the same rows.
    return ratings.in_order(np.lexsort((ratings.rating, ratings.item, ratings.time, ratings.user)))
