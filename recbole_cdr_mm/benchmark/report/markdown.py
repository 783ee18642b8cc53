"""A report as Markdown, as GitHub shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recbole_cdr_mm.benchmark.report.document import Cell, Document, Figure, Section, Table

_SPECIAL = re.compile(r"([\\`*|\[\]~])")


def markdown(document: Document) -> str:
    """Write a report.

    Args:
        document: The report. Its figures are `figures/<name>.png` beside the file.
    """
    lines = [f"# {escape(document.title)}", ""]
    for section in document.sections:
        lines.append(f"- [{escape(section.title)}](#{section.anchor})")
    for section in document.sections:
        lines += _section(section)
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    r"""Text that is shown as it is, also in a table.

    >>> print(escape("a|b *c* <d>"))
    a\|b \*c\* &lt;d&gt;
    """
    text = " ".join(text.split()).replace("&", "&amp;")
    return _SPECIAL.sub(r"\\\1", text.replace("<", "&lt;").replace(">", "&gt;"))


def _section(section: Section) -> Iterator[str]:
    yield from ("", f'<a id="{section.anchor}"></a>', "", f"## {escape(section.title)}")
    for paragraph in section.paragraphs:
        yield from ("", paragraph)
    for part in section.parts:
        yield from ("", f'<a id="{part.name}"></a>', "")
        yield from _table(part) if isinstance(part, Table) else _figure(part)


def _figure(figure: Figure) -> Iterator[str]:
    yield f"![{escape(figure.alt)}](figures/{figure.name}.png)"
    yield from ("", escape(figure.caption))


def _table(table: Table) -> Iterator[str]:
    grouped = any(row.group for row in table.rows)
    above = [span for span, width in table.spans for _ in range(width)] or [""] * len(table.columns)
    headings = [
        "<br>".join(escape(part) for part in parts if part)
        for parts in zip(above, table.columns, strict=True)
    ]
    yield from (escape(table.caption), "")
    yield _line([*[""] * grouped, escape(table.corner), *headings])
    yield _line(["---"] * (1 + grouped) + ["---:"] * len(headings))
    last = ""
    for row in table.rows:
        group = escape(row.group) if row.group != last else ""
        last = row.group
        cells = [escape(row.name), *map(_cell, row.cells)]
        yield _line([group, *cells] if grouped else cells)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.is_best else text
    return f"{text} {cell.mark}".rstrip()
