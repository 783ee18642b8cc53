"""Tables of ratings: delimited text of any kind, and parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from dataset_tools.convert.problems import LONGEST, Problems
from dataset_tools.convert.ratings import Rules
from dataset_tools.convert.raw_file import BadRows, Fault, RawFile
from dataset_tools.manifest import describe_file
from recbole_cdr_mm.errors import ConfigError, DataFormatError, did_you_mean

INNER = "\x1f"  # stands for a separator of more than one character, which Polars does not know
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
        return self.separator if len(self.separator) == 1 else INNER

    def to_utf8(self, data: bytes) -> bytes:
        """The data in UTF-8, with separators of one character and Unix line ends."""
        if self.encoding.lower() not in ("utf-8", "utf8"):
            data = data.decode(self.encoding).encode()
        if len(self.separator) > 1:
            data = data.replace(self.separator.encode(), INNER.encode())
        return data.replace(b"\r\n", b"\n")

    def header(self, file: RawFile) -> list[str]:
        """Names of the columns."""
        if self.columns is not None:
            return list(self.columns)
        line = self.to_utf8(file.head(1)[0]).decode("utf-8", "replace").rstrip("\r\n")
        return next(self.reader([line]))

    def reader(self, lines: Iterable[str], strict: bool = False) -> Iterator[list[str]]:
        """The values of each record of lines."""
        if self.quoted:
            return csv.reader(lines, delimiter=self.delimiter, strict=strict)
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
        frame = pl.read_csv(
            data,
            has_header=False,
            schema=dict.fromkeys(self.names, pl.String),
            separator=self.layout.delimiter,
            quote_char='"' if self.layout.quoted else None,
        )
        if len(frame) != _count_lines(data):  # a double quote that is not closed took lines along
            raise BadRows
        return self.rules.check(self.pick(frame))

    def explain(self, line: bytes) -> Fault:
        """What is wrong with a line; see `Form`."""
        try:
            text = self.layout.to_utf8(line).decode("utf-8")
        except UnicodeDecodeError as error:
            return Fault("wrong encoding", f"is not {self.layout.encoding} ({error})")
        try:
            values = next(self.layout.reader([text], strict=True))
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
                column = column.cast(pl.Datetime("us")).dt.epoch("us") / 1_000_000
            kind = pl.String if field in ("user_id", "item_id") else pl.Float64
            columns.append(column.cast(kind, strict=False).alias(field))
        return frame.select(columns)

    def explain_row(self, values: Sequence[object]) -> Fault:
        """What is wrong with the values of `fields`, in their order."""
        if self.time_format and len(values) > 3:
            try:
                time: object = datetime.strptime(str(values[3]), self.time_format)
            except ValueError as error:
                return Fault("bad time", f"the time {values[3]!r} is no date ({error})")
            values = [*values[:3], time.replace(tzinfo=UTC).timestamp()]  # type: ignore[attr-defined]
        return self.rules.explain(*values)


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

    def frames(self, form: RatingTable) -> Iterator[pl.DataFrame]:
        """Sound rows in file order; faulty ones are reported.

        Raises:
            DataFormatError: As `Problems.report` does.
        """
        for start in range(0, self.rows, PART):
            raw = form.pick(self.part(start, form.fields.values()))
            frame = form.rules.seconds(raw)
            good = form.rules.good(frame)
            for row in (~good).arg_true():
                fault = form.rules.explain(*raw.row(row))
                self.problems.report(
                    fault.kind, f"{self.path.name}, row {start + row + 1}", fault.what
                )
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
        ids = pl.col(form.fields["user_id"]), pl.col(form.fields["item_id"])
        same = (ids[0].cast(pl.String) == user) & (ids[1].cast(pl.String) == item)
        rows = self.scan.with_row_index("row", 1).filter(same).select("row").collect()
        return f"{self.path.name}, row {rows.to_series()[1]}"

    def description(self) -> dict[str, Any]:
        """Name, size in bytes and SHA-256, for a manifest."""
        return describe_file(self.path)

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


def open_table(
    path: Path, problems: Problems, layout: Layout
) -> tuple[RawFile | ParquetFile, list[str]]:
    """Open a file by its content, parquet or delimited text; give the names of its columns too.

    Raises:
        DataFormatError: As `RawFile` and `ParquetFile` do.
    """
    file = RawFile(path, problems)
    if file.head(1)[0].startswith(PARQUET):
        parquet = ParquetFile(path, problems)
        return parquet, parquet.names
    return file, layout.header(file)


def check_column(path: Path, option: str, name: str, names: Sequence[str]) -> None:
    """Refuse the name of a column that the file lacks.

    Raises:
        ConfigError: If it is lacking; names those that are there.
    """
    if name not in names:
        there = _listed(names)
        raise ConfigError(
            f"{option}: {path.name} has no column `{name}`, only {there}."
            f"{did_you_mean(name, there.split(', '))} Correct --{option} or --separator; a file "
            "without a header needs the names of its columns."
        )


def _listed(names: Sequence[str]) -> str:
    """The first names, fit for a message."""
    shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
    return "".join(letter if letter.isprintable() else "?" for letter in shown)[:LONGEST]


def wrong_number(values: Sequence[str], names: Sequence[str]) -> Fault:
    """The fault of a line that has more or fewer values than there are columns."""
    return Fault(
        "wrong number of values",
        f"has {len(values)} value{'s' * (len(values) != 1)}, not {len(names)}: {_listed(names)}",
    )


def _count_lines(data: bytes) -> int:
    """How many lines are not empty."""
    if b"\n\n" in data or data.startswith(b"\n"):
        return sum(map(bool, data.split(b"\n")))
    return data.count(b"\n") + (not data.endswith(b"\n"))
