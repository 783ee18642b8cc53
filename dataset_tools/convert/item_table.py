"""Titles and texts of items from a table: the option `--items` of the command `csv`."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

import polars as pl

from dataset_tools.convert.delimited import (
    PART,
    Layout,
    ParquetFile,
    as_text,
    check_column,
    open_table,
    wrong_encoding,
    wrong_number,
)
from dataset_tools.convert.domain_writer import ItemRow
from dataset_tools.convert.problems import Fault, Problems
from dataset_tools.convert.products import clean_text
from dataset_tools.convert.raw_file import Block, RawFile
from dataset_tools.feature_store import join_sentences


class ItemTable:
    """Items of a delimited or parquet file with their titles and texts.

    A value between double quotes may hold line ends.

    Args:
        path: The file.
        problems: Where faults go.
        layout: How it is written.
        item: The column of items.
        title: The column of titles, if there is one.
        text: The columns that make the text.

    Raises:
        DataFormatError: If the file is malformed.
        ConfigError: If it lacks a column.
    """

    def __init__(
        self,
        path: Path,
        problems: Problems,
        layout: Layout,
        item: str,
        title: str | None,
        text: Sequence[str],
    ) -> None:
        self.file, self.names = open_table(path, problems, layout)
        self.layout = layout
        self.columns = [item, *([title] if title else []), *text]
        self.has_title = title is not None
        options = ["items_id", *(["title"] if title else []), *(["text"] * len(text))]
        for option, name in zip(options, self.columns, strict=True):
            check_column(path, option, name, self.names)

    def rows(self, wanted: Set[str]) -> Iterator[ItemRow]:
        """Items, titles and texts of the wanted items, in the order of the file.

        Raises:
            DataFormatError: As `Problems.report` does.
        """
        for item, *values in self._rows():
            if item in wanted:
                title, *texts = map(clean_text, values if self.has_title else ["", *values])
                yield item, title, join_sentences(texts)

    def _rows(self) -> Iterator[list[str]]:
        """The values of `columns` of each row."""
        if isinstance(self.file, ParquetFile):
            for start in range(0, self.file.rows, PART):
                part = self.file.part(start, self.columns)
                texts = [
                    part.select(as_text(pl.col(name), part.schema[name]).fill_null("")).to_series()
                    for name in self.columns
                ]
                yield from map(list, zip(*texts, strict=True))
            return
        places = [self.names.index(name) for name in self.columns]
        with contextlib.closing(self.file.blocks()) as blocks:
            lines = _Lines(self.file, self.layout, blocks)
            reader = self.layout.reader(lines)
            if self.layout.columns is None:
                next(reader)
            for values in lines.records(reader):
                if len(values) == len(self.names):
                    yield [values[place] for place in places]
                elif values:
                    self.file.report(lines.first, wrong_number(values, self.names))


class _Lines:
    """The lines of a file for `csv.reader`, which remember where the record under way began."""

    def __init__(self, file: RawFile, layout: Layout, blocks: Iterable[Block]) -> None:
        self.file = file
        self.layout = layout
        self.first = Block(b"", 1, 0)
        self.begins = True
        self.lines = (line for block in blocks for line in block.lines())

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        if self.begins:
            self.first, self.begins = line, False
        try:
            return self.layout.to_utf8(line.data + b"\n").decode("utf-8")
        except UnicodeDecodeError as error:
            self.file.report(line, wrong_encoding(self.layout, error))
            return "\n"

    def records(self, reader: Iterator[list[str]]) -> Iterator[list[str]]:
        """Each record; `first` is its first line."""
        while True:
            self.begins = True
            try:
                yield next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.file.report(self.first, Fault("bad quotes", f"is no record ({error})"))
