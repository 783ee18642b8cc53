"""Tables of ratings: delimited text of any kind, and parquet."""

from __future__ import annotations

import csv
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from dataset_tools.convert.problems import Fault, Problems, printable
from dataset_tools.convert.ratings import UNITS, Rules
from dataset_tools.convert.raw_file import BadRows, RawFile
from dataset_tools.manifest import describe_file
from recbole_cdr_mm.errors import ConfigError, DataFormatError, did_you_mean

INNER = "\x1f"  # stands for a separator of more than one byte, which Polars does not know
END = "\x1e"  # stands behind the last value of a line
PARQUET = b"PAR1"
MOST_NAMES = 20  # of columns, in a message
PART = 1 << 20  # rows of a parquet file that are in memory at a time


@dataclass(frozen=True)
class Layout:
    """How delimited text is written.

    Attributes:
        separator: What stands between two values, of any length.
        encoding: Of the text.
        columns: Names of the columns, where the first line does not give them.
        quoted: Whether a value may stand between double quotes.
    """

    separator: str = ","
    encoding: str = "utf-8"
    columns: Sequence[str] | None = None
    quoted: bool = True

    def __post_init__(self) -> None:
        if not self.separator:
            raise ConfigError("separator is empty. Give what stands between two values.")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ConfigError(f"encoding `{self.encoding}` is not known to Python.") from error

    @property
    def delimiter(self) -> str:
        """The separator that `to_utf8` leaves."""
        return self.separator if len(self.separator.encode()) == 1 else INNER

    def to_utf8(self, data: bytes) -> bytes:
        """The data in UTF-8, with separators of one character and Unix line ends."""
        if self.encoding.lower() not in ("utf-8", "utf8"):
            data = data.decode(self.encoding).encode()
        if self.delimiter != self.separator:
            data = data.replace(self.separator.encode(), INNER.encode())
        return data.replace(b"\r\n", b"\n")

    def header(self, file: RawFile) -> list[str]:
        """Names of the columns."""
        if self.columns is not None:
            return list(self.columns)
        line = self.to_utf8(file.head(1)[0]).decode("utf-8", "replace").rstrip("\r\n")
        try:
            return next(self.reader([line]))
        except csv.Error as error:
            raise DataFormatError(
                f"{file.path.name}, line 1: is no header ({error}). Correct it, or name columns."
            ) from error

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """The values of each record of lines; `csv.Error` where double quotes do not close."""
        csv.field_size_limit(sys.maxsize)
        if self.quoted:
            return csv.reader(lines, delimiter=self.delimiter, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)


@dataclass(frozen=True)
class RatingTable:
    """Rows with a rating each, among other values; a `Form`.

    Attributes:
        layout: How delimited text is written.
        names: Names of all columns.
        fields: Which of them is `user_id`, `item_id`, `rating` and, perhaps, `timestamp`.
        rules: What a rating must be.
        time_format: Of times that are dates, as `strftime` has it.
    """

    layout: Layout
    names: Sequence[str]
    fields: dict[str, str]
    rules: Rules
    time_format: str | None = None

    @property
    def header(self) -> bool:
        """Whether the first line names the columns."""
        return self.layout.columns is None

    def parse(self, data: bytes) -> pl.DataFrame:
        """Rows of whole lines; see `Form`."""
        try:
            data = self.layout.to_utf8(data)
        except UnicodeDecodeError as error:
            raise BadRows from error
        lines = [line for line in data.split(b"\n") if line and not line.isspace()]
        end = f"{self.layout.delimiter}{END}\n".encode()  # for Polars fills short rows up
        frame = pl.read_csv(
            end.join([*lines, b""]),
            has_header=False,
            schema=dict.fromkeys([*self.names, END], pl.String),
            separator=self.layout.delimiter,
            quote_char='"' if self.layout.quoted else None,
        )
        if not (frame[END] == END).fill_null(False).all():
            raise BadRows
        return self.rules.seconds(self.pick(frame))

    def good(self, frame: pl.DataFrame) -> pl.Series:
        """Which rows are ratings; see `Form`."""
        return self.rules.good(frame)

    def explain(self, line: bytes) -> Fault:
        """What is wrong with a line; see `Form`."""
        try:
            text = self.layout.to_utf8(line).decode("utf-8")
        except UnicodeDecodeError as error:
            return wrong_encoding(self.layout, error)
        try:
            values = next(self.layout.reader([text]))
        except csv.Error as error:
            return Fault("bad quotes", f"has a value whose double quotes do not close ({error})")
        if len(values) != len(self.names):
            return wrong_number(values, self.names)
        row = dict(zip(self.names, values, strict=True))
        return self.explain_row([row[name] for name in self.fields.values()])

    def pick(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns of a rating under their own names and with their own types."""
        columns = []
        for field, name in self.fields.items():
            column = pl.col(name)
            if field == "timestamp" and (self.time_format or frame.schema[name].is_temporal()):
                if self.time_format:
                    column = column.str.to_datetime(self.time_format, strict=False)
                seconds = column.cast(pl.Datetime("us")).dt.epoch("us") / UNITS["us"]
                column = seconds * UNITS[self.rules.unit]  # a date has a unit of its own
            if field in ("user_id", "item_id"):
                columns.append(as_text(column, frame.schema[name]).alias(field))
            else:
                columns.append(column.cast(pl.Float64, strict=False).alias(field))
        return frame.select(columns)

    def explain_row(self, values: Sequence[object]) -> Fault:
        """What is wrong with the values of `fields`, in their order."""
        if len(values) < 4:
            return self.rules.explain(*values)
        user, item, rating, time = values
        if self.time_format:
            column = pl.Series([None if time is None else str(time)], dtype=pl.String)
            date = column.str.to_datetime(self.time_format, strict=False).dt.epoch("s")[0]
            if date is None:
                what = f"the time {time!r} is not of the form {self.time_format}"
                return Fault("bad time", what, "Correct the line or --time_format")
            return self.rules.explain(user, item, rating, date)
        fault = self.rules.explain(*values)
        if fault.kind == "bad time":
            advice = "Correct the line, or say --time_unit or --time_format"
            return Fault(fault.kind, fault.what, advice)
        return fault


class ParquetFile:
    """A parquet file of ratings, read in parts; faults are named by row, counted from 1.

    Args:
        path: The file.
        problems: Where faults go.

    Raises:
        DataFormatError: If it is no parquet file.
    """

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        with self._errors():
            self.scan = pl.scan_parquet(path, glob=False)
            self.names = self.scan.collect_schema().names()
            self.rows = self.scan.select(pl.len()).collect().item()

    def frames(self, form: RatingTable) -> Generator[pl.DataFrame, None, None]:
        """Sound rows in file order; faulty ones are reported.

        Raises:
            DataFormatError: As `Problems.report` does.
        """
        for start, columns, frame, good in self._parsed(form):
            for row in (~good).arg_true():
                fault = form.explain_row([columns[name][row] for name in form.fields.values()])
                self.problems.report(f"{self.path.name}, row {start + row + 1}", fault)
            yield frame.filter(good)

    def part(self, start: int, names: Iterable[str]) -> pl.DataFrame:
        """The named columns of the rows from `start` on, `PART` of them at most.

        Raises:
            DataFormatError: If the file is damaged.
        """
        with self._errors():
            return self.scan.slice(start, PART).select(*dict.fromkeys(names)).collect()

    def second(self, form: RatingTable, user: str, item: str) -> str:
        """Name the place of the second rating of a user for an item, which there is."""
        seen = 0
        for start, _, frame, good in self._parsed(form):
            same = (frame["user_id"] == user) & (frame["item_id"] == item) & good
            rows = same.arg_true().to_list()
            if seen + len(rows) > 1:
                return f"{self.path.name}, row {start + rows[1 - seen] + 1}"
            seen += len(rows)
        return self.path.name

    def description(self) -> dict[str, Any]:
        """Name, size in bytes and SHA-256, for a manifest."""
        return describe_file(self.path)

    def _parsed(
        self, form: RatingTable
    ) -> Iterator[tuple[int, pl.DataFrame, pl.DataFrame, pl.Series]]:
        """Each part: its first row, its columns as they stand, its ratings, which are good."""
        starts = range(0, self.rows, PART)
        for start in tqdm(starts, desc=self.path.name, unit="part", disable=None):
            columns = self.part(start, form.fields.values())
            frame = form.rules.seconds(form.pick(columns))
            yield start, columns, frame, form.good(frame)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say that the file is damaged, of which Polars may also panic."""
        try:
            yield
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise DataFormatError(
                f"{self.path.name}: is no sound parquet file ({reason}). Download it again."
            ) from error


def as_text(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """A column as text; whole numbers without a point, for pandas makes floats of them."""
    text = column.cast(pl.String)
    if not kind.is_float():
        return text
    whole = column.cast(pl.Int64, strict=False).cast(pl.String)
    return pl.when(column == column.floor()).then(whole).otherwise(text)


def open_table(
    path: Path, problems: Problems, layout: Layout
) -> tuple[RawFile | ParquetFile, list[str]]:
    """Open a file by its content, parquet or delimited text; give the names of its columns too.

    Raises:
        DataFormatError: As `RawFile` and `ParquetFile` do, and of JSON.
        ConfigError: If the columns of parquet are named, which it does itself.
    """
    file = RawFile(path, problems)
    (first,) = file.head(1)
    if first.startswith(PARQUET):
        if layout.columns is not None:
            raise ConfigError(f"{path.name}: is parquet, which names its columns. Leave them out.")
        parquet = ParquetFile(path, problems)
        return parquet, parquet.names
    if first.lstrip().startswith(b"{"):
        raise DataFormatError(
            f"{path.name}, line 1: is JSON, not delimited text. Amazon's reviews are converted by "
            "the command amazon."
        )
    names = layout.header(file)
    for name in names:
        if names.count(name) > 1:
            raise DataFormatError(
                f"{path.name}, line 1: two columns are called `{name}`. Rename one."
            )
    return file, names


def check_column(path: Path, option: str, name: str, names: Sequence[str]) -> None:
    """Refuse the name of a column that the file lacks.

    Raises:
        ConfigError: If it is lacking; names those that are there.
    """
    if name not in names:
        there = _listed(names)
        is_atomic = any(column.endswith((":token", ":float")) for column in names)
        atomic = " An atomic file needs no conversion." if is_atomic else ""
        raise ConfigError(
            f"{option}: {path.name} has no column `{name}`, only {there}."
            f"{did_you_mean(name, there.split(', '))} Correct --{option} or --separator; a file "
            f"without a header needs their names.{atomic}"
        )


def _listed(names: Sequence[str]) -> str:
    """The first names, fit for a message."""
    shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
    return printable(shown)


def wrong_encoding(layout: Layout, error: UnicodeDecodeError) -> Fault:
    """The fault of a line that is written in another encoding."""
    what = f"is not {layout.encoding} ({error})"
    return Fault("wrong encoding", what, "Correct the line, or say its --encoding")


def wrong_number(values: Sequence[str], names: Sequence[str]) -> Fault:
    """The fault of a line that has more or fewer values than there are columns."""
    return Fault(
        "wrong number of values",
        f"has {len(values)} value{'s' * (len(values) != 1)}, not {len(names)}: {_listed(names)}",
        "Correct the line, or say what stands between values with --separator",
    )
