"""A benchmark's report: one document, written as a page, as Markdown, and as files for a paper."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from dataset_tools.safe_output import atomic_folder, atomic_path
from recbole_cdr_mm.benchmark.report import figures
from recbole_cdr_mm.benchmark.report.comparisons import all_comparisons, comparison_section
from recbole_cdr_mm.benchmark.report.document import Document, Figure, Section, Table
from recbole_cdr_mm.benchmark.report.groups import all_group_tables, group_section
from recbole_cdr_mm.benchmark.report.latex import latex
from recbole_cdr_mm.benchmark.report.markdown import markdown
from recbole_cdr_mm.benchmark.report.measures import Measures
from recbole_cdr_mm.benchmark.report.overview import overview_section, run_section
from recbole_cdr_mm.benchmark.report.page import html
from recbole_cdr_mm.benchmark.report.published import published_section
from recbole_cdr_mm.benchmark.report.tables import (
    all_metrics,
    base_model_tables,
    data_section,
    main_sections,
)
from recbole_cdr_mm.benchmark.report.terminal import plain_text
from recbole_cdr_mm.benchmark.report.variants import variant_section, variant_tables
from recbole_cdr_mm.benchmark.results import load_results
from recbole_cdr_mm.errors import ConfigError

_COLUMNS = (
    "table",
    "row",
    "group",
    "column",
    "span",
    "value",
    "low",
    "high",
    "n_seeds",
    "best",
    "mark",
)


def write_report(out: Path) -> Path:
    """Write the report of a benchmark's folder to `<out>/report/`.

    The same results give the same files, byte by byte.

    Args:
        out: The benchmark's folder.

    Returns:
        `<out>/report/report.html`. Beside it are `report.md`, `tables/`, `figures/`, and
        `main_tables.txt` for a terminal.

    Raises:
        ConfigError: If there is no benchmark in it, a file of it is damaged, or the report cannot
            be written.
    """
    benchmark = load_results(out)
    if not benchmark.results:
        raise ConfigError(f"{out}: the plan has no runs. Give it models, and run it.")
    measures = Measures(benchmark)
    document = build_document(measures)
    parts = [part for section in document.sections for part in section.parts]
    tables = [part for part in parts if isinstance(part, Table)]
    folder = out / "report"
    _write_tables(folder / "tables", tables, _for_files_alone(measures))
    _write_figures(folder / "figures", [part for part in parts if isinstance(part, Figure)])
    texts = {
        "main_tables.txt": plain_text(document),
        "report.md": markdown(document),
        "report.html": html(document),
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as file:
            file.write_text(text, encoding="utf-8", newline="\n")
    return folder / "report.html"


def build_document(measures: Measures) -> Document:
    """Make the report.

    Args:
        measures: Of some runs, done or not.

    Raises:
        ConfigError: If predictions are missing or damaged.
    """
    sections = [
        overview_section(measures),
        data_section(measures),
        *main_sections(measures),
        comparison_section(measures),
        _drawn("curves", "By share of test users", figures.ratio_curves(measures)),
        _drawn(
            "base-models",
            "Base models",
            [*base_model_tables(measures), *figures.base_models(measures)],
        ),
        _drawn("learning-curves", "Learning curves", figures.learning_curves(measures)),
        *(_with_figures(measures, variant) for variant in measures.variants),
        _with(group_section(measures), figures.groups(measures)),
        published_section(measures),
        run_section(measures),
    ]
    return Document(
        measures.benchmark.title, tuple(section for section in sections if section is not None)
    )


def _drawn(anchor: str, title: str, parts: Iterable[Table | Figure]) -> Section | None:
    found = tuple(parts)
    return Section(anchor, title, (), found) if found else None


def _with_figures(measures: Measures, variant: str) -> Section | None:
    draw = {"modality": figures.modality, "few_shot": figures.few_shot}.get(variant)
    return _with(variant_section(measures, variant), draw(measures) if draw else [])


def _with(section: Section | None, drawn: Iterable[Figure]) -> Section | None:
    """A section with figures behind its tables."""
    if section is None:
        return None
    parts = (*section.parts, *drawn)
    return Section(section.anchor, section.title, section.paragraphs, parts)


def _for_files_alone(measures: Measures) -> list[Table]:
    """What is too much for a page."""
    tables = [*all_metrics(measures), *all_comparisons(measures), *all_group_tables(measures)]
    for variant in measures.variants:
        tables += variant_tables(measures, variant, all_metrics=True)
    return tables


def _write_tables(folder: Path, shown: Iterable[Table], others: Iterable[Table]) -> None:
    with atomic_folder(folder, "tables") as temporary:
        for table in shown:
            text = latex(table)
            (temporary / f"{table.name}.tex").write_text(text, encoding="utf-8", newline="\n")
            _write_csv(temporary / f"{table.name}.csv", table)
        for table in others:
            _write_csv(temporary / f"{table.name}.csv", table)
        names = {file.name for file in temporary.iterdir()}
    _clear(folder, names)


def _write_csv(path: Path, table: Table) -> None:
    """Write a table in long form: a line for each cell, numbers as they are."""
    spans = [span for span, width in table.spans for _ in range(width)] or [""] * len(table.columns)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in table.rows:
            for column, span, cell in zip(table.columns, spans, row.cells, strict=True):
                value = cell.text if cell.value is None else cell.value
                place = (table.name, row.name, row.group, column, span)
                numbers = (value, cell.low, cell.high, cell.n_seeds)
                writer.writerow((*place, *numbers, int(cell.is_best), cell.mark))


def _write_figures(folder: Path, drawn: Iterable[Figure]) -> None:
    with atomic_folder(folder, "figures") as temporary:
        for figure in drawn:
            files = figures.rendered(figure)
            (temporary / f"{figure.name}.png").write_bytes(files.png)
            (temporary / f"{figure.name}.svg").write_text(files.svg, encoding="utf-8", newline="\n")
        names = {file.name for file in temporary.iterdir()}
    _clear(folder, names)


def _clear(folder: Path, names: set[str]) -> None:
    """Remove what an earlier report left and this one does not have."""
    for file in folder.glob("*"):
        if file.suffix in (".csv", ".tex", ".png", ".svg") and file.name not in names:
            file.unlink()
