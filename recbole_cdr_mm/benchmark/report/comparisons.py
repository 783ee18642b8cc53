"""Each model against the reference: how far it is from it, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recbole_cdr_mm.benchmark.report.document import Cell, Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures, Scenario, Setting
from recbole_cdr_mm.benchmark.report.tables import (
    SIGNIFICANT,
    TASKS,
    Column,
    by_dataset,
    count,
    directions,
    mark_of,
    p_cell,
    rows_of,
    slug,
    table_of,
    title_of,
)
from recbole_cdr_mm.evaluation.intervals import Estimate
from recbole_cdr_mm.evaluation.significance import (
    Comparison,
    corrected,
    smallest_wilcoxon,
    wilcoxon,
)
from recbole_cdr_mm.evaluation.user_values import has_user_values, is_smaller_better

ENOUGH_BLOCKS = 6  # with fewer, Wilcoxon's test over them cannot reach 5%


@dataclass(frozen=True)
class _Blocks:
    """Differences of the models of a task to one floor, in all blocks that both have.

    Attributes:
        floor: The floor.
        differences: By model.
    """

    floor: str
    differences: dict[str, list[float]]


def comparison_section(measures: Measures) -> Section | None:
    """The comparisons with the references; None where there is nothing to compare."""
    parts: list[Table] = []
    for scenario in measures.scenarios:
        metric = measures.main_metric(scenario.eval_task)
        if metric is not None and has_user_values(metric):
            table = comparison_table(measures, scenario, metric)
            parts += [table] if table is not None else []
    for task in dict.fromkeys(scenario.eval_task for scenario in measures.scenarios):
        blocks = _blocks(measures, task)
        parts += [_blocks_table(measures, task, blocks)] if blocks is not None else []
    if not parts:
        return None
    return Section("comparisons", "Comparisons with the floors", _notes(measures), tuple(parts))


def all_comparisons(measures: Measures) -> list[Table]:
    """The comparisons by all other metrics, for files alone."""
    tables = []
    for scenario in measures.scenarios:
        for metric in measures.metrics(scenario.eval_task):
            if has_user_values(metric) and metric != measures.main_metric(scenario.eval_task):
                table = comparison_table(measures, scenario, metric)
                tables += [table] if table is not None else []
    return tables


def comparison_table(measures: Measures, scenario: Scenario, metric: str) -> Table | None:
    """Models down, data sets by difference, interval and p values across.

    Args:
        measures: What was measured.
        scenario: What the models have in common.
        metric: One that is a mean over users.

    Returns:
        None where no data set has a reference and a model to compare with it.
    """
    columns: list[Column] = []
    references: dict[str, Setting] = {}
    for dataset, models in by_dataset(measures, scenario).items():
        reference = measures.reference(models)
        if reference is None:
            continue
        found = {
            setting.run.label: comparison
            for setting in models
            if setting is not reference
            and (comparison := measures.compare(setting, reference, metric)) is not None
        }
        if found:
            references[dataset] = reference
            columns += _columns(found, metric, f"{dataset}, less {reference.run.label}")
    if not columns:
        return None
    caption = (
        f"{title_of(measures, scenario)}: {metric} less that of the reference, the floor that is"
        f" best on validation users. {directions([metric])} The difference has its 95% interval; p"
        " of the paired bootstrap over test users and seeds and of Wilcoxon's signed-rank test over"
        " seeds, each also corrected for the number of models by Holm's method."
    )
    compared = {row for column in columns for row in column.cells}
    rows = {row: group for row, group in rows_of(measures, scenario).items() if row in compared}
    name = f"comparison-{slug(measures, scenario)}-{metric}"
    return table_of(name, caption, "model", columns, rows)


def difference_cell(difference: Estimate, mark: str = "") -> Cell:
    """A difference with its interval.

    Args:
        difference: What was estimated.
        mark: Whether it is significant.
    """
    text, low, high = f"{difference.mean:+.4f}", None, None
    if np.isfinite(difference.error):
        low, high = difference.low, difference.high
        text += f" [{low:+.4f}, {high:+.4f}]"
    return Cell(text, difference.mean, low, high, len(difference.values), mark=mark)


def _columns(found: Mapping[str, Comparison], metric: str, span: str) -> list[Column]:
    bootstrap = {row: comparison.p_bootstrap for row, comparison in found.items()}
    of_seeds = {row: comparison.p_wilcoxon for row, comparison in found.items()}
    holm = _corrected(bootstrap)
    difference = {
        row: difference_cell(comparison.difference, mark_of(comparison, holm[row], metric))
        for row, comparison in found.items()
    }
    p_values: dict[str, Mapping[str, float | None]] = {
        "p": bootstrap,
        "p, Holm": holm,
        "Wilcoxon": of_seeds,
        "Wilcoxon, Holm": _corrected(of_seeds),
    }
    return [
        Column(span, "difference", difference),
        *(
            Column(span, heading, {row: p_cell(p) for row, p in values.items()})
            for heading, values in p_values.items()
        ),
    ]


def _corrected(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    return dict(zip(p_values, corrected(list(p_values.values())), strict=True))


def _notes(measures: Measures) -> tuple[str, ...]:
    """A sentence where there are too few seeds for Wilcoxon's test."""
    n_seeds = max(len(setting.done) for setting in measures.settings)
    smallest = smallest_wilcoxon(n_seeds)
    if smallest <= SIGNIFICANT:
        return ()
    return (
        f"With {n_seeds} {'seed' if n_seeds == 1 else 'seeds'} the smallest p that Wilcoxon's test"
        f" over seeds can have is {smallest:.3g}: it cannot reach {SIGNIFICANT:.0%} here, whatever"
        " the models do.",
    )


# Over all blocks


def _blocks(measures: Measures, task: str) -> _Blocks | None:
    """Differences to one floor over data sets, ratios and seeds; None where those are too few."""
    metric = measures.main_metric(task)
    if metric is None or not has_user_values(metric):
        return None
    places = [
        models
        for scenario in measures.first_scenarios
        if scenario.eval_task == task
        for models in by_dataset(measures, scenario).values()
    ]
    best = [floor.run.label for models in places if (floor := measures.reference(models))]
    if not best:
        return None
    chosen = Counter(best).most_common(1)[0][0]
    differences: dict[str, list[float]] = {}
    for models in places:
        of_label = {setting.run.label: setting for setting in models}
        if chosen not in of_label:
            continue
        for label, setting in of_label.items():
            found = measures.compare(setting, of_label[chosen], metric)
            if label != chosen and found is not None:
                differences.setdefault(label, []).extend(found.difference.values.values())
    if max(map(len, differences.values()), default=0) < ENOUGH_BLOCKS:
        return None
    return _Blocks(chosen, differences)


def _blocks_table(measures: Measures, task: str, blocks: _Blocks) -> Table:
    metric = measures.main_metric(task)
    assert metric is not None
    found = blocks.differences
    p_values = {row: wilcoxon(values) for row, values in found.items()}
    columns = [
        Column("", "blocks", {row: _count(len(values)) for row, values in found.items()}),
        Column("", "better in", {row: _count(_wins(v, metric)) for row, v in found.items()}),
        Column("", "mean difference", {row: _mean(values) for row, values in found.items()}),
        Column("", "p", {row: p_cell(p) for row, p in p_values.items()}),
        Column("", "p, Holm", {row: p_cell(p) for row, p in _corrected(p_values).items()}),
    ]
    first = next(s for s in measures.first_scenarios if s.eval_task == task)
    base = f", base model {first.base_model}" if first.base_model else ""
    caption = (
        f"{TASKS[task]}, all blocks (data set x share of test users x seed; preset"
        f" {first.preset}{base}): {metric} less that of {blocks.floor}, the floor that is best on"
        f" validation users most often. {directions([metric])} p of Wilcoxon's signed-rank test"
        " over the blocks. Blocks of one data set share users, so that p is too small."
    )
    return table_of(f"blocks-{task}", caption, "model", columns, list(found))


def _wins(differences: Sequence[float], metric: str) -> int:
    sign = -1 if is_smaller_better(metric) else 1
    return sum(sign * difference > 0 for difference in differences)


def _count(value: int) -> Cell:
    return Cell(count(value), value=value)


def _mean(differences: Sequence[float]) -> Cell:
    mean = float(np.mean(differences))
    return Cell(f"{mean:+.4f}", value=mean)
