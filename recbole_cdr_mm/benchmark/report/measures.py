"""What a benchmark measured: runs by setting, and the statistics that tables and figures share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recbole_cdr_mm.benchmark.results import Benchmark, Run, RunResult
from recbole_cdr_mm.evaluation.intervals import Estimate, estimate, of_values
from recbole_cdr_mm.evaluation.significance import Comparison, compare
from recbole_cdr_mm.evaluation.user_values import (
    UserValues,
    has_user_values,
    is_smaller_better,
    user_values,
)

T = TypeVar("T")

# What a page shows of the metrics of a ranking, as far as they were measured.
_SHOWN = ("NDCG@10", "Recall@20", "MRR@10", "Hit@10")
_WITHOUT_PRESETS = ("floor", "RecBole")


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in their seed alone: what one number of a table is the mean of.

    Attributes:
        run: One of them; all but its `key`, `seed` and `config` is common to all.
        planned: All runs of the plan, by seed.
    """

    run: Run
    planned: Mapping[int, RunResult]

    @cached_property
    def done(self) -> dict[int, RunResult]:
        """The runs that have a result, by seed."""
        return {seed: entry for seed, entry in self.planned.items() if entry.result is not None}

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """The results of `done`, in the order of the seeds."""
        return [entry.result for entry in self.done.values() if entry.result is not None]

    @property
    def variant(self) -> str | None:
        """Name of the variant; None for a run of the main grid."""
        return self.run.variant["name"] if self.run.variant else None

    @property
    def values(self) -> dict[str, Any]:
        """The variant's own values of keys; none for a run of the main grid."""
        return dict(self.run.variant["values"]) if self.run.variant else {}

    @property
    def unseen_item_ratio(self) -> float:
        """Share of the target items that it is measured on alone; 0: it is measured on all."""
        return float(self.run.config.get("unseen_item_ratio", 0.0))

    @property
    def seconds(self) -> float:
        """Seconds of training, the mean over seeds; nan where nothing is done.

        Those of base models that were trained once for many runs are in each of them.
        """
        seconds = [sum(stage["seconds"] for stage in r["stages"]) for r in self.results]
        return float(np.mean(seconds)) if seconds else float("nan")


@dataclass(frozen=True)
class Scenario:
    """What the models of one table of the main grid have in common.

    Attributes:
        eval_task: rating or ranking.
        test_user_ratio: Share of the overlapped users that are test users.
        preset: Of the models that have presets.
        base_model: Of the models that have one; None where none of the plan has.
    """

    eval_task: str
    test_user_ratio: float
    preset: str
    base_model: str | None


@dataclass(frozen=True, eq=False)
class Rows:
    """The test rows of a run and its test users, as far as they are measured by.

    Attributes:
        users: Tokens of the users, sorted, (n,).
        columns: As `save_predictions` wrote them, (N,); `user` is a place in `users`.
        item_ratings: Ratings of each row's item in training, (N,).
        profiles: `history_length`, `generosity` and `mainstream` of the users, (n,).
    """

    users: NDArray[np.str_]
    columns: Mapping[str, NDArray]
    item_ratings: NDArray[np.int64]
    profiles: Mapping[str, NDArray]

    def user_values(self, metric: str, rows: NDArray[np.bool_] | None = None) -> UserValues:
        """A metric cut into its users' parts.

        Args:
            metric: See `evaluation.user_values`.
            rows: Which rows to measure on, (N,); by default all. At least one.
        """
        columns = dict(self.columns)
        if rows is not None:
            columns = {
                name: column if name == "recommended" else column[rows]
                for name, column in columns.items()
            }
        found = user_values(columns, metric)
        return replace(found, user=self.users[found.user])

    def hit_rate(self, k: int, rows: NDArray[np.bool_]) -> UserValues:
        """The share of positives that are among the first k items of their users.

        Args:
            k: Places, no more than were saved.
            rows: Which positives, (N,).
        """
        user, rank = self.columns["user"][rows], self.columns["rank"][rows]
        found, place = np.unique(user, return_inverse=True)
        hit = (rank > 0) & (rank <= k)
        total = np.bincount(place, weights=hit, minlength=len(found)).astype(np.float64)
        weight = np.bincount(place, minlength=len(found)).astype(np.float64)
        return UserValues(self.users[found], total, weight, root=False)

    @property
    def saved_places(self) -> int:
        """How many items of each user were saved; 0 for ratings."""
        return self.columns["recommended"].shape[1] if "recommended" in self.columns else 0


class Measures:
    """The runs of a benchmark by setting, and what is worked out of them, each once.

    Runs that failed or are missing are absent: a setting knows how many were planned.

    Attributes:
        benchmark: What was run.
        settings: In the order of the plan.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self.settings = list(_settings(benchmark))
        self._shared: dict[bytes, NDArray] = {}
        self._users: dict[int, tuple[NDArray, NDArray]] = {}
        self._known: dict[Hashable, Any] = {}

    # Which settings there are

    def select(self, variant: str | None = None, **fields: Any) -> list[Setting]:
        """The settings of a variant, or of the main grid, whose runs have these values.

        Args:
            variant: Name of the variant; None for the main grid.
            fields: Fields of `Run`: `dataset="movie_cd"`, `eval_task="rating"`.
        """
        return [
            setting
            for setting in self.settings
            if setting.variant == variant
            and all(getattr(setting.run, name) == value for name, value in fields.items())
        ]

    @cached_property
    def variants(self) -> list[str]:
        """Names of the variants."""
        return list(dict.fromkeys(s.variant for s in self.settings if s.variant))

    @cached_property
    def scenarios(self) -> list[Scenario]:
        """What tables of the main grid there are, in order."""
        found: list[Scenario] = []
        for task in dict.fromkeys(s.run.eval_task for s in self.select()):
            runs = [setting.run for setting in self.select(eval_task=task)]
            ratios = sorted({run.test_user_ratio for run in runs})
            with_presets = [run for run in runs if run.kind not in _WITHOUT_PRESETS]
            presets = dict.fromkeys(run.preset for run in with_presets) or ["default"]
            bases = dict.fromkeys(run.base_model for run in runs if run.base_model) or [None]
            found += [
                Scenario(task, ratio, preset, base)
                for ratio in ratios
                for preset in presets
                for base in bases
            ]
        return found

    @cached_property
    def first_scenarios(self) -> list[Scenario]:
        """The scenarios with the first preset and base model of their task and ratio."""
        first: dict[tuple[str, float], Scenario] = {}
        for scenario in self.scenarios:
            first.setdefault((scenario.eval_task, scenario.test_user_ratio), scenario)
        return list(first.values())

    def datasets(self, **fields: Any) -> list[str]:
        """Data sets of the main grid's settings that have these values; see `select`."""
        return list(dict.fromkeys(setting.run.dataset for setting in self.select(**fields)))

    def models_of(self, scenario: Scenario, dataset: str) -> list[Setting]:
        """The settings of a scenario on a data set, one for each model.

        Models without presets or without a base model are in every scenario of the task.
        """
        settings = self.select(
            dataset=dataset,
            eval_task=scenario.eval_task,
            test_user_ratio=scenario.test_user_ratio,
        )
        return [
            setting
            for setting in settings
            if setting.run.base_model in (None, scenario.base_model)
            and (setting.run.preset == scenario.preset or setting.run.kind in _WITHOUT_PRESETS)
        ]

    def main_run_of(self, setting: Setting) -> Setting | None:
        """The setting of the main grid that a variant is a variant of.

        None without one, or where that one is measured on other items.
        """
        same = ("model", "dataset", "eval_task", "test_user_ratio", "preset", "base_model")
        found = self.select(**{field: getattr(setting.run, field) for field in same})
        on_same = [s for s in found if s.unseen_item_ratio == setting.unseen_item_ratio]
        return on_same[0] if on_same else None

    # What was measured

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What a piece of work gives; it is done only once for each key.

        Args:
            key: Tells it from all other work on these measures.
            work: The work.
        """
        if key not in self._known:
            self._known[key] = work()
        found: T = self._known[key]
        return found

    def metrics(self, eval_task: str) -> list[str]:
        """All metrics of a task that any run measured, in the order of its result."""
        of_task = [s for s in self.settings if s.run.eval_task == eval_task]
        return list(dict.fromkeys(name for s in of_task for r in s.results for name in r["test"]))

    def shown_metrics(self, eval_task: str) -> list[str]:
        """The metrics over users that a page shows: a few of a ranking's, if those were measured.

        The metric that chooses on validation users comes first.
        """
        measured = [name for name in self.metrics(eval_task) if has_user_values(name)]
        shown = [name for name in _SHOWN if name in measured] or measured
        chooses = self.main_metric(eval_task)
        if eval_task == "ranking" and chooses in measured:
            shown = [chooses, *(name for name in shown if name != chooses)]
        return shown

    def other_metrics(self, eval_task: str) -> list[str]:
        """The metrics that are no mean over users: coverage, novelty, diversity."""
        return [name for name in self.metrics(eval_task) if not has_user_values(name)]

    def main_metric(self, eval_task: str) -> str | None:
        """The metric that chooses on validation users; None where nothing is done."""
        for setting in self.settings:
            if setting.run.eval_task == eval_task and setting.results:
                return _valid_metric(setting.results[0])
        return None

    def rows(self, entry: RunResult) -> Rows:
        """The test rows of a run that is done; its file is read once.

        Raises:
            ConfigError: If the file is missing or damaged.
        """
        return self.once(("rows", entry.run.key), lambda: self._read(entry))

    def user_values(self, setting: Setting, metric: str) -> dict[int, UserValues]:
        """A metric of each seed, cut into its users' parts.

        Args:
            setting: The setting.
            metric: One that is a mean over users. Seeds that did not measure it are left out.
        """
        return {
            seed: self.user_values_of(entry, metric)
            for seed, entry in setting.done.items()
            if entry.result is not None and metric in entry.result["test"]
        }

    def user_values_of(self, entry: RunResult, metric: str) -> UserValues:
        """A metric of one run that is done, cut into its users' parts.

        Args:
            entry: The run.
            metric: One that is a mean over users.
        """
        return self.once(
            ("user_values", entry.run.key, metric), lambda: self.rows(entry).user_values(metric)
        )

    def estimate(self, setting: Setting, metric: str) -> Estimate | None:
        """The mean over seeds of a test metric, with its interval; None where nothing is done."""
        return self.once(("estimate", setting, metric), lambda: self._estimate(setting, metric))

    def compare(self, setting: Setting, other: Setting, metric: str) -> Comparison | None:
        """Compare two settings on the seeds and the test rows that both have.

        Args:
            setting: What is compared.
            other: What it is compared with.
            metric: One that is a mean over users.

        Returns:
            None where they have no such seed, or the rows of one differ.
        """
        return self.once(
            ("compare", setting, other, metric), lambda: self._compare(setting, other, metric)
        )

    def validation(self, setting: Setting) -> float:
        """The mean over seeds of the metric that chooses, on validation users.

        nan where nothing is done, or was validated.
        """
        known = [r["valid"][_valid_metric(r)] for r in setting.results if r["valid"]]
        return float(np.mean(known)) if known else float("nan")

    def reference(self, settings: list[Setting]) -> Setting | None:
        """The floor that is best on validation users; None where there is none.

        Floors with fewer seeds than others are left out: their mean is one over other users.

        Args:
            settings: Models of one scenario on one data set.
        """
        floors = [s for s in settings if s.run.kind == "floor"]
        floors = [floor for floor in floors if np.isfinite(self.validation(floor))]
        if not floors:
            return None
        most = max(len(floor.done) for floor in floors)
        floors = [floor for floor in floors if len(floor.done) == most]
        choose = min if is_smaller_better(_valid_metric(floors[0].results[0])) else max
        return choose(floors, key=self.validation)

    def _estimate(self, setting: Setting, metric: str) -> Estimate | None:
        if has_user_values(metric):
            runs = self.user_values(setting, metric)
            return estimate(runs) if runs else None
        values = {
            seed: float(entry.result["test"][metric])
            for seed, entry in setting.done.items()
            if entry.result is not None and metric in entry.result["test"]
        }
        return of_values(values) if values else None

    def _compare(self, setting: Setting, other: Setting, metric: str) -> Comparison | None:
        one, two = self.user_values(setting, metric), self.user_values(other, metric)
        seeds = [seed for seed in one if seed in two]
        same = all(
            _same_rows(self.rows(setting.done[seed]), self.rows(other.done[seed])) for seed in seeds
        )
        if not seeds or not same:
            return None
        return compare(one, two)

    # Reading

    def _read(self, entry: RunResult) -> Rows:
        saved = entry.predictions()
        users, user = self._numbered(self._share(saved["user"]))
        columns = {"user": user, **{n: self._share(saved[n]) for n in ("item", "rating")}}
        if "prediction" in saved:
            columns["prediction"] = saved["prediction"]
        else:
            columns["rank"] = saved["rank"].astype(np.int32)
            columns["recommended"] = np.broadcast_to(np.False_, saved["recommended"].shape)
        order = np.argsort(saved["users"])
        profiles = {
            name: self._share(saved[name][order])
            for name in ("history_length", "generosity", "mainstream")
        }
        return Rows(users, columns, self._share(saved["item_ratings"]), profiles)

    def _share(self, array: NDArray) -> NDArray:
        """The first array with these contents: runs on the same test rows share most columns."""
        digest = hashlib.blake2b(array.tobytes(), digest_size=16)
        digest.update(f"{array.dtype} {array.shape}".encode())
        return self._shared.setdefault(digest.digest(), array)

    def _numbered(self, user: NDArray) -> tuple[NDArray, NDArray]:
        """Different tokens, sorted, and the place of each row's token among them."""
        if id(user) not in self._users:  # `_shared` keeps it alive, so that its id is its own
            users, place = np.unique(user, return_inverse=True)
            self._users[id(user)] = users, place.astype(np.int32)
        return self._users[id(user)]


def _settings(benchmark: Benchmark) -> Iterator[Setting]:
    found: dict[tuple[Any, ...], dict[int, RunResult]] = {}
    for entry in benchmark.results:
        run = entry.run
        variant = (run.variant["name"], repr(run.variant["values"])) if run.variant else None
        place = (run.dataset, run.eval_task, run.test_user_ratio, run.preset, run.base_model)
        found.setdefault((run.label, *place, variant), {})[run.seed] = entry
    for planned in found.values():
        seeds = dict(sorted(planned.items()))
        yield Setting(next(iter(seeds.values())).run, seeds)


def _valid_metric(result: Mapping[str, Any]) -> str:
    """The metric that chose, as the result names it; a configuration may spell it otherwise."""
    wanted = result["config"]["valid_metric"]
    return next((name for name in result["test"] if name.lower() == wanted.lower()), wanted)


def _same_rows(one: Rows, two: Rows) -> bool:
    """Whether two runs were measured on the same items of the same users: they share the arrays."""
    return all(one.columns[name] is two.columns[name] for name in ("user", "item"))
