"""A benchmark's folder: the plan's runs, and the result of each."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_cdr_mm.errors import ConfigError


@dataclass(frozen=True)
class Run:
    """One training and measurement.

    Attributes:
        key: Its name, made of all that decides its outcome.
        label: What tables call the model; a variant's values are part of it.
        model: The model.
        kind: What tables group it by: floor, single-domain, cross-domain or RecBole.
        dataset: The pair.
        eval_task: rating or ranking.
        test_user_ratio: Share of the overlapped users that are test users.
        seed: `seed` and `split_seed`.
        preset: default or paper.
        base_model: MF or GMF; None for a model without one.
        variant: For a run beside the main ones, its `name` and the `values` of its keys.
        trials: How many trials its values were searched with; None where they were not.
        config: All keys that are given to it.
        tuned_on: The split seeds whose validation users chose its values, likewise.
    """

    key: str
    label: str
    model: str
    kind: str
    dataset: str
    eval_task: str
    test_user_ratio: float
    seed: int
    preset: str
    base_model: str | None
    variant: Mapping[str, Any] | None
    trials: int | None
    config: Mapping[str, Any]
    tuned_on: Sequence[int] | None = None

    def describe(self) -> str:
        """One line that tells it from the plan's other runs."""
        parts = [f"{self.label} on {self.dataset}", self.eval_task]
        parts += [self.base_model] if self.base_model else []
        parts += [self.preset] if self.preset != "default" else []
        return ", ".join([*parts, f"test_user_ratio {self.test_user_ratio:g}", f"seed {self.seed}"])


@dataclass(frozen=True)
class RunResult:
    """A run of the plan, and what became of it.

    Attributes:
        run: The run.
        result: As `--result_json` writes it; None where the run failed or was not made yet.
        error: Where it failed, its `type`, `message` and `log`.
        predictions_file: Where its predictions are.
    """

    run: Run
    result: dict[str, Any] | None
    error: dict[str, str] | None
    predictions_file: Path

    def predictions(self) -> dict[str, NDArray[Any]]:
        """What it predicted: see `evaluation.predictions.prediction_columns`.

        Raises:
            ConfigError: If the file is missing or damaged.
        """
        try:
            with self.predictions_file.open("rb") as stream, np.load(stream) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"{self.predictions_file}: cannot be read ({error}). Remove"
                f" {self.run.key}.json beside it, and run the plan again."
            ) from error


@dataclass(frozen=True)
class Benchmark:
    """What a report is made of: a title, and the runs in the order of the plan."""

    title: str
    results: list[RunResult]


def plan_file(out: Path) -> Path:
    """The file that lists the runs of the current plan."""
    return out / "plan.json"


def result_file(out: Path, key: str) -> Path:
    """The file of a run's result, or of why it failed."""
    return out / "runs" / f"{key}.json"


def predictions_file(out: Path, key: str) -> Path:
    """The file of a run's predictions."""
    return out / "runs" / f"{key}.npz"


def load_results(out: Path) -> Benchmark:
    """Read a benchmark's folder.

    Args:
        out: The folder.

    Raises:
        ConfigError: If there is no benchmark in it, or a file of it is damaged.
    """
    if not plan_file(out).exists():
        raise ConfigError(
            f"{out}: holds no benchmark. Make one with: python -m recbole_cdr_mm.benchmark run"
            f" --plan=FILE --out={out}"
        )
    plan = _read_json(plan_file(out))
    results = []
    for fields in plan["runs"]:
        run = Run(**fields)
        outcome = read_outcome(out, run.key)
        results.append(
            RunResult(
                run, outcome.get("result"), outcome.get("error"), predictions_file(out, run.key)
            )
        )
    return Benchmark(plan["title"], results)


def read_outcome(out: Path, key: str) -> dict[str, Any]:
    """What a run left: its `result`, or the `error` by which it failed; nothing if it never ended.

    Raises:
        ConfigError: If the file is damaged.
    """
    file = result_file(out, key)
    return _read_json(file) if file.exists() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {content}")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}). Remove it and run the plan again."
        ) from error
    return content
