"""Everything that is wrong with a domain, a pair or their feature stores: the command `check`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_tools.atomic import INTER_TYPES, read_header, read_inter, read_items
from dataset_tools.convert.delimited import Layout, RatingTable, wrong_number
from dataset_tools.convert.problems import Fault, Problems
from dataset_tools.convert.ratings import Ratings, Rules
from dataset_tools.convert.raw_file import RawFile
from dataset_tools.domains import domains_of
from dataset_tools.feature_store import (
    ALIKE,
    FeatureStore,
    content_hash,
    item_texts,
    matrix_hash,
    read_store,
    store_paths,
)
from dataset_tools.manifest import MANIFEST, describe_file, read_object
from dataset_tools.pair import read_rating_range
from dataset_tools.stats import FEW_VALIDATION_USERS, validation_users
from recbole_cdr_mm.errors import ConfigError, DataFormatError, UserError

ATOMIC = Layout(separator="\t", quoted=False)


@dataclass(frozen=True)
class Finding:
    """Something about a data set.

    Attributes:
        severity: `error`, which training refuses or suffers from; `warning`; or `fine`.
        where: The file, or the data set.
        what: What was found.
    """

    severity: str
    where: str
    what: str


@dataclass
class _Domain:
    """What was read of a domain, for the checks that follow."""

    name: str
    folder: Path
    users: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    stores: dict[str, FeatureStore] = field(default_factory=dict)


def check_dataset(
    data_path: Path,
    dataset: str,
    *,
    feature_path: Path | None = None,
    rating_range: Sequence[float] | None = None,
) -> list[Finding]:
    """Read a domain, or both domains of a pair, with their feature stores, and report all faults.

    Args:
        data_path: The folder of the domains.
        dataset: A domain or a pair.
        feature_path: Where the stores are, if not beside the domains.
        rating_range: Lowest and highest rating; by default what the pair says, or 1 to 5.

    Returns:
        Findings in the order of the files.

    Raises:
        DataFormatError: If a domain is not there at all.
        ConfigError: If the pair's YAML is malformed, or there is no folder `feature_path`.
    """
    names = domains_of(data_path, dataset)
    if feature_path is not None and not feature_path.is_dir():
        raise ConfigError(f"{feature_path}: there is no such folder. Correct --feature_path.")
    low, high = rating_range or read_rating_range(data_path, dataset)
    findings: list[Finding] = []
    domains = []
    for name in names:
        domain = _Domain(name, data_path / name)
        findings += _guard(f"{name}.inter", _check_ratings(domain, Rules(low=low, high=high)))
        findings += _guard(f"{name}.item", _check_items(domain))
        findings += _guard(f"{name}{MANIFEST}", _check_manifest(domain))
        for kind in ALIKE:
            folder = (feature_path or data_path) / name
            findings += _guard(f"{name}.{kind}.npy", _check_store(domain, kind, folder))
        domains.append(domain)
    if len(domains) == 2:
        findings += _check_pair(dataset, *domains)
    return findings


def _guard(where: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Make an error that ends a check its last finding."""
    try:
        yield from findings
    except UserError as error:
        yield Finding("error", where, str(error))


def _check_ratings(domain: _Domain, rules: Rules) -> Iterator[Finding]:
    path = domain.folder / f"{domain.name}.inter"
    types = read_header(path)
    names = [f"{field}:{kind}" for field, kind in types.items()]
    for column, kind in list(INTER_TYPES.items())[:3]:
        if types.get(column) != kind:
            raise DataFormatError(
                f"{path.name}, line 1: there is no `{column}:{kind}`, only {', '.join(names)}."
            )
    fields = {column: f"{column}:{kind}" for column, kind in INTER_TYPES.items() if column in types}
    problems = Problems("skip", max_errors=sys.maxsize)
    form = RatingTable(ATOMIC, names, fields, rules)
    ratings = Ratings.read(RawFile(path, problems).frames(form))
    yield from _faults(path, problems)
    if not problems.counts:  # as a last check, what a run reads it with
        read_inter(path, rating_range=(rules.low, rules.high))
    if not len(ratings):
        yield Finding("error", path.name, "has no sound rating")
        return
    repeated = len(ratings) - len(ratings.without_repeated())
    if repeated:
        yield Finding(
            "warning",
            path.name,
            f"{repeated:,} ratings repeat user and item of another one; each of them counts",
        )
    if ratings.time is None:
        yield Finding("warning", path.name, "has no timestamps: file order stands in for time")
    domain.users = set(ratings.users.to_list())
    domain.items = set(ratings.rated_items())
    yield Finding(
        "fine",
        path.name,
        f"{len(ratings):,} ratings of {len(domain.items):,} items by {len(domain.users):,} users",
    )


def _check_items(domain: _Domain) -> Iterator[Finding]:
    path = domain.folder / f"{domain.name}.item"
    if not path.is_file():
        yield Finding("warning", path.name, "is not there: items have no texts")
        return
    fields = list(read_header(path))
    if "item_id" not in fields:
        raise DataFormatError(f"{path.name}, line 1: there is no `item_id:token`.")
    problems = Problems("skip", max_errors=sys.maxsize)
    described, with_text = _read_items(RawFile(path, problems), fields)
    yield from _faults(path, problems)
    if not problems.counts:  # as a last check, what a run reads it with
        read_items(path)
    for count, what in (
        (len(domain.items - described), "rated items have no line"),
        (len(domain.items & described - with_text), "rated items have a line without a text"),
        (len(described - domain.items), "lines are of items that nobody rates"),
    ):
        if count:
            yield Finding("warning", path.name, f"{count:,} {what}")
    share = len(domain.items & with_text) / max(1, len(domain.items))
    yield Finding("fine", path.name, f"{share:.1%} of the rated items have a text")


def _read_items(file: RawFile, fields: Sequence[str]) -> tuple[set[str], set[str]]:
    """All items of an `.item` file, and those with a text; faulty lines are reported."""
    described, with_text = set(), set()
    key = fields.index("item_id")
    texts = [place for place, name in enumerate(fields) if name in ("title", "text")]
    for block in file.blocks():
        for line in block.lines():
            if line.line == 1:
                continue
            cells = line.data.decode("utf-8", "replace").rstrip("\r").split("\t")
            if len(cells) != len(fields):
                file.report(line, wrong_number(cells, fields))
            elif not cells[key]:
                file.report(line, Fault("no id", "there is no item"))
            elif cells[key] in described:
                file.report(line, Fault("item twice", f"{cells[key]!r} has an earlier line"))
            elif any(cell.startswith('"') for cell in cells):
                what = "a value begins with a double quote, which RecBole takes for quoting"
                file.report(line, Fault("double quote", what))
            else:
                described.add(cells[key])
                if any(cells[place].strip() for place in texts):
                    with_text.add(cells[key])
    return described, with_text


def _faults(path: Path, problems: Problems) -> Iterator[Finding]:
    """Each kind of fault that was met in a file."""
    for kind, count in problems.counts.most_common():
        yield Finding("error", path.name, f"{count:,} x {kind}; the first: {problems.first[kind]}")


def _check_manifest(domain: _Domain) -> Iterator[Finding]:
    path = domain.folder / f"{domain.name}{MANIFEST}"
    if not path.is_file():
        return
    try:
        recorded = {str(output["name"]): output for output in read_object(path)["outputs"]}
    except (KeyError, TypeError) as error:
        yield Finding("error", path.name, f"is no manifest ({error!r})")
        return
    for name, output in recorded.items():
        file = domain.folder / name
        if not file.is_file():
            yield Finding("warning", path.name, f"speaks of {name}, which is not there")
        elif describe_file(file) != output:
            yield Finding("warning", path.name, f"{name} was changed after it was made")


def _check_store(domain: _Domain, kind: str, folder: Path) -> Iterator[Finding]:
    name = f"{domain.name}.{kind}.npy"
    if not any(path.exists() for path in store_paths(folder, domain.name, kind)):
        return
    store = read_store(folder, domain.name, kind)
    if kind == "text":
        fields = store.info["fields"]
        texts = item_texts(read_items(domain.folder / f"{domain.name}.item", fields=fields), fields)
        current = content_hash(texts.keys(), texts.values())
    else:
        current = matrix_hash(store.ids, store.matrix)
    if current != store.info["content_hash"]:
        made_of = "other texts than those of the .item file" if kind == "text" else "other rows"
        yield Finding("error", name, f"was made of {made_of}; make it again")
    bad = zero = 0
    for start in range(0, len(store.ids), 1024):
        part = np.asarray(store.matrix[start : start + 1024], dtype=np.float32)
        bad += int((~np.isfinite(part).all(axis=1)).sum())
        zero += int((part == 0).all(axis=1).sum())
    if bad:
        yield Finding("error", name, f"{bad:,} rows have numbers that are not finite")
    if zero:
        yield Finding("warning", name, f"{zero:,} rows are all zero")
    unknown = len(domain.items - set(store.ids))
    if unknown:
        yield Finding("warning", name, f"{unknown:,} rated items have no row")
    domain.stores[kind] = store
    yield Finding(
        "fine",
        name,
        f"{len(store.ids):,} rows of {store.matrix.shape[1]:,} numbers, {store.matrix.dtype.name}, "
        f"by {store.info['encoder']}",
    )


def _check_pair(name: str, source: _Domain, target: _Domain) -> Iterator[Finding]:
    overlapped = len(source.users & target.users)
    if not overlapped:
        example = min(source.users, default=""), min(target.users, default="")
        yield Finding(
            "error",
            name,
            f"no user is in both domains: {source.name} has for example {example[0]!r}, "
            f"{target.name} {example[1]!r}",
        )
    elif validation_users(overlapped) < FEW_VALIDATION_USERS:
        yield Finding(
            "warning",
            name,
            f"{overlapped:,} users are in both domains: fewer than 50 validation users choose",
        )
    else:
        yield Finding("fine", name, f"{overlapped:,} users are in both domains")
    for kind in ALIKE:
        stores = [domain.stores.get(kind) for domain in (source, target)]
        if stores[0] is None or stores[1] is None:
            if any(stores):
                lacking = (source if stores[0] is None else target).name
                yield Finding("warning", name, f"{lacking} has no {kind} features, the other has")
            continue
        for key in ALIKE[kind]:
            values = [store.info[key] for store in stores if store is not None]
            if values[0] != values[1]:
                yield Finding(
                    "error",
                    name,
                    f"the {kind} features differ in `{key}`: {values[0]} and {values[1]}; encode "
                    "both domains alike",
                )
