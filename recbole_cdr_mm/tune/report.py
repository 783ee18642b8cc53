"""What a search leaves behind: its best values, all its trials, and what they cost."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dataset_tools.safe_output import atomic_folder
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.tune.search import (
    Search,
    ended_trials,
    is_interrupted,
    reason_of,
    seconds_of,
)

_STATES = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def summarise(search: Search, study: optuna.Study) -> dict[str, Any]:
    """What a search found, and its budget.

    Args:
        search: What was searched.
        study: Its trials.

    Returns:
        `model`, `dataset`, `eval_task`, `preset`, `base_model`, `split_seeds`; the budget:
        `trials`, `completed`, `pruned`, `failed`, and `seconds`, the sum over the trials; `metric`,
        `default_value` (None where the values to start from lie outside of the ranges),
        `best_value`, and `best`, the values by key.

    Raises:
        ConfigError: If no trial was completed.
    """
    trials = ended_trials(study)
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not completed:
        raise ConfigError(
            f"{search.run.model}: none of {len(trials)} trials was completed. The last one:"
            f" {reason_of(trials[-1])} Give other ranges."
        )
    sign = -1 if search.run.bigger_is_better else 1
    best = min(completed, key=lambda trial: sign * float(trial.value or 0.0))  # the first of equals
    starts = [trial for trial in completed if trial.params == search.start_parameters]
    return {
        "model": search.run.model,
        "dataset": search.run.dataset,
        **{key: search.identity.get(key) for key in ("eval_task", "preset", "base_model")},
        "split_seeds": list(search.run.split_seeds),
        "trials": len(trials),
        **{name: sum(t.state == state for t in trials) for state, name in _STATES.items()},
        "seconds": round(sum(map(seconds_of, trials)), 3),
        "metric": search.run.metric,
        "default_value": starts[0].value if starts else None,
        "best_value": best.value,
        "best": search.values(best),
    }


def write_outputs(
    out: Path, search: Search, study: optuna.Study, summary: Mapping[str, Any]
) -> None:
    """Write `<model>.json` (the summary), `<model>.trials.csv` and `<model>.yaml`.

    Args:
        out: The folder.
        search: What was searched.
        study: Its trials.
        summary: Of `summarise`.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    model = search.run.model
    with atomic_folder(out, model) as folder:
        text = json.dumps(summary, indent=2) + "\n"
        (folder / f"{model}.json").write_text(text, encoding="utf-8")
        with (folder / f"{model}.trials.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["trial", "state", "value", "seconds", *search.ranges])
            writer.writerows(_csv_row(search, trial) for trial in study.trials)
        (folder / f"{model}.yaml").write_text(_config_file(search, summary), encoding="utf-8")


def _csv_row(search: Search, trial: FrozenTrial) -> list[Any]:
    if is_interrupted(trial):
        return [trial.number, "interrupted", "", "", *trial.params.values()]
    values = search.values(trial).values()
    return [trial.number, _STATES[trial.state], trial.value, seconds_of(trial), *values]


def _config_file(search: Search, summary: Mapping[str, Any]) -> str:
    """The best values as a config file, with where they come from."""
    run = search.run
    default = summary["default_value"]
    with_default = "" if default is None else f"; {default:.6g} with the values to start from"
    lines = [
        f"# {run.model} on {run.dataset}: the best of {budget_text(summary)}.",
        f"# {run.metric} of the validation users of split_seed"
        f" {', '.join(map(str, run.split_seeds))}: {summary['best_value']:.6g}{with_default}.",
    ]
    if run.config_files or run.command_line:
        files = [f"--config_files={' '.join(run.config_files)}"] if run.config_files else []
        lines.append(f"# Tuned with {' '.join([*files, *run.command_line])}")
    for key, value in summary["best"].items():
        # JSON is YAML too, with lists in one line.
        lines.append(
            f"{key}: {json.dumps(value)}  # without tuning {json.dumps(search.start[key])};"
            f" {search.ranges[key].text}"
        )
    return "".join(f"{line}\n" for line in lines)


# For the terminal


def budget_text(summary: Mapping[str, Any]) -> str:
    """The budget in words."""
    return (
        f"{summary['trials']} trials ({summary['completed']} completed, {summary['pruned']} pruned,"
        f" {summary['failed']} failed; {summary['seconds']:.0f} s)"
    )


def trial_text(search: Search, trial: FrozenTrial, place: int) -> str:
    """One line on a trial that has ended."""
    values = " ".join(f"{key}={_short(value)}" for key, value in search.values(trial).items())
    if trial.state == TrialState.FAIL:
        outcome = f"failed: {reason_of(trial)}"
    else:
        pruned = " pruned" if trial.state == TrialState.PRUNED else ""
        outcome = f"{search.run.metric} {_short(trial.value)}{pruned}"
    return (
        f"{search.run.model} {place}/{search.n_trials}  {outcome}  {seconds_of(trial):.1f} s "
        f" {values}"
    )


def table_rows(summaries: Iterable[Mapping[str, Any]], out: Path) -> list[Sequence[str]]:
    """A header, and a row for each search: what it found and its budget."""
    counts = ("trials", "completed", "pruned", "failed")
    rows: list[Sequence[str]] = [
        ("model", "metric", "default", "best", *counts, "seconds", "written to")
    ]
    for summary in summaries:
        rows.append(
            (
                summary["model"],
                summary["metric"],
                *(_short(summary[key]) for key in ("default_value", "best_value")),
                *(str(summary[key]) for key in counts),
                f"{summary['seconds']:.0f}",
                str(out / f"{summary['model']}.yaml"),
            )
        )
    return rows


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
