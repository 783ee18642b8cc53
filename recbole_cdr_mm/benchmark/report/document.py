"""What a report is made of: sections with tables and figures, which each format writes its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from matplotlib.figure import Figure as MatplotlibFigure


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What is shown, without its mark: `0.9238 ± 0.0120`.
        value: The number behind it; None for words.
        low: Lower end of its interval, if it has one.
        high: Upper end.
        n_seeds: Seeds that it is the mean of; None where that says nothing.
        is_best: Whether it is the best of its column.
        mark: `▲` or `▼` where it differs significantly from the reference, else nothing.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n_seeds: int | None = None
    is_best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A row: its name, its cells, and its group, whose rows stand together."""

    name: str
    cells: tuple[Cell, ...]
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Of its files, `rating-0.2`; its anchor in a page is `table-rating-0.2`.
        caption: What it shows and how to read it.
        corner: Heading of the rows' names: `model`.
        columns: Headings.
        rows: Rows.
        spans: Headings above the columns, with the number of columns of each; none, or they cover
            all columns.
    """

    name: str
    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    spans: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: Of its files; its anchor in a page is `figure-<name>`.
        caption: What it shows and how to read it.
        alt: What it shows in words, for those who do not see it.
        draw: Draws it.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[], MatplotlibFigure]


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        anchor: Its id in the page.
        title: Its heading.
        paragraphs: Text before its tables and figures; `code` in back quotes, **bold**.
        parts: Its tables and figures, in order.
    """

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[Table | Figure, ...] = ()


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    sections: tuple[Section, ...] = field(default_factory=tuple)
