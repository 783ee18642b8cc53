"""A smaller pair that keeps what matters of a large one: the command `sample`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dataset_tools.atomic import read_items, write_inter, write_items
from dataset_tools.domains import domains_of, refuse_domain_folder, refuse_pair_folder
from dataset_tools.manifest import describe_file, write_domain_manifest
from dataset_tools.pair import (
    Domain,
    Size,
    overlapped_users,
    read_domains,
    read_rating_range,
    refuse_own_settings,
    sizes_of,
    write_pair_file,
)
from dataset_tools.safe_output import atomic_folder
from recbole_cdr_mm.errors import ConfigError

FEWEST = 2.0  # ratings that a user, and an item, keeps on average
FEWEST_OVERLAPPED = 10  # with fewer there are no test, validation and training users


def make_sample(
    data_path: Path, dataset: str, to: str, *, ratio: float = 0.1, seed: int = 0
) -> list[tuple[Size, Size]]:
    """Make a pair of a share of the ratings: the command `sample`.

    See `draw_sample` for what is kept. The new domains are `<to>_source` and `<to>_target`, each
    with an `.inter` file, an `.item` file where there was one, and a manifest.

    Args:
        data_path: The folder of the domains, old and new.
        dataset: The pair to draw from.
        to: The pair to be.
        ratio: Share of the ratings to keep, in (0, 1).
        seed: Decides everything that is drawn.

    Returns:
        For source and target the sizes before and after.

    Raises:
        ConfigError: If an option cannot be, or the pair is too small for the ratio.
        DataFormatError: If a domain is missing or malformed.
    """
    if not 0 < ratio < 1:
        raise ConfigError(f"ratio must be above 0 and below 1, not {ratio:g}.")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}.")
    names = domains_of(data_path, dataset)
    if len(names) == 1:
        raise ConfigError(
            f"`{dataset}` is a domain. Give a pair; `python -m dataset_tools pair` makes one."
        )
    new_names = [f"{to}_source", f"{to}_target"]
    taken = {dataset, *names} & {to, *new_names}
    if taken:
        raise ConfigError(f"to `{to}` would write over `{min(taken)}`. Choose another name.")
    refuse_domain_folder(data_path, to)
    refuse_own_settings(data_path, to)
    for name in new_names:
        refuse_pair_folder(data_path, name)
    rating_range = read_rating_range(data_path, dataset)
    domains = read_domains(data_path, names, rating_range)
    before = sizes_of(domains)
    drawn = draw_sample(domains, ratio, np.random.default_rng(seed))
    sampled = [replace(d, name=new) for d, new in zip(drawn, new_names, strict=True)]
    after = sizes_of(sampled)
    options = {"dataset": dataset, "to": to, "ratio": ratio, "seed": seed}
    options["rating_range"] = list(rating_range)
    for name, domain, old, new in zip(names, sampled, before, after, strict=True):
        _write_domain(
            data_path, name, domain, options, {"before": asdict(old), "after": asdict(new)}
        )
    source, target = new_names
    write_pair_file(data_path, to, source, target, rating_range=rating_range)
    return list(zip(before, after, strict=True))


def draw_sample(domains: Sequence[Domain], ratio: float, rng: np.random.Generator) -> list[Domain]:
    """Draw some users and items of a pair, and of the ratings between them.

    All ratings between a share p of the users, drawn at random, and a share q of the items are a
    share p q of the ratings, and the density stays. p and q are those of `find_shares`, the same
    in both domains, for only then do the overlapped users keep their share in both. What cannot
    stay is the number of ratings of a user, which falls to q, and of an item, which falls to p.

    Users and items that lose all their ratings are none any more; taken as it comes that would
    leave too few of them, and too dense a rest. Hence:

    1. Items are drawn, in strata of popularity; more than q by as many as will find no rater.
    2. Users are drawn who have a rating of these items, overlapped users from those who have one
       in both domains. Overlapped, source-only and target-only users are drawn apart, so that each
       kind keeps its share, and in strata of activity.
    3. These users rated more of the items than others do, so ratings are left out at random until
       the density is that of the original. Every user and every item keeps one.

    Args:
        domains: Source and target, as `read_domains` gives them.
        ratio: Share of the ratings to keep, in (0, 1).
        rng: Draws everything.

    Returns:
        Source and target with the rows that are kept, in the same order.

    Raises:
        ConfigError: If the pair is too small for the ratio.
    """
    sizes = sizes_of(domains)
    share_of_users, share_of_items = find_shares(sizes, ratio)
    parts = []
    for domain in domains:
        popularity = domain.ratings_of_items()
        finds_a_rater = 1 - (1 - share_of_users) ** popularity  # a probability
        n = round(share_of_items * len(popularity) / finds_a_rater.mean())
        chosen = _draw(rng, popularity, np.ones(len(popularity), dtype=bool), n)
        parts.append(domain.where(chosen[domain.item]))

    overlapped, still = overlapped_users(domains), overlapped_users(parts)
    share_of_users = min(share_of_users, still.sum() / overlapped.sum())
    counts = [domain.ratings_of_users() for domain in domains]
    activity = counts[0] + counts[1]
    chosen = np.zeros(len(overlapped), dtype=bool)
    kinds = [(overlapped, still)]
    for count, part in zip(counts, parts, strict=True):
        kinds.append((~overlapped & (count > 0), part.ratings_of_users() > 0))
    for kind, able in kinds:
        n = round(share_of_users * kind.sum())
        chosen[kind] = _draw(rng, activity[kind], able[kind], n)
    return [
        _thin(rng, part.where(chosen[part.user]), size.density)
        for part, size in zip(parts, sizes, strict=True)
    ]


def find_shares(sizes: Sequence[Size], ratio: float) -> tuple[float, float]:
    """Choose the shares of users and of items; their product is the ratio.

    Both are the square root of the ratio, unless the users or the items of a domain would be left
    with fewer than `FEWEST` ratings on average, or with fewer than they have where that is less;
    or the pair with fewer than `FEWEST_OVERLAPPED` overlapped users. Then they are the nearest for
    which that is not so.

    Args:
        sizes: Of source and target.
        ratio: Share of the ratings to keep.

    Raises:
        ConfigError: If there are no such shares.

    >>> find_shares([Size("a", 100, 100, 2000, 50), Size("b", 100, 50, 500, 50)], 0.25)
    (0.5, 0.5)
    >>> find_shares([Size("a", 100, 100, 2000, 50), Size("b", 100, 50, 300, 50)], 0.25)
    (0.375, 0.6666666666666666)
    """
    least = FEWEST_OVERLAPPED / sizes[0].overlapped
    most = np.inf  # as a multiple of the ratio: no user can have more ratings than before
    for size in sizes:
        least = max(least, min(1.0, FEWEST / size.ratings_per_item))
        most = min(most, max(1.0, size.ratings_per_user / FEWEST))
    if least > min(1.0, ratio * most):
        smallest = np.ceil(100 * least / most) / 100
        possible = least <= 1 and smallest < 1
        advice = f"Give --ratio={smallest:g} or more" if possible else "Take it as it is"
        raise ConfigError(
            f"ratio {ratio:g} is too small for a pair of {sizes[0].overlapped:,} overlapped users "
            f"and {min(size.ratings for size in sizes):,} ratings in the smaller domain: it leaves "
            f"fewer than {FEWEST_OVERLAPPED} overlapped users, or fewer than {FEWEST:g} ratings on "
            f"average of a user or an item. {advice}."
        )
    users = float(np.clip(np.sqrt(ratio), max(least, ratio), min(1.0, ratio * most)))
    return users, ratio / users


def _draw(
    rng: np.random.Generator, size: NDArray[np.int64], able: NDArray[np.bool_], n: int
) -> NDArray[np.bool_]:
    """Draw n of those who are able, one from each of n strata by size.

    Where a stratum has none of them others give a second one.
    """
    n = min(n, int(able.sum()))
    places = np.arange(len(size))
    stratum = np.empty(len(size), dtype=np.int64)
    stratum[np.lexsort((rng.random(len(size)), size))] = places * n // len(size)
    order = np.lexsort((rng.random(len(size)), ~able, stratum))  # in each stratum the able first
    first = np.searchsorted(stratum[order], stratum[order])
    rank = np.empty(len(size), dtype=np.int64)
    rank[order] = places - first
    drawn = np.zeros(len(size), dtype=bool)
    drawn[np.lexsort((rng.random(len(size)), rank, ~able))[:n]] = True
    return drawn


def _thin(rng: np.random.Generator, domain: Domain, density: float) -> Domain:
    """Leave out ratings at random until the density is reached; users and items keep one each."""
    (size,) = sizes_of([domain])
    order = rng.permutation(size.ratings)
    kept = np.zeros(size.ratings, dtype=bool)
    kept[order[np.unique(domain.user[order], return_index=True)[1]]] = True
    bare = order[~np.isin(domain.item[order], domain.item[kept])]
    kept[bare[np.unique(domain.item[bare], return_index=True)[1]]] = True
    missing = round(density * size.users * size.items) - kept.sum()
    kept[order[~kept[order]][: max(missing, 0)]] = True
    return domain.where(kept)


def _write_domain(
    data_path: Path,
    original: str,
    domain: Domain,
    options: dict[str, Any],
    counts: dict[str, Any],
) -> None:
    """Write ratings and items of a domain, and its manifest, all at once."""
    name = domain.name
    inter, items = (data_path / original / f"{original}.{kind}" for kind in ("inter", "item"))
    inputs = [inter, items] if items.is_file() else [inter]
    columns = {
        "user_id": domain.users[domain.user],
        "item_id": domain.items[domain.item],
        "rating": domain.rating,
    }
    if domain.time is not None:
        columns["timestamp"] = domain.time
    with atomic_folder(data_path / name, name) as folder:
        write_inter(folder / f"{name}.inter", pd.DataFrame(columns))
        if items in inputs:
            frame = read_items(items)
            kept = frame["item_id"].isin(set(columns["item_id"]))
            write_items(folder / f"{name}.item", frame[kept])
        write_domain_manifest(
            folder,
            name,
            "sample",
            options,
            [describe_file(path) for path in inputs],
            counts,
        )
    if items not in inputs:
        (data_path / name / f"{name}.item").unlink(missing_ok=True)  # of an earlier sample
