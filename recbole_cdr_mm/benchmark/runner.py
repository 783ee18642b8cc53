"""Runs a plan: what is not done yet, in parallel processes, each outcome in a file of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset_tools.safe_output import locked, write_json
from recbole_cdr_mm.benchmark.plan import Plan
from recbole_cdr_mm.benchmark.results import (
    Run,
    plan_file,
    predictions_file,
    read_outcome,
    result_file,
)
from recbole_cdr_mm.parallel.local import LocalPool
from recbole_cdr_mm.parallel.tasks import Failure, Outcome, Task


def run_plan(plan: Plan, out: Path, pool: LocalPool) -> list[tuple[Run, Failure]]:
    """Run what a plan asks for and is not done yet.

    A run is done when its result file is there; failed runs are tried again. A run that was
    killed goes on from its last epoch.

    Args:
        plan: The plan.
        out: The benchmark's folder; made where it is missing.
        pool: Worker processes.

    Returns:
        The runs that failed, and why.

    Raises:
        ConfigError: If another process works in this folder, or it cannot be written to.
    """
    with locked(out / "benchmark", "--out"):
        write_json(plan_file(out), {"title": plan.title, "runs": [asdict(r) for r in plan.runs]})
        asked = {run.key: run for run in reversed(plan.runs)}  # of two that are one, the first
        runs = {key: asked[key] for key in reversed(asked) if not is_done(asked[key], out)}
        done = len(asked) - len(runs)
        for key in asked.keys() - runs.keys():  # of a process that was killed at its very end
            shutil.rmtree(_checkpoints(out, key), ignore_errors=True)
        print(
            f"{plan.title}: {len(runs)} runs to do, {done} done;"
            f" {pool.n_workers} processes of {pool.n_threads} threads."
        )
        failed = []
        with tqdm(total=len(runs), unit="run", dynamic_ncols=True, disable=not runs) as bar:
            for outcome in pool.run(_tasks(runs, out)):
                run = runs[outcome.task.arguments["run"]["key"]]
                if outcome.error and not is_done(run, out):  # it may die after its result is there
                    failed.append((run, outcome.error))
                    _write_failure(run, outcome, out)
                bar.write(_line(run, outcome))
                bar.update()
    return failed


def is_done(run: Run, out: Path) -> bool:
    """Whether a run's result is there."""
    return "result" in read_outcome(out, run.key)


def _tasks(runs: dict[str, Run], out: Path) -> Iterator[Task]:
    for key, run in runs.items():
        arguments = {"run": asdict(run), "out": str(out)}
        yield Task(run.label, execute, arguments, out / "logs" / f"{key}.log")


def execute(run: dict[str, Any], out: str, report: Callable[[Any], Any]) -> dict[str, float]:
    """Train and measure one run, and write its files, in a worker process.

    Args:
        run: The fields of a `Run`.
        out: The benchmark's folder.
        report: Not called.

    Returns:
        Its test metrics.
    """
    from recbole_cdr_mm.quick_start import run_recbole_mm

    folder, key = Path(out), run["key"]
    checkpoints = _checkpoints(folder, key)
    config = {
        "state": "INFO",
        "show_progress": False,
        **run["config"],
        "save_predictions": str(predictions_file(folder, key)),
        "checkpoint_dir": str(checkpoints),
        "resume": True,
    }
    if run["base_model"] is not None:
        config["pretrained_path"] = str(folder / "pretrained")
    predictions_file(folder, key).parent.mkdir(parents=True, exist_ok=True)
    result = run_recbole_mm(run["model"], run["dataset"], config_dict=config)
    write_json(result_file(folder, key), {"run": run, "result": result})
    shutil.rmtree(checkpoints, ignore_errors=True)
    test: dict[str, float] = result["test"]
    return test


def _checkpoints(out: Path, key: str) -> Path:
    return out / "checkpoints" / key


def _write_failure(run: Run, outcome: Outcome, out: Path) -> None:
    assert outcome.error is not None
    error = {**asdict(outcome.error), "log": os.path.relpath(outcome.task.log, out)}
    write_json(result_file(out, run.key), {"run": asdict(run), "error": error})


def _line(run: Run, outcome: Outcome) -> str:
    if outcome.error:
        what = f"failed: {outcome.error}"
    else:
        name, value = next(iter(outcome.value.items()))
        what = f"{name} {value:.4f}"
    return f"{run.describe()}: {what} ({outcome.seconds:.0f} s)"
