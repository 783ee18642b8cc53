"""Tables for a paper: LaTeX with the package booktabs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from recbole_cdr_mm.benchmark.report.document import Cell, Row, Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # behind a line's end it would begin an option
    "]": "{]}",
    "*": "{*}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
}
_HEAD = r"""% Needs \usepackage{booktabs}, \usepackage{amssymb} and \usepackage[T1]{fontenc}.
\begin{table}
  \centering"""


def latex(table: Table) -> str:
    """Write a table.

    Args:
        table: The table. Its label is `tab:<name>`.
    """
    width = 1 + len(table.columns)
    lines = [
        _HEAD,
        rf"  \caption{{{escape(table.caption)}}}",
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"    \toprule",
        *_spans(table),
        _line([escape(text) for text in (table.corner, *table.columns)]),
        r"    \midrule",
        *_rows(table, width),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape("50% of a_b & {c}"))
    50\% of a\_b \& \{c\}
    """
    return "".join(_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))


def _spans(table: Table) -> Iterator[str]:
    if not table.spans:
        return
    ends = list(accumulate((width for _, width in table.spans), initial=1))
    yield _line(["", *(rf"\multicolumn{{{n}}}{{c}}{{{escape(text)}}}" for text, n in table.spans)])
    rules = (rf"\cmidrule(lr){{{start + 1}-{end}}}" for start, end in pairwise(ends))
    yield "    " + " ".join(rules)


def _rows(table: Table, width: int) -> Iterator[str]:
    group = ""
    for position, row in enumerate(table.rows):
        if row.group != group:
            group = row.group
            if position:
                yield r"    \addlinespace"
            if group:
                yield _line([rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(group)}}}}}"])
        yield _row(row)


def _row(row: Row) -> str:
    return _line([escape(row.name), *map(_cell, row.cells)])


def _line(cells: list[str]) -> str:
    return "    " + " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.is_best else text
    return text + (f"$^{escape(cell.mark)[1:-1]}$" if cell.mark else "")
