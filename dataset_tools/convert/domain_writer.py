"""A converted domain: its atomic files and their manifest, which appear together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from dataset_tools.atomic import write_inter, write_items
from dataset_tools.convert.problems import Problems
from dataset_tools.convert.ratings import Ratings
from dataset_tools.domains import refuse_pair_folder
from dataset_tools.manifest import write_domain_manifest
from dataset_tools.safe_output import atomic_folder, locked, unless_empty
from recbole_cdr_mm.errors import ConfigError, DataFormatError

ItemRow = tuple[str, str, str]  # item, title and text
PART = 8192  # items that are in memory at a time


@dataclass(frozen=True)
class Converted:
    """What became of raw files, for the summary and the manifest.

    Attributes:
        users: Users that were written.
        items: Items that were written.
        ratings: Ratings that were written.
        read: Sound ratings in the file.
        repeated: Ratings left out because the user has another one for the item.
        outside_core: Ratings left out because user or item has too few.
        with_text: Items with a title or a text.
        faults: Faults that were passed over, by kind.
        notes: The same in words, with the place of the first of each kind.
        options: What the command was told.
    """

    users: int
    items: int
    ratings: int
    read: int
    repeated: int
    outside_core: int
    with_text: int
    faults: dict[str, int]
    notes: list[str]
    options: dict[str, Any]


class InputFile(Protocol):
    """A raw file that was read."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def description(self) -> dict[str, Any]:
        """Name, size in bytes and SHA-256."""


class ItemSource(Protocol):
    """Where titles and texts come from."""

    @property
    def file(self) -> InputFile:
        """The raw file."""

    def rows(self, wanted: Set[str]) -> Iterator[ItemRow]:
        """Items, titles and texts of the wanted items that the file has; perhaps some twice."""


@contextmanager
def domain_to_be(data_path: Path, dataset: str, *, with_items: bool) -> Iterator[None]:
    """Keep a domain to oneself while it is converted, and refuse what cannot be before it is read.

    Args:
        data_path: The folder of the domains.
        dataset: The domain to be.
        with_items: Whether there will be texts.

    Raises:
        ConfigError: If the folder is that of a pair or cannot be written to, another process makes
            the same domain, or an `.item` file of an earlier conversion would be left beside the
            new ratings.
    """
    refuse_pair_folder(data_path, dataset)
    item = data_path / dataset / f"{dataset}.item"
    if not with_items and item.is_file():
        raise ConfigError(
            f"{item.parent}: has {item.name} of an earlier conversion, and this one has no texts. "
            "Give the file of the items too, or remove it."
        )
    with unless_empty(data_path), locked(data_path / dataset, "--data_path"):
        yield


def write_domain(
    data_path: Path,
    dataset: str,
    command: str,
    options: Mapping[str, Any],
    *,
    file: InputFile,
    ratings: Ratings,
    counts: Mapping[str, int],
    items: ItemSource | None,
    problems: Problems,
) -> Converted:
    """Write `.inter`, `.item` where there are texts, and `.manifest.json`.

    Of several lines of an item the first counts; items without one stand last.

    Args:
        data_path: The folder of the domains.
        dataset: The domain to be.
        command: The command, for the manifest.
        options: What it was told, likewise.
        file: The raw file of the ratings, which is read by then.
        ratings: The ratings.
        counts: What `read_ratings` counted.
        items: Where titles and texts come from.
        problems: The faults that are passed over.

    Raises:
        DataFormatError: If the file of the items is malformed or has no rated item; then nothing
            is written.
        ConfigError: If the folder cannot be written to, or the disk is full.
    """
    rated = ratings.rated_items()
    described = _Described()
    with atomic_folder(data_path / dataset, dataset) as folder:
        write_inter(folder / f"{dataset}.inter", ratings.frames())
        if items is not None:
            write_items(folder / f"{dataset}.item", described.frames(items, rated))
        converted = Converted(
            users=ratings.n_users,
            items=len(rated),
            ratings=len(ratings),
            **counts,
            with_text=described.with_text,
            faults=dict(problems.counts),
            notes=problems.lines(),
            options=dict(options),
        )
        found = asdict(converted)
        del found["notes"], found["options"]
        write_domain_manifest(
            folder,
            dataset,
            command,
            options,
            [it.description() for it in (file, *([] if items is None else [items.file]))],
            found,
        )
    return converted


@dataclass
class _Described:
    """Items on their way to a file; counts those with a title or a text."""

    with_text: int = 0

    def frames(self, items: ItemSource, rated: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Each rated item once, in parts."""
        left = dict.fromkeys(rated)
        rows: list[ItemRow] = []
        for row in items.rows(frozenset(rated)):
            if row[0] in left:
                del left[row[0]]
                self.with_text += bool(row[1] or row[2])
                rows.append(row)
            if len(rows) >= PART:
                yield _frame(rows)
                rows = []
        if len(left) == len(rated):
            raise DataFormatError(
                f"{items.file.path.name}: has none of the {len(rated):,} rated items, for example "
                f"{rated[0]!r}. Is it the file of these items, and do both name them alike?"
            )
        yield _frame([*rows, *((item, "", "") for item in left)])


def _frame(rows: Sequence[ItemRow]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["item_id", "title", "text"], orient="row")
