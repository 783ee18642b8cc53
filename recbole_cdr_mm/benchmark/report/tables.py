"""Tables of the main grid: data sets, and models by data sets and metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from recbole_cdr_mm.benchmark.report.document import Cell, Row, Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures, Scenario, Setting
from recbole_cdr_mm.evaluation.intervals import Estimate
from recbole_cdr_mm.evaluation.significance import Comparison, corrected
from recbole_cdr_mm.evaluation.user_values import has_user_values, is_smaller_better

SIGNIFICANT = 0.05
BETTER, WORSE = "▲", "▼"
MISSING = Cell("\N{EN DASH}")
TASKS = {"rating": "Rating prediction", "ranking": "Ranking"}
_GROUPS = {
    "floor": "floors",
    "single-domain": "single-domain",
    "cross-domain": "cross-domain",
    "RecBole": "RecBole's own",
}


@dataclass(frozen=True)
class Column:
    """A column of a table to be: the heading above its span, its own, and its cells by row."""

    span: str
    heading: str
    cells: Mapping[str, Cell]


def table_of(
    name: str,
    caption: str,
    corner: str,
    columns: Sequence[Column],
    rows: Mapping[str, str] | Iterable[str],
) -> Table:
    """Put columns together.

    Args:
        name: Of its files.
        caption: What it shows.
        corner: Heading of the rows' names.
        columns: In order; neighbours with the same span stand under one heading.
        rows: Names of the rows in order, with their groups where they have any. A column without
            a cell for a row has a dash there.
    """
    groups = rows if isinstance(rows, Mapping) else dict.fromkeys(rows, "")
    spans = [(span, len(list(part))) for span, part in groupby(columns, key=lambda c: c.span)]
    return Table(
        name=file_name(name),
        caption=caption,
        corner=corner,
        columns=tuple(column.heading for column in columns),
        rows=tuple(
            Row(row, tuple(column.cells.get(row, MISSING) for column in columns), group)
            for row, group in groups.items()
        ),
        spans=tuple(spans) if any(span for span, _ in spans) else (),
    )


def file_name(text: str) -> str:
    """Text as a name of files and anchors.

    >>> file_name("few shot/2")
    'few-shot-2'
    """
    return re.sub(r"[^\w.-]+", "-", text)


# Cells


def number(value: float, like: float | None = None) -> str:
    """A number for a table, with decimals that fit its size.

    Args:
        value: The number.
        like: Another one, whose size decides.

    >>> number(0.92384), number(138.22), number(0.5, like=138.22)
    ('0.9238', '138.2', '0.5')
    """
    size = abs(value if like is None else like)
    decimals = 4 if size < 10 else 2 if size < 100 else 1
    return f"{value:,.{decimals}f}"


def count(value: float | None) -> str:
    """A count, or a mean of counts.

    >>> count(1234.0), count(12.5)
    ('1,234', '12.5')
    """
    if value is None:
        return MISSING.text
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def count_cell(values: Sequence[float | None]) -> Cell:
    """The mean of counts; a dash where one is unknown."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return MISSING
    mean = float(np.mean(known))
    return Cell(count(mean), value=mean)


def p_cell(p: float | None) -> Cell:
    """A p value."""
    if p is None:
        return MISSING
    return Cell("<0.001" if p < 0.001 else f"{p:.3f}", value=p)


def estimate_cell(
    estimate: Estimate | None, n_planned: int, *, is_best: bool = False, mark: str = ""
) -> Cell:
    """A mean over seeds, with half of its interval and, where seeds are missing, their number.

    Args:
        estimate: None where nothing was measured.
        n_planned: Seeds of the plan.
        is_best: Whether it is the best of its column.
        mark: How it differs from the reference.
    """
    if estimate is None:
        return MISSING
    text, n_seeds = number(estimate.mean), len(estimate.values)
    if math.isfinite(estimate.half_width):
        text += f" ± {number(estimate.half_width, like=estimate.mean)}"
    if n_seeds < n_planned:
        text += f" ({n_seeds} of {n_planned} seeds)"
    return Cell(
        text, estimate.mean, _finite(estimate.low), _finite(estimate.high), n_seeds, is_best, mark
    )


def mark_of(comparison: Comparison | None, p: float | None, metric: str) -> str:
    """Whether a model is significantly better or worse than what it is compared with.

    Args:
        comparison: None where there is none.
        p: Its corrected p value.
        metric: Which decides the direction.
    """
    if comparison is None or p is None or not p < SIGNIFICANT:
        return ""
    is_better = (comparison.difference.mean < 0) is is_smaller_better(metric)
    return BETTER if is_better else WORSE


def best_of(estimates: Mapping[str, Estimate | None], metric: str) -> set[str]:
    """Which means are the best, of those over the most seeds; none where all are equal.

    Args:
        estimates: By row.
        metric: Which decides the direction.
    """
    known = {row: estimate for row, estimate in estimates.items() if estimate is not None}
    most = max((len(estimate.values) for estimate in known.values()), default=0)
    complete = {row: e.mean for row, e in known.items() if len(e.values) == most}
    means = {row: mean for row, mean in complete.items() if np.isfinite(mean)}
    if len(set(means.values())) < 2:
        return set()
    best = (min if is_smaller_better(metric) else max)(means.values())
    return {row for row, mean in means.items() if mean == best}


def metric_column(
    measures: Measures,
    settings: Mapping[str, Setting],
    references: Mapping[str, Setting | None],
    metric: str,
    span: str,
    heading: str | None = None,
) -> Column:
    """A metric of several settings, with the best of them and marks.

    A metric that is no mean over users has neither: nothing tells which of its differences count,
    nor always what is better.

    Args:
        measures: What was measured.
        settings: By row.
        references: What each row is compared with; None where it is with nothing.
        metric: The metric.
        span: Heading above it.
        heading: Its own heading; by default the metric.
    """
    estimates = {row: measures.estimate(setting, metric) for row, setting in settings.items()}
    compared: dict[str, Comparison | None] = {}
    best: set[str] = set()
    if has_user_values(metric):
        best = best_of(estimates, metric)
        for row, setting in settings.items():
            reference = references.get(row)
            if reference is not None and reference is not setting:
                compared[row] = measures.compare(setting, reference, metric)
    p_values = corrected([c.p_bootstrap if c else None for c in compared.values()])
    marks = {
        row: mark_of(comparison, p, metric)
        for (row, comparison), p in zip(compared.items(), p_values, strict=True)
    }
    cells = {
        row: estimate_cell(
            estimates[row],
            len(setting.planned),
            is_best=row in best,
            mark=marks.get(row, ""),
        )
        for row, setting in settings.items()
    }
    return Column(span, heading or metric, cells)


# Data sets


def data_section(measures: Measures) -> Section | None:
    """What the data sets and their splits hold; None where nothing is done."""
    found: dict[str, dict[float, dict[int, Mapping[str, Any]]]] = {}
    for setting in measures.select() or measures.settings:
        for seed, result in zip(setting.done, setting.results, strict=True):
            of_dataset = found.setdefault(setting.run.dataset, {})
            of_ratio = of_dataset.setdefault(setting.run.test_user_ratio, {})
            of_ratio.setdefault(seed, result["data"])
    if not found:
        return None
    return Section("data", "Data sets", (), (_sizes(found), _splits(found)))


def _sizes(found: Mapping[str, Mapping[float, Mapping[int, Mapping[str, Any]]]]) -> Table:
    data = {
        name: next(iter(next(iter(ratios.values())).values())) for name, ratios in found.items()
    }
    columns = [
        Column(
            f"{side} domain", what, {name: _number_of(d[side][what]) for name, d in data.items()}
        )
        for side in ("source", "target")
        for what in ("users", "items", "ratings")
    ]
    overlap = {name: _number_of(d["overlapped_users"]) for name, d in data.items()}
    columns.append(Column("overlap", "users", overlap))
    for side in ("source", "target"):
        texts = {
            name: _number_of((d["items_with_text"] or {}).get(side)) for name, d in data.items()
        }
        columns.append(Column("items with text", side, texts))
    caption = "What the data sets hold, before any split."
    return table_of("data-sets", caption, "data set", columns, list(data))


def _splits(found: Mapping[str, Mapping[float, Mapping[int, Mapping[str, Any]]]]) -> Table:
    headings = {
        "test_users": "test users",
        "test_ratings": "test ratings",
        "valid_users": "validation users",
        "unseen_test_items": "unseen test items",
    }
    splits = {
        f"{name}, {percent(ratio)}": list(seeds.values())
        for name, ratios in found.items()
        for ratio, seeds in sorted(ratios.items())
    }
    columns = [
        Column(
            "", heading, {row: count_cell([d[key] for d in data]) for row, data in splits.items()}
        )
        for key, heading in headings.items()
    ]
    caption = (
        "The splits: of the overlapped users the given share are test users. Means over seeds,"
        " each of which draws other test and validation users. Unseen test items have no rating"
        " in training."
    )
    return table_of("splits", caption, "data set, test users", columns, list(splits))


def _number_of(value: float | None) -> Cell:
    return Cell(count(value), value=None if value is None else float(value))


# The main grid


def main_sections(measures: Measures) -> list[Section]:
    """For each task its tables, one for each scenario, and for a ranking those beyond accuracy."""
    sections = []
    for task in dict.fromkeys(scenario.eval_task for scenario in measures.scenarios):
        scenarios = [s for s in measures.scenarios if s.eval_task == task]
        if not measures.metrics(task):
            continue
        tables = [main_table(measures, s, measures.shown_metrics(task)) for s in scenarios]
        tables += beyond_accuracy(measures, scenarios)
        sections.append(Section(task, TASKS[task], (), tuple(tables)))
    return sections


def all_metrics(measures: Measures) -> list[Table]:
    """The tables of `main_sections` with every metric that was measured, for files alone."""
    return [
        main_table(measures, scenario, metrics, suffix="-all-metrics")
        for scenario in measures.scenarios
        if (metrics := measures.metrics(scenario.eval_task))
    ]


def main_table(
    measures: Measures, scenario: Scenario, metrics: Sequence[str], suffix: str = ""
) -> Table:
    """Models down, data sets by metrics across.

    Args:
        measures: What was measured.
        scenario: What the models have in common.
        metrics: Which metrics.
        suffix: Of the table's name.
    """
    columns: list[Column] = []
    floors: dict[str, Setting] = {}
    for dataset, models in by_dataset(measures, scenario).items():
        reference = measures.reference(models)
        if reference is not None:
            floors[dataset] = reference
        settings = {setting.run.label: setting for setting in models}
        references = dict.fromkeys(settings, reference)
        columns += [
            metric_column(measures, settings, references, metric, dataset) for metric in metrics
        ]
        columns += _effort(settings, dataset)
    caption = (
        f"{title_of(measures, scenario)}. {directions(metrics)}"
        f" Mean over seeds ± half of the 95% interval; bold: the best mean of a column."
        f" {marks_caption(floors)}"
    )
    name = f"{slug(measures, scenario)}{suffix}"
    return table_of(name, caption, "model", columns, rows_of(measures, scenario))


def beyond_accuracy(measures: Measures, scenarios: Sequence[Scenario]) -> list[Table]:
    """Coverage, novelty and diversity: means over seeds, without best and marks."""
    tables = []
    for scenario in scenarios:
        metrics = measures.other_metrics(scenario.eval_task)
        columns = [
            metric_column(measures, {s.run.label: s for s in models}, {}, metric, dataset)
            for dataset, models in by_dataset(measures, scenario).items()
            for metric in metrics
        ]
        caption = (
            f"{title_of(measures, scenario)}. Beyond accuracy: what is recommended. Mean over"
            " seeds ± half of Student's 95% interval over seeds, which is too narrow where seeds"
            " share test users."
        )
        if columns:
            name = f"{slug(measures, scenario)}-beyond-accuracy"
            tables.append(table_of(name, caption, "model", columns, rows_of(measures, scenario)))
    return tables


def base_model_tables(measures: Measures) -> list[Table]:
    """The models that stand on a base model, with each of them; none where there is only one.

    One table for each task, share of test users and preset, by the metric that chooses.
    """
    tables = []
    for task in dict.fromkeys(s.eval_task for s in measures.scenarios):
        metric = measures.main_metric(task)
        scenarios = [s for s in measures.scenarios if s.eval_task == task]
        bases = list(dict.fromkeys(s.base_model for s in scenarios))
        if metric is None or len(bases) < 2:
            continue
        for scenario in scenarios:
            if scenario.base_model == bases[0]:
                tables.append(_base_model_table(measures, scenario, metric, bases))
    return tables


def _base_model_table(
    measures: Measures, first: Scenario, metric: str, bases: Sequence[str | None]
) -> Table:
    columns: list[Column] = []
    rows: dict[str, str] = {}
    for dataset in by_dataset(measures, first):
        for base in bases:
            scenario = replace(first, base_model=base)
            settings = {
                setting.run.label: setting
                for setting in measures.models_of(scenario, dataset)
                if setting.run.base_model
            }
            rows.update({row: _GROUPS[s.run.kind] for row, s in settings.items()})
            columns.append(metric_column(measures, settings, {}, metric, dataset, base))
    where = title_of(measures, replace(first, base_model=None))
    caption = (
        f"{where}: {metric} on each base model. {directions([metric])} Mean over seeds ± half of"
        " the 95% interval; bold: the best mean of a column."
    )
    name = f"base-models-{slug(measures, first).removesuffix(f'-{first.base_model}')}"
    return table_of(name, caption, "model", columns, rows)


def rows_of(measures: Measures, scenario: Scenario) -> dict[str, str]:
    """The models of a scenario in the order of their groups, and the group of each.

    Args:
        measures: What was measured.
        scenario: What the models have in common.
    """
    runs = [setting.run for models in by_dataset(measures, scenario).values() for setting in models]
    kinds = list(_GROUPS)
    runs.sort(key=lambda run: kinds.index(run.kind))
    return {run.label: _GROUPS[run.kind] for run in runs}


def by_dataset(measures: Measures, scenario: Scenario) -> dict[str, list[Setting]]:
    """The models of a scenario on each data set.

    Args:
        measures: What was measured.
        scenario: What the models have in common.
    """
    datasets = measures.datasets(
        eval_task=scenario.eval_task, test_user_ratio=scenario.test_user_ratio
    )
    return {dataset: measures.models_of(scenario, dataset) for dataset in datasets}


def slug(measures: Measures, scenario: Scenario) -> str:
    """The name of a scenario in file names, without what all of its task have in common."""
    alike = [s for s in measures.scenarios if s.eval_task == scenario.eval_task]
    parts = [scenario.eval_task, f"{scenario.test_user_ratio:g}"]
    if len({s.preset for s in alike}) > 1:
        parts.append(scenario.preset)
    if scenario.base_model and len({s.base_model for s in alike}) > 1:
        parts.append(scenario.base_model)
    return "-".join(parts)


def percent(ratio: float) -> str:
    """A share.

    >>> percent(0.2)
    '20%'
    """
    return f"{100 * ratio:g}%"


def title_of(measures: Measures, scenario: Scenario) -> str:
    """The scenario in words: `Ranking, 20% test users, base model GMF`."""
    parts = [TASKS[scenario.eval_task], f"{percent(scenario.test_user_ratio)} test users"]
    if any(s.preset != "default" for s in measures.scenarios):
        parts.append(f"preset {scenario.preset}")
    if scenario.base_model:
        parts.append(f"base model {scenario.base_model}")
    return ", ".join(parts)


def directions(metrics: Sequence[str]) -> str:
    """A sentence on which metrics are better when they are small."""
    small = [is_smaller_better(metric) for metric in metrics if has_user_values(metric)]
    if all(small):
        return "Smaller is better."
    return "" if any(small) else "Larger is better."


def marks_caption(references: Mapping[str, Setting]) -> str:
    """What the marks mean.

    Args:
        references: The floor that is compared with, by data set.
    """
    if not references:
        return "No floor was validated, so nothing is marked."
    names = {setting.run.label for setting in references.values()}
    places = ", ".join(f"{s.run.label} on {dataset}" for dataset, s in references.items())
    which = places if len(names) > 1 else next(iter(names))
    return (
        f"{BETTER} significantly better, {WORSE} significantly worse than the reference, the floor"
        f" that is best on validation users ({which}): paired bootstrap, corrected by Holm's"
        f" method over the column, {SIGNIFICANT:.0%}."
    )


def _effort(settings: Mapping[str, Setting], span: str) -> list[Column]:
    """Seconds of training and, where values were searched, trials."""
    seconds = {
        row: Cell(f"{s.seconds:,.1f}", value=s.seconds, n_seeds=len(s.done))
        for row, s in settings.items()
        if s.done
    }
    columns = [Column(span, "seconds", seconds)]
    trials = {row: _number_of(setting.run.trials) for row, setting in settings.items()}
    if any(setting.run.trials is not None for setting in settings.values()):
        columns.append(Column(span, "trials", trials))
    return columns


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
