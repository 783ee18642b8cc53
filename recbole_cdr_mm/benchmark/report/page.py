"""A report as one HTML page that needs nothing beside it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from recbole_cdr_mm.benchmark.report.document import Cell, Document, Figure, Row, Section, Table
from recbole_cdr_mm.benchmark.report.figures import svg_text

_TEMPLATE = "page.html"
_MARKS = {"▲": "significantly better than the reference", "▼": "significantly worse"}


@dataclass(frozen=True)
class _Shown:
    """A table as the template walks it.

    Attributes:
        table: The table.
        groups: Rows that stand together, each with the name of the group.
        firsts: Places of the columns that begin a span, (n,).
        has_marks: Whether room for marks is kept beside the numbers.
        is_wide: Whether it needs small print on paper.
        is_short: Whether it fits on a sheet of paper as a whole.
    """

    table: Table
    groups: Sequence[tuple[str, Sequence[Row]]]
    firsts: frozenset[int]
    has_marks: bool
    is_wide: bool
    is_short: bool


def html(document: Document) -> str:
    """Write a report as a page: style, tables and figures inside, no scripts, nothing to load.

    Args:
        document: The report. Names of its tables and of its figures are unique, and so are the
            anchors of its sections.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        inline=_inline, svg=lambda figure: Markup(svg_text(figure)), hint=_hint
    )
    source = resources.files(__package__).joinpath(_TEMPLATE)
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(document=document, blocks=_blocks, marks=_MARKS)


def _blocks(section: Section) -> Iterator[_Shown | list[Figure]]:
    """A section's parts in order, figures that follow each other together."""
    for kind, parts in itertools.groupby(section.parts, key=type):
        if kind is Figure:
            yield [part for part in parts if isinstance(part, Figure)]
        else:
            yield from (_shown(part) for part in parts if isinstance(part, Table))


def _shown(table: Table) -> _Shown:
    groups = [(name, list(rows)) for name, rows in itertools.groupby(table.rows, _group_of)]
    starts = itertools.accumulate((width for _, width in table.spans), initial=0)
    return _Shown(
        table,
        groups,
        frozenset(starts) if table.spans else frozenset(),
        any(cell.mark for row in table.rows for cell in row.cells),
        len(table.columns) > 8,
        len(table.rows) <= 30,
    )


def _group_of(row: Row) -> str:
    return row.group


def _hint(cell: Cell) -> str:
    """What a cell says when it is pointed at."""
    parts = []
    if cell.low is not None and cell.high is not None:
        parts.append(f"95% interval {cell.low:.4f} to {cell.high:.4f}")
    if cell.n_seeds is not None:
        parts.append(f"{cell.n_seeds} seed{'s' if cell.n_seeds > 1 else ''}")
    return ", ".join(parts)


def _inline(text: str) -> Markup:
    """Text with `code` and **bold** as elements, all else escaped.

    >>> _inline("**a < b** by `x**2`")
    Markup('<strong>a &lt; b</strong> by <code>x**2</code>')
    """

    def element(match: re.Match[str]) -> str:
        code, bold = match.groups()
        return f"<code>{code}</code>" if code else f"<strong>{_inline_code(bold)}</strong>"

    return Markup(re.sub(r"`([^`]+)`|\*\*(.+?)\*\*", element, str(escape(text))))


def _inline_code(escaped: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
