"""Variants of models: beside the main run, and by the ratings that are revealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recbole_cdr_mm.benchmark.report.document import Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures, Setting
from recbole_cdr_mm.benchmark.report.tables import (
    BETTER,
    SIGNIFICANT,
    TASKS,
    WORSE,
    Column,
    directions,
    file_name,
    metric_column,
    percent,
    table_of,
)

FEW_SHOT, MODALITY = "few_shot", "modality"
_TITLES = {
    MODALITY: "What the characteristic encoder reads",
    FEW_SHOT: "A user's first ratings",
}
_MAIN = "main run"


def variant_section(measures: Measures, variant: str) -> Section | None:
    """The tables of a variant; None where nothing of it is done.

    Args:
        measures: What was measured.
        variant: Its name.
    """
    parts = tuple(variant_tables(measures, variant))
    if not parts:
        return None
    return Section(
        f"variant-{file_name(variant)}", _TITLES.get(variant, f"Variant: {variant}"), (), parts
    )


def variant_tables(
    measures: Measures, variant: str, *, all_metrics: bool = False
) -> Iterator[Table]:
    """A table for each task, share of test users and share of unseen items.

    Args:
        measures: What was measured.
        variant: Its name.
        all_metrics: With every metric that was measured, for files alone.
    """
    suffix = "-all-metrics" if all_metrics else ""
    for (task, ratio, unseen), settings in _by_place(measures, variant).items():
        metrics = measures.metrics(task) if all_metrics else measures.shown_metrics(task)
        name = f"{variant}-{task}-{ratio:g}"
        where = f"{TASKS[task]}, {percent(ratio)} test users"
        if unseen:
            name += f"-unseen-{unseen:g}"
            where += f", on the {percent(unseen)} of the target items that are unseen"
        if is_few_shot(settings):
            yield _few_shot_table(measures, settings, metrics, name + suffix, where)
        else:
            yield _variant_table(measures, settings, metrics, name + suffix, where)


def is_few_shot(settings: Sequence[Setting]) -> bool:
    """Whether settings differ in how many ratings of a test user are revealed."""
    return all("few_shot" in setting.values for setting in settings)


def row_name(setting: Setting, among: Sequence[Setting], *without: str) -> str:
    """What a table calls a variant: its model, its own values, and in what else they differ.

    Args:
        setting: The variant.
        among: All variants of the table.
        without: Keys that stand elsewhere in the table.
    """
    parts = [f"{key}={value}" for key, value in setting.values.items() if key not in without]
    return _named(setting, among, parts)


def _by_place(measures: Measures, variant: str) -> dict[tuple[str, float, float], list[Setting]]:
    """Settings that are measured on the same rows: by task and shares of test users and items."""
    found: dict[tuple[str, float, float], list[Setting]] = {}
    for setting in measures.select(variant):
        run = setting.run
        place = (run.eval_task, run.test_user_ratio, setting.unseen_item_ratio)
        found.setdefault(place, []).append(setting)
    return {place: found[place] for place in found if any(s.done for s in found[place])}


def _named(setting: Setting, among: Sequence[Setting], parts: Sequence[Any]) -> str:
    words = [str(part) for part in parts]
    for field in ("base_model", "preset"):
        value = getattr(setting.run, field)
        if value and len({getattr(other.run, field) for other in among}) > 1:
            words.append(value)
    return f"{setting.run.model} ({', '.join(words)})" if words else setting.run.model


def _variant_table(
    measures: Measures,
    settings: Sequence[Setting],
    metrics: Sequence[str],
    name: str,
    where: str,
) -> Table:
    rows: dict[str, None] = {}
    columns: list[Column] = []
    for dataset in dict.fromkeys(setting.run.dataset for setting in settings):
        here, references = _with_main_runs(measures, settings, dataset)
        rows.update(dict.fromkeys(here))
        columns += [metric_column(measures, here, references, m, dataset) for m in metrics]
    caption = (
        f"{where}. {directions(metrics)} Mean over seeds ± half of the 95% interval; bold: the best"
        f" mean of a column. {_marks('the main run of the same model')}"
    )
    return table_of(name, caption, "model", columns, list(rows))


def _with_main_runs(
    measures: Measures, settings: Sequence[Setting], dataset: str
) -> tuple[dict[str, Setting], dict[str, Setting | None]]:
    """The variants on a data set by row, each behind its main run, which it is compared with."""
    here: dict[str, Setting] = {}
    references: dict[str, Setting | None] = {}
    for setting in settings:
        if setting.run.dataset != dataset:
            continue
        main = measures.main_run_of(setting)
        if main is not None:
            here.setdefault(_named(main, settings, [_MAIN]), main)
        row = row_name(setting, settings)
        here[row], references[row] = setting, main
    return here, references


def _few_shot_table(
    measures: Measures,
    settings: Sequence[Setting],
    metrics: Sequence[str],
    name: str,
    where: str,
) -> Table:
    revealed = sorted({setting.values["few_shot"] for setting in settings})
    rows = dict.fromkeys(row_name(setting, settings, "few_shot") for setting in settings)
    columns: list[Column] = []
    for dataset in dict.fromkeys(setting.run.dataset for setting in settings):
        none = _revealed(settings, dataset, 0)
        for metric in metrics:
            span = f"{dataset} {metric}"
            for n in revealed:
                here = _revealed(settings, dataset, n)
                references = {row: none.get(row) for row in here}
                columns.append(metric_column(measures, here, references, metric, span, f"n = {n}"))
    caption = (
        f"{where}: n target ratings of each test user are revealed to the initialisation stage, and"
        f" the same others are tested for every n. {directions(metrics)} Mean over seeds ± half of"
        f" the 95% interval; bold: the best mean of a column. {_marks('the same model at n = 0')}"
    )
    return table_of(name, caption, "model", columns, list(rows))


def _revealed(settings: Sequence[Setting], dataset: str, n: int) -> Mapping[str, Setting]:
    return {
        row_name(setting, settings, "few_shot"): setting
        for setting in settings
        if setting.run.dataset == dataset and setting.values["few_shot"] == n
    }


def _marks(reference: str) -> str:
    return (
        f"{BETTER} significantly better, {WORSE} significantly worse than {reference}: paired"
        f" bootstrap, corrected by Holm's method over the column, {SIGNIFICANT:.0%}."
    )
