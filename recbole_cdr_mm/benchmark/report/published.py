"""Numbers of others on the same tasks, beside this benchmark's own, each with what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from recbole_cdr_mm.benchmark.report.document import Cell, Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures, Setting
from recbole_cdr_mm.benchmark.report.tables import Column, estimate_cell, table_of

_METRICS = ("MAE", "RMSE")
_OURS = "this benchmark"


def published_section(measures: Measures) -> Section | None:
    """Published numbers; None where the benchmark predicts ratings of none of their data sets."""
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    mine = measures.datasets(eval_task="rating")
    parts = tuple(
        _table(measures, table, content["ours"], content["ratio"])
        for table in content["tables"]
        if set(table["datasets"]) & set(mine)
    )
    if not parts:
        return None
    return Section("published", "Numbers of others", tuple(content["notes"]), parts)


def _table(
    measures: Measures, given: Mapping[str, Any], models: Sequence[str], ratio: float
) -> Table:
    entries = {entry["name"]: entry for entry in given["entries"]}
    ours = _ours(measures, given["datasets"], models, ratio)
    columns = [
        Column(
            dataset,
            metric,
            {
                **{name: _number(entry, dataset, place) for name, entry in entries.items()},
                **{
                    row: estimate_cell(
                        measures.estimate(on[dataset], metric), len(on[dataset].planned)
                    )
                    for row, on in ours.items()
                    if dataset in on
                },
            },
        )
        for dataset in given["datasets"]
        for place, metric in enumerate(_METRICS)
    ]
    differs = {name: Cell(entry["differs"]) for name, entry in entries.items()}
    differs |= {row: Cell("test users are read once, after training") for row in ours}
    columns.append(Column("", "what differs", differs))
    rows = {name: entry["kind"] for name, entry in entries.items()} | dict.fromkeys(ours, _OURS)
    return table_of(given["name"], given["caption"], "model", columns, rows)


def _ours(
    measures: Measures, datasets: Sequence[str], models: Sequence[str], ratio: float
) -> dict[str, dict[str, Setting]]:
    """This benchmark's rows: for each its settings by data set."""
    found: dict[str, dict[str, Setting]] = {}
    for setting in measures.select(eval_task="rating", test_user_ratio=ratio):
        run = setting.run
        on_all_items = setting.unseen_item_ratio == 0
        if run.dataset in datasets and run.model in models and on_all_items:
            words = [run.label, *([run.base_model] if run.base_model else [])]
            words += [f"preset {run.preset}"] if run.kind != "floor" else []
            found.setdefault(f"{', '.join(words)} (ours)", {})[run.dataset] = setting
    return found


def _number(entry: Mapping[str, Any], dataset: str, place: int) -> Cell:
    value = float(entry["values"][dataset][place])
    return Cell(f"{value:g}", value=value)
