"""A pair of domains: its YAML, its ratings as arrays, its size; and the command `pair`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from dataset_tools.atomic import read_inter
from dataset_tools.domains import domains_of, read_pair_file, refuse_domain_folder
from dataset_tools.manifest import MANIFEST, describe_file, read_object, write_manifest
from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm.errors import ConfigError, DataFormatError

STARS = (1.0, 5.0)  # the rating range where nothing else is said


@dataclass(frozen=True, eq=False)
class Domain:
    """Ratings of a domain as arrays of one length N, in file order.

    Attributes:
        name: The domain.
        user: Rows of `users`, int64 (N,).
        item: Rows of `items`, int64 (N,).
        rating: Ratings, float64 (N,).
        time: Timestamps, float64 (N,), or None where the file has none.
        users: Tokens of the users, sorted, (U,); those of both domains where two are read together.
        items: Tokens of the domain's items, sorted, (I,).
    """

    name: str
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rating: NDArray[np.float64]
    time: NDArray[np.float64] | None
    users: NDArray[np.object_]
    items: NDArray[np.object_]

    def ratings_of_users(self) -> NDArray[np.int64]:
        """How many ratings each user has here, (U,); 0 for those of the other domain only."""
        return np.bincount(self.user, minlength=len(self.users))

    def ratings_of_items(self) -> NDArray[np.int64]:
        """How many ratings each item has, (I,); 0 for those that lost theirs in `where`."""
        return np.bincount(self.item, minlength=len(self.items))

    def where(self, rows: NDArray[Any]) -> Domain:
        """The same users and items with some of the rows, given by a mask (N,) or by places."""
        time = None if self.time is None else self.time[rows]
        user, item, rating = self.user[rows], self.item[rows], self.rating[rows]
        return Domain(self.name, user, item, rating, time, self.users, self.items)


@dataclass(frozen=True)
class Size:
    """How large a domain is; users and items are those with a rating."""

    domain: str
    users: int
    items: int
    ratings: int
    overlapped: int

    @property
    def density(self) -> float:
        """Share of the pairs of user and item that are rated."""
        return self.ratings / (self.users * self.items)

    @property
    def ratings_per_user(self) -> float:
        """Mean number of ratings."""
        return self.ratings / self.users

    @property
    def ratings_per_item(self) -> float:
        """Likewise."""
        return self.ratings / self.items

    @property
    def overlapped_share(self) -> float:
        """Share of the domain's users that are in the other domain too."""
        return self.overlapped / self.users


def make_pair(
    data_path: Path,
    dataset: str,
    source: str,
    target: str,
    *,
    rating_range: tuple[float, float] | None = None,
) -> list[Size]:
    """Make two domains a pair: the command `pair`.

    Args:
        data_path: The folder of the domains.
        dataset: The pair to be; its YAML is written to `<data_path>/<dataset>/<dataset>.yaml`.
        source: The domain in which all users have a past.
        target: The domain in which cold-start users are new.
        rating_range: Lowest and highest rating of both; by default what their manifests say, or
            1 to 5.

    Returns:
        The sizes of source and target.

    Raises:
        ConfigError: If the names cannot be, or the folder cannot be written to.
        DataFormatError: If a domain is missing or malformed, or no user is in both.
    """
    if len({dataset, source, target}) < 3:
        raise ConfigError(
            f"dataset `{dataset}`, source `{source}` and target `{target}` must be three different "
            "names."
        )
    for domain in (source, target):
        if domains_of(data_path, domain) != [domain]:
            raise ConfigError(f"`{domain}` is a pair. Give one of its domains.")
    refuse_own_settings(data_path, dataset)
    if rating_range is None:
        ranges = [read_rating_range(data_path, domain) for domain in (source, target)]
        rating_range = min(low for low, _ in ranges), max(high for _, high in ranges)
    sizes = sizes_of(read_domains(data_path, [source, target], rating_range))
    write_pair_file(data_path, dataset, source, target, rating_range=rating_range)
    folder = data_path / dataset
    write_manifest(
        folder / f"{dataset}{MANIFEST}",
        "pair",
        {"source": source, "target": target, "rating_range": list(rating_range)},
        [describe_file(data_path / domain / f"{domain}.inter") for domain in (source, target)],
        {"overlapped_users": sizes[0].overlapped},
        [describe_file(folder / f"{dataset}.yaml")],
    )
    return sizes


def write_pair_file(
    data_path: Path,
    dataset: str,
    source: str,
    target: str,
    *,
    rating_range: tuple[float, float] = STARS,
) -> None:
    """Write the YAML that makes two domains a pair.

    Args:
        data_path: The folder of the domains.
        dataset: The pair.
        source: The source domain.
        target: The target domain.
        rating_range: Lowest and highest rating of both; written where it is not 1 to 5.

    Raises:
        ConfigError: If the folder cannot be written to, or the name is that of a domain.
    """
    refuse_domain_folder(data_path, dataset)
    settings: dict[str, Any] = {"source_dataset": source, "target_dataset": target}
    if rating_range != STARS:
        settings["rating_range"] = list(rating_range)
    with atomic_path(data_path / dataset / f"{dataset}.yaml") as file:
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        file.write_text(text, encoding="utf-8", newline="\n")


def read_rating_range(data_path: Path, dataset: str) -> tuple[float, float]:
    """Rating range of a pair, from its YAML, or of a domain, from its manifest; else that of stars.

    Args:
        data_path: The folder of the domains.
        dataset: A pair or a domain that `domains_of` has found.

    Raises:
        ConfigError: If it is no range, or the users are linked by a file, which is not read here.
    """
    file = data_path / dataset / f"{dataset}.yaml"
    if not file.is_file():
        made = read_object(data_path / dataset / f"{dataset}{MANIFEST}")
        options = made.get("options")
        told = options.get("rating_range") if isinstance(options, dict) else None
        return check_range(STARS if told is None else told)
    settings = read_pair_file(file)
    if settings.get("user_link") is not None:
        raise ConfigError(
            f"{file.name}: `user_link` is not read here; users are the same where their tokens are "
            "equal. Rename the source domain's users in its .inter file."
        )
    return check_range(settings.get("rating_range", STARS))


def refuse_own_settings(data_path: Path, dataset: str) -> None:
    """Refuse to write over a pair's YAML that says more than would be written.

    Raises:
        ConfigError: If it has other settings.
    """
    file = data_path / dataset / f"{dataset}.yaml"
    if file.is_file():
        own = sorted(
            set(read_pair_file(file)) - {"source_dataset", "target_dataset", "rating_range"}
        )
        if own:
            raise ConfigError(
                f"{file}: has settings of its own ({', '.join(own)}), which would be lost. Edit "
                "it, or take another --dataset."
            )


def check_range(value: Any) -> tuple[float, float]:
    """Take a rating range as it stands in a YAML or, as `0.5,5`, on a command line.

    Raises:
        ConfigError: If it is not two numbers, the lower one first.

    >>> check_range("0.5,5"), check_range([0, 10])
    ((0.5, 5.0), (0.0, 10.0))
    """
    parts = value.strip("[]").split(",") if isinstance(value, str) else value
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        low = high = np.nan
    if not -np.inf < low < high < np.inf:
        raise ConfigError(
            f"rating_range: {value!r} must be the lowest and the highest rating, for example 0.5,5."
        )
    return low, high


def read_domains(
    data_path: Path, names: Sequence[str], rating_range: tuple[float, float]
) -> list[Domain]:
    """Read a domain, or the two of a pair with their users in one table.

    Args:
        data_path: The folder of the domains.
        names: The domain, or source and target.
        rating_range: Lowest and highest rating there may be.

    Raises:
        DataFormatError: If a domain is missing or malformed, or no user is in both.
    """
    domains = [_read_domain(data_path, name, rating_range) for name in names]
    if len(domains) == 1:
        return domains
    source, target = domains
    users = np.union1d(source.users, target.users)
    if len(users) == len(source.users) + len(target.users):
        raise DataFormatError(
            f"No user is in both domains: `{source.name}` has {len(source.users):,} users such as "
            f"`{source.users[0]}`, `{target.name}` has {len(target.users):,} such as "
            f"`{target.users[0]}`. Users are the same where their tokens are equal; rename them in "
            "one of the .inter files, or take other domains."
        )
    return [
        Domain(
            name=domain.name,
            user=np.searchsorted(users, domain.users)[domain.user],
            item=domain.item,
            rating=domain.rating,
            time=domain.time,
            users=users,
            items=domain.items,
        )
        for domain in domains
    ]


def overlapped_users(domains: Sequence[Domain]) -> NDArray[np.bool_]:
    """Which users have ratings in all of these domains, (U,), in the order of `Domain.users`."""
    return np.logical_and.reduce([domain.ratings_of_users() > 0 for domain in domains])


def sizes_of(domains: Sequence[Domain]) -> list[Size]:
    """The sizes of a domain, or of both of a pair; a domain alone has no overlapped users."""
    overlapped = int(overlapped_users(domains).sum()) if len(domains) > 1 else 0
    return [
        Size(
            domain=domain.name,
            users=int((domain.ratings_of_users() > 0).sum()),
            items=int((domain.ratings_of_items() > 0).sum()),
            ratings=len(domain.user),
            overlapped=overlapped,
        )
        for domain in domains
    ]


def _read_domain(data_path: Path, name: str, rating_range: tuple[float, float]) -> Domain:
    frame = read_inter(data_path / name / f"{name}.inter", rating_range=rating_range)
    user, users = pd.factorize(frame["user_id"], sort=True)
    item, items = pd.factorize(frame["item_id"], sort=True)
    return Domain(
        name=name,
        user=user.astype(np.int64, copy=False),
        item=item.astype(np.int64, copy=False),
        rating=frame["rating"].to_numpy(),
        time=frame["timestamp"].to_numpy() if "timestamp" in frame else None,
        users=users.to_numpy(object),
        items=items.to_numpy(object),
    )
