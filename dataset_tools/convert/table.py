"""Any file of ratings, delimited text or parquet, to atomic files: the command `csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset_tools.convert.delimited import Layout, RatingTable, check_column, open_table
from dataset_tools.convert.domain_writer import Converted, domain_to_be, write_domain
from dataset_tools.convert.item_table import ItemTable
from dataset_tools.convert.problems import Problems
from dataset_tools.convert.ratings import UNITS, Rules, read_ratings
from dataset_tools.options import check_choice
from dataset_tools.pair import check_range
from recbole_cdr_mm.errors import ConfigError


def convert(
    ratings: Path,
    dataset: str,
    data_path: Path,
    *,
    user: str = "user_id",
    item: str = "item_id",
    rating: str = "rating",
    time: str | None = None,
    separator: str = ",",
    encoding: str = "utf-8",
    columns: Sequence[str] | None = None,
    rating_range: Sequence[float] = (1.0, 5.0),
    time_unit: str = "s",
    time_format: str | None = None,
    items: Path | None = None,
    items_id: str | None = None,
    items_columns: Sequence[str] | None = None,
    items_separator: str | None = None,
    items_encoding: str | None = None,
    title: str | None = None,
    text: Sequence[str] = (),
    k_core: int = 0,
    duplicates: str = "last",
    on_error: str = "stop",
    max_errors: int | None = None,
) -> Converted:
    """Convert a file of ratings and, perhaps, one of items.

    Files may be delimited text, plain, gzip or zstd, or parquet. The domain appears whole or not at
    all.

    Args:
        ratings: The file of the ratings.
        dataset: The domain to be.
        data_path: The folder of the domains.
        user: Name of the column of users.
        item: Name of the column of items.
        rating: Name of the column of ratings.
        time: Name of the column of times; by default `timestamp` where there is one.
        separator: See `Layout`.
        encoding: Likewise.
        columns: Names of the columns of the ratings, where the file has no header.
        rating_range: Lowest and highest rating.
        time_unit: Of times that are numbers, a key of `UNITS`.
        time_format: Of times that are dates.
        items: The file of the items.
        items_id: Its column of items; by default, `item`.
        items_columns: Names of its columns, where it has no header.
        items_separator: What stands between two of its values; by default, `separator`.
        items_encoding: Of its text; by default, `encoding`.
        title: Its column of titles.
        text: Its columns that make the text, as sentences.
        k_core: See `read_ratings`.
        duplicates: Likewise.
        on_error: See `Problems`.
        max_errors: Likewise.

    Returns:
        Counts of what was read and written.

    Raises:
        ConfigError: If an option cannot be, or the domain cannot be written.
        DataFormatError: If a file is malformed; names file, line and byte.
    """
    options = {key: value for key, value in locals().items() if key not in ("dataset", "data_path")}
    low, high = _check_options(rating_range, time_unit, items, title, text)
    problems = Problems(on_error, max_errors)
    layout = Layout(separator, encoding, columns)
    file, names = open_table(ratings, problems, layout)
    if time is None and "timestamp" in names:
        time = "timestamp"
    fields = {"user_id": user, "item_id": item, "rating": rating}
    fields |= {} if time is None else {"timestamp": time}
    for option, name in zip(("user", "item", "rating", "time"), fields.values(), strict=False):
        check_column(ratings, option, name, names)
    if len(set(fields.values())) < len(fields):
        raise ConfigError(f"One column stands for two of {', '.join(fields)}. Name another.")
    rules = Rules(
        low=low,
        high=high,
        unit="s" if time_format else time_unit,
        beyond="; --rating_range says how far ratings go",
    )
    form = RatingTable(layout, names, fields, rules, time_format)
    table = None
    if items is not None:
        table = ItemTable(
            items,
            problems,
            Layout(items_separator or separator, items_encoding or encoding, items_columns),
            items_id or item,
            title,
            text,
        )
    with domain_to_be(data_path, dataset, with_items=table is not None):
        kept, counts = read_ratings(file, form, duplicates=duplicates, k_core=k_core)
        return write_domain(
            data_path,
            dataset,
            "csv",
            options,
            file=file,
            ratings=kept,
            counts=counts,
            items=table,
            problems=problems,
        )


def _check_options(
    rating_range: Sequence[float],
    time_unit: str,
    items: Path | None,
    title: str | None,
    text: Sequence[str],
) -> tuple[float, float]:
    """Refuse options that cannot be; give lowest and highest rating."""
    check_choice("time_unit", time_unit, list(UNITS))
    if items is None and (title or text):
        raise ConfigError("title and text are columns of the file of items. Give it as --items.")
    if items is not None and not (title or text):
        raise ConfigError("Of the file of items nothing is asked. Give --title, --text or both.")
    return check_range(rating_range)
