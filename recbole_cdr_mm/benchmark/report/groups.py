"""Error by group of users and of items: for whom a model works, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recbole_cdr_mm.benchmark.report.document import Section, Table
from recbole_cdr_mm.benchmark.report.measures import Measures, Scenario, Setting
from recbole_cdr_mm.benchmark.report.tables import (
    Column,
    best_of,
    count_cell,
    directions,
    estimate_cell,
    rows_of,
    slug,
    table_of,
    title_of,
)
from recbole_cdr_mm.benchmark.results import RunResult
from recbole_cdr_mm.evaluation.intervals import Estimate, estimate
from recbole_cdr_mm.evaluation.user_values import UserValues, has_user_values

PLACES = 20  # of a ranking, for the hit rate of positives
_USER_GROUPS = {
    "history_length": ("history length", ("short", "medium", "long")),
    "generosity": ("generosity", ("strict", "medium", "generous")),
    "mainstream": ("taste", ("niche", "medium", "mainstream")),
}
_ITEM_GROUPS = ("unseen", "rare", "medium", "popular")
_SIZES = "users or test ratings"


@dataclass(frozen=True, eq=False)
class Group:
    """A group of test users, or of test rows.

    Attributes:
        grouping: What it is a group by: `history length`.
        name: Its name: `short`.
        metric: What is measured on it.
        members: Which test users (n,), or which test rows (N,), of a run are in it.
        measured: The metric of a run on some of them.
        known: What was worked out already, by setting.
    """

    grouping: str
    name: str
    metric: str
    members: Callable[[RunResult], NDArray[np.bool_]]
    measured: Callable[[RunResult, NDArray[np.bool_]], UserValues]
    known: dict[Setting, Estimate | None] = field(default_factory=dict)

    def estimate(self, setting: Setting) -> Estimate | None:
        """The metric over the seeds that have somebody in the group; None where none has."""
        if setting not in self.known:
            members = {seed: self.members(entry) for seed, entry in setting.done.items()}
            runs = {
                seed: self.measured(setting.done[seed], chosen)
                for seed, chosen in members.items()
                if chosen.any()
            }
            self.known[setting] = estimate(runs) if runs else None
        return self.known[setting]


def group_section(measures: Measures) -> Section | None:
    """Tables by groups, in each data set; None where nothing is done."""
    parts = []
    for scenario in measures.first_scenarios:
        metric = measures.main_metric(scenario.eval_task)
        if metric is not None and has_user_values(metric):
            parts += list(group_tables(measures, scenario, metric))
    if not parts:
        return None
    paragraph = (
        "Test users by the length of their source history, by how generously they rate there (their"
        " regularised bias in the source domain) and by whether they rate what many rate: each in"
        " three parts of about the same size, cut anew for each seed's test users. Users with the"
        " same value stay together, so that parts can differ in size. Test ratings by how often"
        " their item is rated in training (in a ranking: liked): not at all, and in three parts of"
        " the others."
    )
    return Section("groups", "Error by group of users and items", (paragraph,), tuple(parts))


def all_group_tables(measures: Measures) -> list[Table]:
    """The tables of `group_section` by the other metrics of ratings, for files alone."""
    return [
        table
        for scenario in measures.first_scenarios
        if scenario.eval_task == "rating"
        for metric in measures.metrics("rating")
        if has_user_values(metric) and metric != measures.main_metric("rating")
        for table in group_tables(measures, scenario, metric, suffix=f"-{metric}")
    ]


def group_tables(
    measures: Measures, scenario: Scenario, metric: str, suffix: str = ""
) -> Iterator[Table]:
    """A table for each data set of a scenario: models down, groups across.

    Args:
        measures: What was measured.
        scenario: What the models have in common.
        metric: What is measured on groups of users; for ratings also on those of items.
        suffix: Of the tables' names.
    """
    for dataset in measures.datasets(
        eval_task=scenario.eval_task, test_user_ratio=scenario.test_user_ratio
    ):
        settings = {s.run.label: s for s in measures.models_of(scenario, dataset) if s.done}
        if not settings:
            continue
        groups = groups_of(measures, scenario.eval_task, metric)
        columns = [_column(group, group_estimates(group, settings), settings) for group in groups]
        of_items = groups[-1].metric
        by_items = f"; by items, {of_items}" if of_items != metric else ""
        caption = (
            f"{title_of(measures, scenario)}, {dataset}: {metric} by group of users{by_items}."
            f" {directions([metric])} Mean over seeds ± half of the 95% interval; bold: the best"
            " mean of a column. The last row has how many users, or test ratings, are in a group,"
            " as mean over seeds."
        )
        rows = {
            **{row: g for row, g in rows_of(measures, scenario).items() if row in settings},
            _SIZES: "size",
        }
        name = f"groups-{slug(measures, scenario)}-{dataset}{suffix}"
        yield table_of(name, caption, "model", columns, rows)


def groups_of(measures: Measures, eval_task: str, metric: str) -> list[Group]:
    """The groups of a task, those of users first.

    Args:
        measures: What was measured.
        eval_task: rating or ranking.
        metric: What is measured on groups of users; for ratings also on those of items.
    """
    return measures.once(
        ("groups", eval_task, metric), lambda: list(_groups(measures, eval_task, metric))
    )


def group_estimates(group: Group, settings: Mapping[str, Setting]) -> dict[str, Estimate | None]:
    """A group's metric of each setting.

    Args:
        group: The group.
        settings: By row.
    """
    return {row: group.estimate(setting) for row, setting in settings.items()}


def terciles(values: NDArray) -> NDArray[np.int64]:
    """Cut into three parts of about the same size: 0 the lowest.

    Equal values are in the same part, also where parts then differ in size, or are empty.

    >>> terciles(np.array([5, 1, 2, 3, 4, 6])).tolist()
    [2, 0, 0, 1, 1, 2]
    >>> terciles(np.array([1, 1, 1, 1, 1, 9])).tolist()
    [0, 0, 0, 0, 0, 2]
    """
    cuts = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    return np.searchsorted(cuts, values, side="left")


def item_parts(item_ratings: NDArray[np.int64]) -> NDArray[np.int64]:
    """Parts of test rows by the ratings of their items in training: 0 has none, then terciles.

    >>> item_parts(np.array([0, 5, 1, 9, 0])).tolist()
    [0, 2, 1, 3, 0]
    """
    parts = np.zeros(len(item_ratings), dtype=np.int64)
    seen = item_ratings > 0
    if seen.any():
        parts[seen] = 1 + terciles(item_ratings[seen])
    return parts


def _groups(measures: Measures, eval_task: str, metric: str) -> Iterator[Group]:
    def of_users(entry: RunResult, chosen: NDArray[np.bool_]) -> UserValues:
        found = measures.user_values_of(entry, metric)
        return replace(
            found, user=found.user[chosen], total=found.total[chosen], weight=found.weight[chosen]
        )

    def of_rows(entry: RunResult, chosen: NDArray[np.bool_]) -> UserValues:
        return measures.rows(entry).user_values(metric, chosen)

    for profile, (grouping, names) in _USER_GROUPS.items():
        for part, name in enumerate(names):
            yield Group(grouping, name, metric, _users_in(measures, profile, part), of_users)
    for part, name in enumerate(_ITEM_GROUPS):
        members = _rows_in(measures, part)
        if eval_task == "rating":
            yield Group("item", name, metric, members, of_rows)
        else:
            places = _places(measures)
            yield Group("item", name, f"hit rate@{places}", members, _hit_rate(measures, places))


def _users_in(
    measures: Measures, profile: str, part: int
) -> Callable[[RunResult], NDArray[np.bool_]]:
    def parts(entry: RunResult) -> NDArray[np.int64]:
        return measures.once(
            ("terciles", entry.run.key, profile),
            lambda: terciles(measures.rows(entry).profiles[profile]),
        )

    return lambda entry: parts(entry) == part


def _rows_in(measures: Measures, part: int) -> Callable[[RunResult], NDArray[np.bool_]]:
    def parts(entry: RunResult) -> NDArray[np.int64]:
        item_ratings = measures.rows(entry).item_ratings
        # Runs on the same rows share the array, and the measures keep it.
        return measures.once(("item parts", id(item_ratings)), lambda: item_parts(item_ratings))

    return lambda entry: parts(entry) == part


def _hit_rate(
    measures: Measures, places: int
) -> Callable[[RunResult, NDArray[np.bool_]], UserValues]:
    """How many positives are found among the first of a ranking."""
    return lambda entry, chosen: measures.rows(entry).hit_rate(places, chosen)


def _places(measures: Measures) -> int:
    """How many places of a ranking are looked at: as many as were saved of every run, up to 20."""
    saved = [
        measures.rows(entry).saved_places
        for setting in measures.select(eval_task="ranking")
        for entry in setting.done.values()
    ]
    return min([PLACES, *saved])


def _column(
    group: Group, estimates: Mapping[str, Estimate | None], settings: Mapping[str, Setting]
) -> Column:
    best = best_of(estimates, group.metric)
    cells = {
        row: estimate_cell(found, len(settings[row].planned), is_best=row in best)
        for row, found in estimates.items()
    }
    first = max(settings.values(), key=lambda setting: len(setting.done))
    cells[_SIZES] = count_cell([int(group.members(entry).sum()) for entry in first.done.values()])
    return Column(group.grouping, group.name, cells)
