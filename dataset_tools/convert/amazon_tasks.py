"""The three tasks of the MetaMMCDR paper from Amazon's 2014 files: the command `amazon-tasks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.convert.amazon import convert
from dataset_tools.convert.domain_writer import Converted
from dataset_tools.options import check_choice
from recbole_cdr_mm.errors import DataFormatError

TASKS = {
    "movie_cd": ("amazon-movie", "amazon-cd"),
    "book_movie": ("amazon-book", "amazon-movie"),
    "book_cd": ("amazon-book", "amazon-cd"),
}
CATEGORIES = {
    "amazon-movie": "Movies_and_TV",
    "amazon-cd": "CDs_and_Vinyl",
    "amazon-book": "Books",
}
TABLE_1 = {  # of the MetaMMCDR paper, which PTUPCDR's paper has too
    "amazon-movie": {"items": 50_052, "users": 123_960, "ratings": 1_697_533},
    "amazon-cd": {"items": 64_443, "users": 75_258, "ratings": 1_097_592},
    "amazon-book": {"items": 367_982, "users": 603_668, "ratings": 8_898_041},
    "movie_cd": {"overlapped users": 18_031},
    "book_movie": {"overlapped users": 37_388},
    "book_cd": {"overlapped users": 16_738},
}


@dataclass(frozen=True)
class ConvertedTasks:
    """What became of the raw files.

    Attributes:
        domains: Each domain that was made.
        overlapped: Overlapped users of each task whose two domains were made.
        differences: Each figure that is not that of Table 1, in words; ratings are compared as they
            were read, before repeated ones were merged.
    """

    domains: dict[str, Converted]
    overlapped: dict[str, int]
    differences: list[str]


def convert_tasks(
    raw: Path, data_path: Path, *, tasks: Sequence[str] | None = None, **options: Any
) -> ConvertedTasks:
    """Convert the domains of the paper's tasks, each once, and compare with the paper's Table 1.

    Args:
        raw: The folder of `reviews_X_5.json.gz` and `meta_X.json.gz`; other packings are found too.
        data_path: The folder of the domains.
        tasks: Keys of `TASKS`; by default all.
        **options: `template`, `on_error` and `max_errors` of `convert`.

    Returns:
        What was made, and which figures differ.

    Raises:
        ConfigError: If a task is unknown, or a domain cannot be written.
        DataFormatError: If a raw file is missing, which is found before any is read, or malformed.
    """
    chosen = list(TASKS) if tasks is None else list(dict.fromkeys(tasks))
    for task in chosen:
        check_choice("task", task, list(TASKS))
    names = list(dict.fromkeys(domain for task in chosen for domain in TASKS[task]))
    files = _find(raw, names)
    domains = {
        name: convert(
            files[name, "reviews"],
            name,
            data_path,
            meta=files[name, "meta"],
            release="2014",
            **options,
        )
        for name in names
    }
    users = {name: _users(data_path / name / f"{name}.inter") for name in names}
    overlapped = {
        task: len(users[source].intersection(users[target]))
        for task, (source, target) in TASKS.items()
        if task in chosen
    }
    found = {
        name: {"items": made.items, "users": made.users, "ratings": made.read}
        for name, made in domains.items()
    }
    found |= {task: {"overlapped users": count} for task, count in overlapped.items()}
    return ConvertedTasks(domains, overlapped, compare_with_table_1(found))


def compare_with_table_1(found: dict[str, dict[str, int]]) -> list[str]:
    """Name each figure that is not that of Table 1.

    Args:
        found: Figures as in `TABLE_1`, of some of its rows.

    >>> compare_with_table_1({"movie_cd": {"overlapped users": 18_032}})
    ['movie_cd: 18,032 overlapped users, but Table 1 has 18,031']
    """
    return [
        f"{row}: {count:,} {figure}, but Table 1 has {TABLE_1[row][figure]:,}"
        for row, figures in found.items()
        for figure, count in figures.items()
        if count != TABLE_1[row][figure]
    ]


def _find(raw: Path, names: Sequence[str]) -> dict[tuple[str, str], Path]:
    """Find the raw files of domains.

    Raises:
        DataFormatError: If any is missing; names all that are, and the command that fetches them.
    """
    files, missing = {}, []
    for name in names:
        category = CATEGORIES[name]
        for kind, stem in (("reviews", f"reviews_{category}_5"), ("meta", f"meta_{category}")):
            ends = (".json.gz", ".json", ".json.zst")
            there = [path for end in ends if (path := raw / f"{stem}{end}").is_file()]
            if there:
                files[name, kind] = there[0]
            else:
                missing.append(f"{stem}{ends[0]}")
    if missing:
        categories = ",".join(CATEGORIES[name] for name in names)
        raise DataFormatError(
            f"{raw}: there is no {', no '.join(missing)}. Correct --raw, or fetch them with: "
            f"python -m dataset_tools download --release=2014 --category={categories} --raw={raw}"
        )
    return files


def _users(path: Path) -> set[str]:
    """The users of an `.inter` file."""
    return set(
        pl.read_csv(path, separator="\t", columns=[0], infer_schema=False, quote_char=None)
        .to_series()
        .unique()
    )
