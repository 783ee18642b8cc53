"""What was run, how to read it, and what became of each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recbole_cdr_mm.benchmark.report.document import Cell, Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures
from recbole_cdr_mm.benchmark.report.tables import BETTER, WORSE, Column, percent, table_of
from recbole_cdr_mm.benchmark.results import RunResult

_HOW = (
    "**How to read it.** A number is the mean over seeds. Each seed draws the training, and"
    " also the test and validation users anew. Validation users choose epochs (the preset"
    " paper takes the last one), and which floor is the reference; test users are measured"
    " once, after that. An interval is for fresh users and fresh seeds: test users are drawn"
    " again, the same ones over all seeds, and what seeds add beyond their users is estimated"
    " from the spread of the seeds. With one seed it knows of the users alone. Two models are"
    " compared on the same test users and seeds, so intervals that overlap can still go with a"
    f" difference that is significant. {BETTER} and {WORSE} mark what differs from the"
    " reference, after Holm's correction over the models of a column. The best mean of a"
    " column is bold; that alone says nothing about whether it is better than the next. A cell"
    " with fewer seeds than planned says so, and its mean is one over other test users; it is"
    " never the best beside a complete one.",
)


def overview_section(measures: Measures) -> Section:
    """What was run, and how the report is read."""
    runs = [setting.run for setting in measures.settings]
    unseen = {setting.unseen_item_ratio for setting in measures.select() or measures.settings}
    main = [setting.run for setting in measures.select()] or runs
    lines = {
        "Tasks": _unique(run.eval_task for run in main),
        "Data sets": _unique(run.dataset for run in main),
        "Models": _unique(run.model for run in main),
        "Test users": _unique(percent(r) for r in sorted({run.test_user_ratio for run in main})),
        "Unseen items": _unique(percent(r) for r in sorted(unseen) if r),
        "Seeds": _unique(str(s) for s in sorted({s for m in measures.settings for s in m.planned})),
        "Presets": _unique(run.preset for run in main),
        "Base models": _unique(run.base_model for run in main if run.base_model),
        "Variants": measures.variants,
    }
    said = [
        f"**{what}**: {', '.join(map(_code, words))}." for what, words in lines.items() if words
    ]
    outcome = _outcomes(measures)
    said.append(
        f"{outcome['done']} runs are done, {outcome['failed']} failed, {outcome['missing']} are"
        " missing; the last section has them."
    )
    return Section("overview", "What was run", (" ".join(said), *_HOW))


def run_section(measures: Measures) -> Section:
    """What became of the runs: failures, what is missing, tuning, time and versions."""
    entries = list(_entries(measures).values())
    outcome = _outcomes(measures)
    paragraphs = [
        f"{outcome['done']} done, {outcome['failed']} failed, {outcome['missing']} missing.",
        _time(entries),
        *_warnings(measures, entries),
    ]
    parts = (_failures(entries), _missing(measures), _tuning(measures), _versions(entries))
    tables = tuple(table for table in parts if table is not None)
    return Section("runs", "Runs", tuple(filter(None, paragraphs)), tables)


def _entries(measures: Measures) -> dict[str, RunResult]:
    """All runs, each once, also where a variant is a run of the main grid."""
    return {entry.run.key: entry for entry in reversed(measures.benchmark.results)}


def _outcomes(measures: Measures) -> dict[str, int]:
    entries = _entries(measures).values()
    done = sum(entry.result is not None for entry in entries)
    failed = sum(entry.error is not None and entry.result is None for entry in entries)
    return {"done": done, "failed": failed, "missing": len(entries) - done - failed}


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _code(word: str) -> str:
    return f"`{word}`"


def _time(entries: Sequence[RunResult]) -> str:
    stages = [stage for e in entries if e.result is not None for stage in e.result["stages"]]
    reused = sum(stage["seconds"] for stage in stages if stage.get("reused"))
    trained = sum(stage["seconds"] for stage in stages if not stage.get("reused"))
    text = f"Training took {_duration(trained)}."
    if reused:
        text += (
            " Base models that several runs share were trained once, which saved"
            f" {_duration(reused)}; the seconds of a model in the tables contain them."
        )
    return text


def _duration(seconds: float) -> str:
    """Seconds in words.

    >>> _duration(40.2), _duration(400), _duration(9000)
    ('40 s', '6.7 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _warnings(measures: Measures, entries: Sequence[RunResult]) -> list[str]:
    found = []
    mixed = [name for name, versions in _versions_of(entries).items() if len(versions) > 1]
    if mixed:
        names = ", ".join(map(_code, mixed))
        found.append(
            f"**Mixed versions.** Results were made with different versions of {names}, and may"
            " differ for that reason alone. Run the older ones again in another folder."
        )
    floors = {setting.run.label for setting in measures.select(kind="floor")}
    for place, trials in _budgets(measures).items():
        if len({n for model, n in trials.items() if model not in floors}) > 1:
            found.append(
                f"**Unequal tuning.** On {_code(place[0])} ({place[1]}) the models' values were"
                " searched with different numbers of trials, or not at all: compare with care."
            )
    for tuned_on, seeds in sorted(_seeds_by_search(measures).items()):
        if not seeds <= set(tuned_on):
            found.append(
                "**Tuned on other splits.** Values were searched on the validation users of split"
                f" {_numbers(tuned_on)}, and splits {_numbers(seeds)} are measured: some who chose"
                " the values are among the test users of another split."
            )
    return found


def _seeds_by_search(measures: Measures) -> dict[tuple[int, ...], set[int]]:
    """The seeds that are measured, by the split seeds on which their values were searched."""
    found: dict[tuple[int, ...], set[int]] = {}
    for setting in measures.settings:
        if setting.run.tuned_on:
            found.setdefault(tuple(setting.run.tuned_on), set()).update(setting.planned)
    return found


def _numbers(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _failures(entries: Sequence[RunResult]) -> Table | None:
    failed = {e.run.describe(): e.error for e in entries if e.error and e.result is None}
    columns = [
        Column("", name, {row: Cell(str(error[name])) for row, error in failed.items()})
        for name in ("type", "message", "log")
    ]
    caption = "Runs that failed. The log is in the benchmark's folder."
    return table_of("failures", caption, "run", columns, list(failed)) if failed else None


def _missing(measures: Measures) -> Table | None:
    rows: dict[str, Cell] = {}
    for setting in measures.settings:
        seeds = [s for s, e in setting.planned.items() if e.result is None and e.error is None]
        if seeds:
            name, _, _ = setting.run.describe().rpartition(", seed")
            rows[name] = Cell(", ".join(map(str, seeds)))
    caption = "Runs of the plan without a result so far. The plan's command makes them."
    columns = [Column("", "seeds", rows)]
    return table_of("missing", caption, "runs", columns, list(rows)) if rows else None


def _budgets(measures: Measures) -> dict[tuple[str, str], dict[str, int | None]]:
    """Trials by model, for each data set and task in which any model's values were searched."""
    found: dict[tuple[str, str], dict[str, int | None]] = {}
    for setting in measures.select(preset="default"):
        run = setting.run
        found.setdefault((run.dataset, run.eval_task), {})[run.label] = run.trials
    return {place: t for place, t in found.items() if any(n is not None for n in t.values())}


def _tuning(measures: Measures) -> Table | None:
    budgets = _budgets(measures)
    columns = [
        Column(
            dataset,
            task,
            {
                model: Cell("none") if n is None else Cell(f"{n:,}", value=n)
                for model, n in trials.items()
            },
        )
        for (dataset, task), trials in budgets.items()
    ]
    rows = _unique(model for trials in budgets.values() for model in trials)
    caption = "Trials of the search for each model's values, on validation users; preset default."
    return table_of("tuning", caption, "model", columns, rows) if budgets else None


def _versions_of(entries: Sequence[RunResult]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for entry in entries:
        versions: Mapping[str, Any] = entry.result["versions"] if entry.result else {}
        for name, version in versions.items():
            found.setdefault(name, set()).add(str(version))
    return {name: sorted(versions) for name, versions in found.items()}


def _versions(entries: Sequence[RunResult]) -> Table | None:
    versions = _versions_of(entries)
    cells = {name: Cell(", ".join(known)) for name, known in versions.items()}
    columns = [Column("", "version", cells)]
    caption = "Versions that the results were made with."
    return table_of("versions", caption, "library", columns, list(cells)) if cells else None
