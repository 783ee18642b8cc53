"""Ratings of any source: checked, held in columns, freed of repeated ones, cut to a core, written.

A rating takes 24 bytes: row numbers of user and item, stars, and seconds. So ten million take
240 MB, and twice that for a moment while repeated ones are found.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from dataset_tools.convert.problems import Fault
from dataset_tools.convert.raw_file import ahead
from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import ConfigError, DataFormatError

DUPLICATES = ("last", "first", "mean", "error")
UNITS = {"s": 1, "ms": 1000, "us": 1_000_000}  # in a second
EARLIEST, LATEST = 631_152_000.0, 4_102_444_800.0  # 1990 and 2100, in seconds since 1970
SLICE = 1 << 20  # ratings that are text at a time


@dataclass(frozen=True)
class Rules:
    """What a rating must be.

    Attributes:
        low: Lowest rating.
        high: Highest rating.
        unit: Of the raw timestamps, a key of `UNITS`.
        beyond: What to do where ratings go further, for messages.
        id_pattern: Regular expression that an id matches.
        id_kind: What such an id is, for messages.
    """

    low: float = 1.0
    high: float = 5.0
    unit: str = "s"
    beyond: str = ""
    id_pattern: str = r"^[^\s\x00-\x1f\x7f\"](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
    id_kind: str = (
        "an id: it is not empty, does not begin or end with a blank, does not begin with a double "
        "quote and has no control characters"
    )

    def seconds(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with its times, if it has any, in seconds."""
        if "timestamp" not in frame.columns:
            return frame
        return frame.with_columns(pl.col("timestamp").cast(pl.Float64) / UNITS[self.unit])

    def good(self, frame: pl.DataFrame) -> pl.Series:
        """Which rows are ratings.

        Args:
            frame: `user_id` and `item_id`, text; `rating`, float64; perhaps `timestamp`, seconds.

        Returns:
            A truth value for each row.
        """
        good = [
            pl.col("user_id").str.contains(self.id_pattern),
            pl.col("item_id").str.contains(self.id_pattern),
            pl.col("rating").is_between(self.low, self.high),
        ]
        if "timestamp" in frame.columns:
            good.append(pl.col("timestamp").is_between(EARLIEST, LATEST))
        return frame.select(pl.all_horizontal(good).fill_null(False)).to_series()

    def explain(self, user: object, item: object, rating: object, time: object = EARLIEST) -> Fault:
        """Say what is wrong with one rating, given as it stands in the raw file."""
        for name, value in (("user", user), ("item", item)):
            if value is None:
                return Fault("no id", f"there is no {name}")
            text = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            if not pl.Series([text]).str.contains(self.id_pattern).item():
                return Fault("bad id", f"the {name} {str(value)!r} is not {self.id_kind}")
        stars = _number(rating)
        if stars is None:
            return Fault("bad rating", f"the rating {rating!r} is no number")
        if not self.low <= stars <= self.high:
            return Fault(
                "rating out of range",
                f"a rating of {stars:.15g} is outside {self.low:g} to {self.high:g}{self.beyond}",
            )
        raw = _number(time)
        if raw is None:
            return Fault("bad time", f"the time {time!r} is no number")
        if not EARLIEST <= raw / UNITS[self.unit] <= LATEST:
            return Fault("bad time", f"the time {raw:.15g} {self._unit_of(raw)}")
        return Fault("no rating", "is no rating of the expected form")

    def _unit_of(self, raw: float) -> str:
        """Say what a time may be that is none in the expected unit."""
        for name, per_second in UNITS.items():
            if EARLIEST <= raw / per_second <= LATEST:
                return f"is in {name}, not in {self.unit}"
        return f"is not between 1990 and 2100 in {self.unit}"


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings in file order, as columns of numbers.

    Attributes:
        users: Names of the users (U,), in the order of their first rating in the file.
        items: Names of the items (I,), likewise.
        user: Row of `users`, uint32 (N,).
        item: Row of `items`, uint32 (N,).
        rating: Stars, float64 (N,).
        time: Seconds since 1970, float64 (N,), or None.
    """

    users: pl.Series
    items: pl.Series
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray | None

    @classmethod
    def read(cls, frames: Iterable[pl.DataFrame]) -> Ratings:
        """Gather frames of good rows, their times in seconds."""
        users, items = _Coder(), _Coder()
        columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
        for frame in frames:
            columns[0].append(users.encode(frame["user_id"]))
            columns[1].append(items.encode(frame["item_id"]))
            columns[2].append(frame["rating"].to_numpy())
            if "timestamp" in frame.columns:
                columns[3].append(frame["timestamp"].to_numpy())
        return cls(
            users.names(),
            items.names(),
            np.concatenate(columns[0] or [np.empty(0, np.uint32)]),
            np.concatenate(columns[1] or [np.empty(0, np.uint32)]),
            np.concatenate(columns[2] or [np.empty(0)]),
            np.concatenate(columns[3]) if columns[3] else None,
        )

    def __len__(self) -> int:
        return len(self.user)

    @property
    def n_users(self) -> int:
        """How many users have a rating."""
        return int(np.count_nonzero(np.bincount(self.user)))

    def rated_items(self) -> list[str]:
        """The items that have a rating, in the order of their first one in the file."""
        return self.items.filter(np.bincount(self.item, minlength=len(self.items)) > 0).to_list()

    def without_repeated(self, duplicates: str = "last") -> Ratings:
        """Leave one rating for each user and item, where the one that is kept stood.

        Args:
            duplicates: `last` and `first` by time, in file order where times are equal or missing;
                `mean`, of all, at the place and time of the last.
        """
        pair = self._pairs()
        twice = np.flatnonzero(pl.Series(pair).is_duplicated().to_numpy())
        if not len(twice):
            return self
        time = np.zeros(len(twice)) if self.time is None else self.time[twice]
        order = twice[np.lexsort((twice, time, pair[twice]))]
        first = np.flatnonzero(np.diff(pair[order], prepend=-1))  # where the next pair begins
        last = np.append(first[1:], len(order)) - 1
        chosen = order[first if duplicates == "first" else last]
        rating = self.rating
        if duplicates == "mean":
            rating = rating.copy()
            rating[chosen] = np.add.reduceat(rating[order], first) / (last - first + 1)
        kept = np.ones(len(self), dtype=bool)
        kept[twice] = False
        kept[chosen] = True
        return replace(self, rating=rating)._where(kept)

    def first_repeated(self) -> tuple[str, str] | None:
        """User and item of the first rating that has an earlier one of both."""
        again = ~pl.Series(self._pairs()).is_first_distinct().to_numpy()
        if not again.any():
            return None
        row = int(again.argmax())
        return self.users[int(self.user[row])], self.items[int(self.item[row])]

    def core(self, k: int) -> Ratings:
        """Leave out users and items with fewer than k ratings until none is left that has fewer."""
        kept = np.ones(len(self), dtype=bool)
        while True:
            enough = kept.copy()
            for rows in (self.user, self.item):
                counts = np.bincount(rows[kept], minlength=int(rows.max(initial=0)) + 1)
                enough &= counts[rows] >= k
            if enough.sum() == kept.sum():
                return self if kept.all() else self._where(kept)
            kept = enough

    def frames(self) -> Iterator[pl.DataFrame]:
        """The ratings as text and numbers, for `write_inter`, in slices."""
        for start in range(0, len(self), SLICE):
            part = slice(start, start + SLICE)
            columns = {
                "user_id": self.users.gather(self.user[part]),
                "item_id": self.items.gather(self.item[part]),
                "rating": pl.Series(self.rating[part]),
            }
            if self.time is not None:
                columns["timestamp"] = pl.Series(self.time[part])
            yield pl.DataFrame(columns)

    def _pairs(self) -> np.ndarray:
        """A number for user and item of each rating, int64 (N,)."""
        return self.user.astype(np.int64) * len(self.items) + self.item

    def _where(self, kept: np.ndarray) -> Ratings:
        return replace(
            self,
            user=self.user[kept],
            item=self.item[kept],
            rating=self.rating[kept],
            time=None if self.time is None else self.time[kept],
        )


class RatingFile(Protocol):
    """A file that ratings can be read from: `RawFile`, or a parquet file."""

    path: Path

    def frames(self, form: Any) -> Generator[pl.DataFrame, None, None]:
        """Rows of ratings, checked, in file order."""

    def second(self, form: Any, user: str, item: str) -> str:
        """Name the place of the second rating of a user for an item."""


def read_ratings(
    file: RatingFile,
    form: Any,
    *,
    duplicates: str = "last",
    k_core: int = 0,
) -> tuple[Ratings, dict[str, int]]:
    """Read a file of ratings.

    Args:
        file: The file.
        form: How its lines are to be read.
        duplicates: Which of several ratings of a user for an item counts: `last`, `first`, `mean`,
            or `error`, which allows none.
        k_core: Ratings that each user and each item has at least; 0 and 1 keep all.

    Returns:
        The ratings, and how many were `read`, `repeated` and `outside_core`.

    Raises:
        ConfigError: If an option cannot be.
        DataFormatError: If the file is malformed, or no rating is left.
    """
    check_choice("duplicates", duplicates, DUPLICATES)
    if k_core < 0:
        raise ConfigError(f"k_core must be 0 or more, not {k_core}.")
    with ahead(file.frames(form)) as frames:
        read = Ratings.read(frames)
    if not len(read):
        raise DataFormatError(f"{file.path.name}: has no ratings. Download it again.")
    if duplicates == "error" and (repeated := read.first_repeated()):
        user, item = repeated
        raise DataFormatError(
            f"{file.second(form, user, item)}: user {user!r} rates item {item!r} a second time. "
            "Correct it, or take --duplicates=last, first or mean."
        )
    once = read.without_repeated(duplicates)
    core = once.core(k_core) if k_core > 1 else once
    if not len(core):
        raise DataFormatError(
            f"{file.path.name}: no rating is left of {len(once):,}, for no users and items have "
            f"{k_core} ratings of one another. Take a smaller --k_core."
        )
    return core, {
        "read": len(read),
        "repeated": len(read) - len(once),
        "outside_core": len(once) - len(core),
    }


class _Coder:
    """Names to the numbers 0, 1, ... in the order in which they are first met."""

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._alive = pl.Series([], dtype=self._type)  # Polars forgets a coding that no series has

    def encode(self, names: pl.Series) -> np.ndarray:
        """Numbers of names, uint32."""
        return names.cast(self._type).to_physical().to_numpy()

    def names(self) -> pl.Series:
        """The names by their number."""
        return self._type.categories.to_series()


def _number(value: object) -> float | None:
    """Read a number; what is none becomes None."""
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return None
