"""A converted domain: its atomic files and their manifest, which appear together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from dataset_tools.atomic import write_inter, write_items
from dataset_tools.convert.problems import Problems
from dataset_tools.convert.ratings import Ratings
from dataset_tools.manifest import MANIFEST, describe_file, write_manifest
from dataset_tools.safe_output import atomic_folder


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


class ItemSource(Protocol):
    """Where titles and texts come from.

    Attributes:
        with_text: Items with a title or a text, of those given so far.
    """

    with_text: int

    def frames(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Frames of `item_id`, `title` and `text` with each wanted item once."""


class InputFile(Protocol):
    """A raw file that was read."""

    def description(self) -> dict[str, Any]:
        """Name, size in bytes and SHA-256."""


def write_domain(
    data_path: Path,
    dataset: str,
    command: str,
    options: Mapping[str, Any],
    *,
    inputs: Sequence[InputFile],
    ratings: Ratings,
    counts: Mapping[str, int],
    items: ItemSource | None,
    problems: Problems,
) -> Converted:
    """Write `.inter`, `.item` where there are texts, and `.manifest.json`.

    Args:
        data_path: The folder of the domains.
        dataset: The domain to be.
        command: The command, for the manifest.
        options: What it was told, likewise.
        inputs: The raw files; all of them are read by then, but for that of the items.
        ratings: The ratings.
        counts: What `read_ratings` counted.
        items: Where titles and texts come from.
        problems: The faults that are passed over.

    Raises:
        DataFormatError: If the file of the items is malformed; then nothing is written.
        ConfigError: If the folder cannot be written to, or the disk is full.
    """
    rated = ratings.rated_items()
    with atomic_folder(data_path / dataset, dataset) as folder:
        write_inter(folder / f"{dataset}.inter", ratings.frames())
        if items is not None:
            write_items(folder / f"{dataset}.item", items.frames(rated))
        converted = Converted(
            users=ratings.n_users,
            items=len(rated),
            ratings=len(ratings),
            **counts,
            with_text=0 if items is None else items.with_text,
            faults=dict(problems.counts),
            notes=problems.lines(),
            options=dict(options),
        )
        found = asdict(converted)
        del found["notes"], found["options"]
        write_manifest(
            folder / f"{dataset}{MANIFEST}",
            command,
            options,
            [file.description() for file in inputs],
            found,
            [describe_file(path) for path in sorted(folder.iterdir())],
        )
    return converted
