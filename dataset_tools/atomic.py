"""RecBole's atomic files: tab separated, with a header of `name:type`, read with checks.

RecBole reads them without checks and lets a field that begins with a double quote swallow the lines
behind it. Here a line is a row, whatever it holds (`csv.QUOTE_NONE`), so that an error names the
true line; and the writers leave no leading double quote, so that both readers see the same rows.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm.errors import DataFormatError, did_you_mean

TYPES = ("token", "token_seq", "float", "float_seq")
INTER_TYPES = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
ITEM_TYPES = {"item_id": "token", "title": "token_seq", "text": "token_seq"}
BREAKS = r"[\t\r\n\x00]"  # what would end a field or a line


def read_inter(
    path: Path,
    *,
    user_field: str = "user_id",
    item_field: str = "item_id",
    rating_field: str = "rating",
    time_field: str = "timestamp",
    rating_range: tuple[float, float],
    separator: str = "\t",
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read the ratings of a domain.

    Args:
        path: The `.inter` file.
        user_field: Name of the column of users, of type `token`.
        item_field: Name of the column of items, of type `token`.
        rating_field: Name of the column of ratings, of type `float`.
        time_field: Name of the column of times, of type `float`; the file may lack it.
        rating_range: Lowest and highest rating there may be.
        separator: What stands between two fields.
        encoding: Of the file.

    Returns:
        One row per line, in file order: users and items as categories, which are their sorted
        tokens, ratings and, if the file has them, times as float64. Other columns are left out.

    Raises:
        DataFormatError: If the file is missing or malformed; names file and line.
    """
    types = {user_field: "token", item_field: "token", rating_field: "float"}
    low, high = rating_range
    frame = _read_without_fault(path, types, {time_field: "float"}, separator, encoding)
    if frame is not None and frame[rating_field].between(low, high).all():
        return frame
    table = _read(path, types, {time_field: ("float",)}, separator, encoding)
    for field in (user_field, item_field):
        table.refuse(field, table.frame[field].to_numpy() == "", lambda _: "is empty")
    for field in table.frame.columns.intersection([rating_field, time_field]):
        table.frame[field] = table.numbers(field)
    ratings = table.frame[rating_field].to_numpy()
    table.refuse(
        rating_field,
        (ratings < low) | (ratings > high),
        lambda cell: f"{cell:g} is outside {low:g} to {high:g}",
        "Set `rating_range` in the config to the range of these ratings, or correct the rating.",
    )
    tokens = {field: table.frame[field].astype(object) for field in (user_field, item_field)}
    return table.frame.assign(**{field: pd.Categorical(cells) for field, cells in tokens.items()})


def read_items(
    path: Path,
    *,
    item_field: str = "item_id",
    fields: Sequence[str] = ("title", "text"),
    separator: str = "\t",
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read the items of a domain and what is written about them.

    Args:
        path: The `.item` file.
        item_field: Name of the column of items, of type `token`.
        fields: Names of the columns of text, of type `token` or `token_seq`.
        separator: What stands between two fields.
        encoding: Of the file.

    Returns:
        One row per item, in file order: the item and those of `fields` that the file has, all text,
        empty where nothing is written.

    Raises:
        DataFormatError: If the file is missing or malformed, or an item has two different lines.
    """
    texts = {field: ("token", "token_seq") for field in fields}
    table = _read(path, {item_field: "token"}, texts, separator, encoding)
    items = table.frame[item_field]
    table.refuse(item_field, items.to_numpy() == "", lambda _: "is empty")
    table.refuse(
        item_field,
        items.duplicated().to_numpy() & ~table.frame.duplicated().to_numpy(),
        lambda cell: f"{cell!r} stands in an earlier line with other contents",
        "Keep one of the lines.",
    )
    return table.frame.drop_duplicates(ignore_index=True)


def read_header(path: Path, separator: str = "\t", encoding: str = "utf-8") -> dict[str, str]:
    """Read the types of a file's fields, by field.

    Raises:
        DataFormatError: If the file is missing or its first line is no header.
    """
    try:
        with path.open(encoding=encoding) as file:
            return _header(path.name, file.readline().rstrip("\n"), separator)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror}). Allow it.") from error
    except UnicodeError as error:
        raise _undecodable(path, encoding) from error


def read_link(path: Path, fields: tuple[str, str]) -> pd.DataFrame:
    """Read which source user is which target user.

    Args:
        path: The file, tab separated, with the header `<field>:token` twice.
        fields: Names of the column of source users and of that of target users.

    Returns:
        Both columns as text, one row per person.

    Raises:
        DataFormatError: If the file is missing or malformed, or a user stands in it twice.
    """
    table = _read(path, dict.fromkeys(fields, "token"), {}, "\t", "utf-8")
    for field in fields:
        users = table.frame[field]
        table.refuse(field, users.to_numpy() == "", lambda _: "is empty")
        table.refuse(
            field,
            users.duplicated().to_numpy(),
            lambda cell: f"{cell!r} stands in an earlier line too",
            "Name each user once.",
        )
    return table.frame


def write_inter(path: Path, frames: pd.DataFrame | Iterable[pl.DataFrame]) -> None:
    """Write ratings as an `.inter` file that reads back exactly.

    Args:
        path: The file to be; replaced in one step.
        frames: Columns `user_id`, `item_id`, `rating` and perhaps `timestamp`; whole, or in parts
            that are written one after another.

    Raises:
        DataFormatError: If an id or a number cannot stand in an atomic file.
        ConfigError: If the folder cannot be written to, or the disk is full.
    """
    _write(path, frames, INTER_TYPES)


def write_items(path: Path, frames: pd.DataFrame | Iterable[pl.DataFrame]) -> None:
    """Write items as an `.item` file.

    Tabs and line breaks in texts become blanks, leading double quotes single ones; all else reads
    back exactly.

    Args:
        path: The file to be; replaced in one step.
        frames: Columns `item_id` and, perhaps, `title` and `text`; whole, or in parts.

    Raises:
        DataFormatError: If an item id cannot stand in an atomic file.
        ConfigError: If the folder cannot be written to, or the disk is full.
    """
    _write(path, frames, ITEM_TYPES)


@dataclass(frozen=True)
class _Table:
    """Columns of an atomic file as text, and what it takes to point at one of their cells."""

    name: str
    types: dict[str, str]
    frame: pd.DataFrame
    blank_lines: list[int]

    def line(self, row: int) -> int:
        """Number of the line that a row of the frame stands in; the header is line 1."""
        line = row + 2
        for blank in self.blank_lines:
            line += blank <= line
        return line

    def refuse(
        self,
        field: str,
        bad: np.ndarray,
        what: Callable[[object], str],
        advice: str = "Correct it or convert again.",
    ) -> None:
        """Raise the error for the first bad row, if there is one."""
        if not bad.any():
            return
        row = int(bad.argmax())
        where = f"{self.name}, line {self.line(row)}, field `{field}:{self.types[field]}`"
        raise DataFormatError(f"{where}: {what(self.frame[field].iloc[row])}. {advice}")

    def numbers(self, field: str) -> np.ndarray:
        """Convert a column of text, each different cell once."""
        codes, cells = pd.factorize(self.frame[field])
        values = np.array([_float(cell) for cell in cells])[codes]
        self.refuse(field, self.frame[field].to_numpy() == "", lambda _: "is empty")
        self.refuse(field, ~np.isfinite(values), lambda cell: f"{cell!r} is no number")
        return values


def _read(
    path: Path,
    required: dict[str, str],
    optional: Mapping[str, tuple[str, ...]],
    separator: str,
    encoding: str,
) -> _Table:
    """Read the asked columns of an atomic file as text, after checking that it is a table."""
    try:
        with path.open(encoding=encoding) as file:
            types = _header(path.name, file.readline().rstrip("\n"), separator)
            asked: Mapping[str, tuple[str, ...]] = {
                **{field: (kind,) for field, kind in required.items()},
                **optional,
            }
            _check_fields(path.name, types, required, asked)
            blank_lines = _check_rows(path.name, file, len(types), separator)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror}). Allow it.") from error
    except UnicodeError as error:
        raise _undecodable(path, encoding) from error
    frame = pd.read_csv(
        path,
        sep=separator,
        encoding=encoding,
        engine="c",
        quoting=csv.QUOTE_NONE,
        dtype=str,
        na_filter=False,
        usecols=[list(types).index(field) for field in asked if field in types],
    ).rename(columns={f"{field}:{kind}": field for field, kind in types.items()})
    frame = frame[[field for field in asked if field in types]]
    return _Table(path.name, types, frame, blank_lines)


def _read_without_fault(
    path: Path,
    required: Mapping[str, str],
    optional: Mapping[str, str],
    separator: str,
    encoding: str,
) -> pd.DataFrame | None:
    """Read the columns of a faultless file, tokens as categories, many times as fast as `_read`.

    Args:
        path: The file.
        required: The columns that are wanted, `token` or `float`, by field.
        optional: Others that are wanted where the file has them.
        separator: What stands between two fields.
        encoding: Of the file.

    Returns:
        None if anything is unusual: `_read` then says what, or reads it all the same.
    """
    if codecs.lookup(encoding).name != "utf-8" or len(separator.encode()) != 1:
        return None
    types = read_header(path, separator, encoding)
    try:
        read = pl.read_csv(path, separator=separator, quote_char=None, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError):
        return None
    if len(read.columns) != len(types) or not len(read) or sum(read.null_count().row(0)):
        return None
    read.columns = list(types)
    columns: dict[str, object] = {}
    for field, kind in {**required, **{f: k for f, k in optional.items() if f in types}}.items():
        if types.get(field) != kind:
            return None
        if kind == "token":
            tokens = read[field].unique().sort()
            if tokens.str.contains("\r", literal=True).any():
                return None
            codes = read[field].cast(pl.Enum(tokens)).to_physical().to_numpy().astype(np.int32)
            categories = pd.Index(tokens.to_list(), dtype=object)
            columns[field] = pd.Categorical.from_codes(codes, categories)
        else:
            columns[field] = values = read[field].cast(pl.Float64, strict=False).to_numpy()
            if not np.isfinite(values).all():
                return None
    return pd.DataFrame(columns)


def _missing(path: Path) -> DataFormatError:
    """The error for a file that is not there."""
    return DataFormatError(
        f"{path}: there is no such file. Correct `data_path` and the name of the data set, "
        "or convert the data first."
    )


def _header(name: str, line: str, separator: str) -> dict[str, str]:
    """Take the first line apart into types by field."""
    if not line:
        raise DataFormatError(f"{name}: is empty or has no header. Convert it again.")
    types: dict[str, str] = {}
    for cell in line.split(separator):
        field, colon, kind = cell.partition(":")
        if not colon or not field:
            raise DataFormatError(
                f"{name}, line 1: `{cell}` is no `name:type`, for example `rating:float`. "
                "Correct the header."
            )
        if kind not in TYPES:
            raise DataFormatError(
                f"{name}, line 1: `{cell}` has the unknown type `{kind}`; there are "
                f"{', '.join(TYPES)}.{did_you_mean(kind, TYPES)}"
            )
        if field in types:
            raise DataFormatError(f"{name}, line 1: two columns are called `{field}`. Rename one.")
        types[field] = kind
    return types


def _check_fields(
    name: str,
    types: dict[str, str],
    required: dict[str, str],
    asked: Mapping[str, tuple[str, ...]],
) -> None:
    """Refuse a header that lacks a required field or gives an asked one a type it cannot have."""
    for field in required:
        if field not in types:
            there = ", ".join(f"`{field}`" for field in types)
            raise DataFormatError(
                f"{name}, line 1: there is no column `{field}`, only {there}."
                f"{did_you_mean(field, types)} Rename it in the file, or name it in the config."
            )
    for field, kinds in asked.items():
        if field in types and types[field] not in kinds:
            raise DataFormatError(
                f"{name}, line 1: `{field}:{types[field]}` must be "
                f"{' or '.join(f'`{field}:{kind}`' for kind in kinds)}. Correct the header."
            )


def _check_rows(name: str, lines: Iterator[str], width: int, separator: str) -> list[int]:
    """Refuse ragged rows and a file without rows; return the numbers of the blank lines."""
    blank_lines = []
    line = 1
    for line, text in enumerate(lines, start=2):
        count = text.count(separator) + 1
        if not text.strip(" \n") and width > 1:
            blank_lines.append(line)
        elif count != width:
            raise DataFormatError(
                f"{name}, line {line}: has {count} field{'s' * (count != 1)}, but the header has "
                f"{width}. Correct it or convert again."
            )
    if line - 1 == len(blank_lines):
        raise DataFormatError(f"{name}: has a header but no rows. Convert it again.")
    return blank_lines


def _undecodable(path: Path, encoding: str) -> DataFormatError:
    """The error for a file with a line that is not written in the encoding."""
    line = 1
    with path.open("rb") as file:
        for data in file:
            try:
                data.decode(encoding)
            except UnicodeError:
                break
            line += 1
    return DataFormatError(
        f"{path.name}, line {line}: is not {encoding}. "
        "Set `encoding` in the config, or convert the file."
    )


def _float(cell: str) -> float:
    """Read a number; what is none becomes NaN."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _write(
    path: Path, frames: pd.DataFrame | Iterable[pl.DataFrame], types: Mapping[str, str]
) -> None:
    """Write frames, one after another, under their header."""
    if isinstance(frames, pd.DataFrame):
        present = frames.astype(object).where(frames.notna(), None)
        frames = [pl.DataFrame({name: cells.tolist() for name, cells in present.items()})]
    header = True
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for frame in frames:
            cells = frame.select(
                _cells(path.name, frame[name], types[name]).alias(f"{name}:{types[name]}")
                for name in frame.columns
            )
            part = io.BytesIO()
            cells.write_csv(part, include_header=header, separator="\t", quote_style="never")
            file.write(part.getbuffer())
            header = False


def _cells(name: str, column: pl.Series, kind: str) -> pl.Series:
    """A column as it stands in the file."""
    if kind == "float":
        return _numbers(name, column)
    return (_tokens if kind == "token" else _texts)(name, column)


def _numbers(name: str, column: pl.Series) -> pl.Series:
    """Numbers with as many digits as they need to read back exactly; whole ones without a point."""
    values = column.cast(pl.Float64)
    if not values.is_finite().fill_null(False).all():
        raise DataFormatError(f"{name}: field `{column.name}` has values that are no number.")
    whole = (values == values.floor()) & (values.abs() < 2**53)
    if whole.all():
        return values.cast(pl.Int64).cast(pl.String)
    integers = values.set(~whole, 0.0).cast(pl.Int64).cast(pl.String)
    return integers.zip_with(whole, values.cast(pl.String))


def _tokens(name: str, column: pl.Series) -> pl.Series:
    """Refuse ids that an atomic file would change."""
    tokens = column.cast(pl.String)
    bad = tokens.str.contains(BREAKS) | tokens.str.starts_with('"') | (tokens == "")
    bad = bad.fill_null(True)
    if bad.any():
        raise DataFormatError(
            f"{name}: {tokens.filter(bad)[0]!r} cannot be a `{column.name}`: an id is not empty, "
            "has no tabs or line breaks and does not begin with a double quote."
        )
    return tokens


def _texts(name: str, column: pl.Series) -> pl.Series:
    """Make texts fit into one field of one line."""
    texts = column.cast(pl.String).fill_null("").str.replace_all(BREAKS, " ")
    quoted = texts.str.starts_with('"')
    if not quoted.any():
        return texts
    bare = texts.str.strip_chars_start('"')
    quotes = "'" * int((texts.str.len_chars() - bare.str.len_chars()).max() or 0)  # type: ignore[arg-type]
    return pl.select(
        pl.lit(quotes).str.slice(0, texts.str.len_chars() - bare.str.len_chars()) + bare
    ).to_series()
