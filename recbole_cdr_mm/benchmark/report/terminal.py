"""A report's main tables as plain text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import pandas as pd

from recbole_cdr_mm.benchmark.report.document import Cell, Document, Table
from recbole_cdr_mm.benchmark.report.tables import TASKS

_WIDTH = 100  # of a caption
_IN_ASCII = str.maketrans({"▲": "^", "▼": "v", "±": "+-", "\N{EN DASH}": "-"})


def plain_text(document: Document) -> str:
    """Write the tables of the tasks' sections.

    The columns of each data set stand below those of the one before, so that lines stay short.

    Args:
        document: The report. What is bold elsewhere stands between stars.
    """
    sections = [section for section in document.sections if section.anchor in TASKS]
    tables = [part for section in sections for part in section.parts if isinstance(part, Table)]
    if not tables:
        return "No run has a result.\n"
    return "\n\n".join(block for table in tables for block in _blocks(table)) + "\n"


def in_ascii(text: str) -> str:
    """The same for a terminal that knows no other letters.

    >>> in_ascii("0.77 ± 0.02 ▲, é")
    '0.77 +- 0.02 ^, ?'
    """
    return text.translate(_IN_ASCII).encode("ascii", "replace").decode()


def _blocks(table: Table) -> Iterator[str]:
    yield textwrap.fill(table.caption.replace("bold: ", "between stars: "), _WIDTH)
    names = [row.name for row in table.rows]
    start = 0
    for span, width in table.spans or (("", len(table.columns)),):
        places = range(start, start + width)
        start += width
        columns = [_column([row.cells[i] for row in table.rows]) for i in places]
        headings = [table.corner, *(table.columns[i] for i in places)]
        drawn = pd.DataFrame(list(zip(names, *columns, strict=True)), columns=headings)
        yield f"{span}\n{drawn.to_string(index=False)}".lstrip("\n")


def _column(cells: Sequence[Cell]) -> list[str]:
    """Texts, with room for stars and marks where there are any: numbers stand below each other."""
    if not any(cell.is_best or cell.mark for cell in cells):
        return [cell.text for cell in cells]
    return [
        f"**{cell.text}** {cell.mark:1}" if cell.is_best else f"{cell.text}   {cell.mark:1}"
        for cell in cells
    ]
