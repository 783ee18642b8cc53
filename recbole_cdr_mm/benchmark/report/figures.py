"""The figures of a benchmark's report, and the files of each."""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import escape

from recbole_cdr_mm.benchmark.report.document import Figure
from recbole_cdr_mm.benchmark.report.drawing import (
    STYLE,
    Curve,
    Panel,
    Point,
    Role,
    Series,
    draw_curves,
    draw_dots,
    draw_lines,
    draw_panels,
)
from recbole_cdr_mm.benchmark.report.groups import Group, group_estimates, groups_of
from recbole_cdr_mm.benchmark.report.measures import Measures, Scenario, Setting
from recbole_cdr_mm.benchmark.report.tables import file_name, percent
from recbole_cdr_mm.evaluation.intervals import Estimate
from recbole_cdr_mm.evaluation.user_values import has_user_values, is_smaller_better

HIGHLIGHTED = "MetaMMCDR"
_N_METRICS = 2  # of a task are drawn, those that its tables show first
_BARS = "Bars are 95% intervals for fresh test users and seeds."


# Files


@dataclass(frozen=True)
class Rendered:
    """A figure as its files hold it."""

    png: bytes
    svg: str


@functools.lru_cache(maxsize=256)
def rendered(figure: Figure) -> Rendered:
    """Draw a figure; once, however often it is asked for.

    The same numbers give the same bytes.
    """
    png, svg = io.BytesIO(), io.StringIO()
    with matplotlib.style.context(["default", STYLE]):
        drawn = figure.draw()
        drawn.savefig(svg, format="svg", metadata={"Date": None})
        drawn.savefig(png, format="png")
    return Rendered(png.getvalue(), svg.getvalue())


def svg_text(figure: Figure) -> str:
    """A figure as an `<svg>` element for a page in which others stand, too.

    Ids that nothing refers to are left out. The others begin with the figure's name, so that those
    of two figures differ. Its size is left to the page.
    """
    svg = rendered(figure).svg
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    _, box, rest = re.split(r'^<svg[^>]*(viewBox="[^"]*")[^>]*>', svg, maxsplit=1)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(
        r'(\s)id="([^"]*)"',
        lambda m: f'{m[1]}id="{figure.name}-{m[2]}"' if m[2] in used else "",
        rest,
    )
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{figure.name}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r">\s*\n\s*<", ">\n<", svg).strip()
    return f'<svg {box} role="img" aria-label="{escape(figure.alt)}">{svg}'


# Figures


def ratio_curves(measures: Measures) -> list[Figure]:
    """How each metric changes with the share of test users; nothing where there is one share."""
    figures = []
    for task, dataset, metric in _grids(measures):
        scenarios = [s for s in measures.first_scenarios if s.eval_task == task]
        ticks = [percent(s.test_user_ratio) for s in scenarios]
        points: dict[str, dict[str, Point]] = {}
        roles: dict[str, Role] = {}
        for tick, scenario in zip(ticks, scenarios, strict=True):
            for setting in measures.models_of(scenario, dataset):
                point = _point(measures, setting, metric)
                if point:
                    points.setdefault(setting.run.label, {})[tick] = point
                    roles[setting.run.label] = _role(setting)
        seen = {tick for of_model in points.values() for tick in of_model}
        if len(seen) < 2:
            continue
        series = [Series(name, of_model, roles[name]) for name, of_model in points.items()]
        figures.append(
            Figure(
                _name("ratios", dataset, task, metric),
                f"{metric} on {dataset} by the share of overlapped users that are test users"
                f"{_said_of(scenarios[0])}. Floors are grey and dashed. {_BARS}",
                _lines_in_words(metric, ticks, series),
                functools.partial(
                    draw_lines, ticks, series, "test users among overlapped", _axis(metric)
                ),
            )
        )
    return figures


def base_models(measures: Measures) -> list[Figure]:
    """Each model over its base models; nothing where the plan has only one."""
    figures = []
    for task, dataset, metric in _grids(measures):
        panels: dict[str, list[Series]] = {}
        for scenario in (s for s in measures.first_scenarios if s.eval_task == task):
            of_base: dict[str, dict[str, Point]] = {}
            for setting in measures.select(
                dataset=dataset,
                eval_task=task,
                test_user_ratio=scenario.test_user_ratio,
                preset=scenario.preset,
            ):
                point = _point(measures, setting, metric)
                if point and setting.run.base_model:
                    of_base.setdefault(setting.run.base_model, {})[setting.run.label] = point
            if len(of_base) > 1:
                panels[f"{percent(scenario.test_user_ratio)} test users"] = [
                    Series(base, points) for base, points in of_base.items()
                ]
        if panels:
            bases = list(dict.fromkeys(s.name for panel in panels.values() for s in panel))
            figures.append(
                Figure(
                    _name("base-models", dataset, task, metric),
                    f"{metric} on {dataset} of each model over the base models"
                    f" {' and '.join(bases)}. {_BARS}",
                    _dots_in_words(metric, panels),
                    functools.partial(draw_dots, _rows_of(panels), panels, _axis(metric)),
                )
            )
    return figures


def learning_curves(measures: Measures) -> list[Figure]:
    """The validation metric by epoch, for each data set and task at its first share of test users.

    Of the stage that trains the prediction: the last one that was validated after its first epoch.
    """
    figures = []
    for task in dict.fromkeys(s.eval_task for s in measures.scenarios):
        scenario = next(s for s in measures.first_scenarios if s.eval_task == task)
        metric = measures.main_metric(task)
        for dataset in measures.datasets(eval_task=task):
            panels = {
                setting.run.label: curves
                for setting in measures.models_of(scenario, dataset)
                if (curves := list(_curves(setting)))
            }
            if panels and metric:
                figures.append(
                    Figure(
                        _name("learning", dataset, task),
                        f"{metric} of the validation users of {dataset} by epoch of the last stage,"
                        f" with {percent(scenario.test_user_ratio)} test users"
                        f"{_said_of(scenario)}. A thin line for each seed, their mean bold; dots"
                        " mark the epochs that were chosen. Each axis has a range of its own.",
                        f"Learning curves of {', '.join(panels)}.",
                        functools.partial(draw_curves, panels, _axis(metric)),
                    )
                )
    return figures


def modality(measures: Measures) -> list[Figure]:
    """The variant `modality`: what is read of an item against each metric, beside the main run."""
    figures = []
    for task, dataset, metric in _grids(measures, "modality"):
        panels = {}
        settings = measures.select("modality", dataset=dataset, eval_task=task)
        name_of = _namer(settings)
        for ratio in sorted({s.run.test_user_ratio for s in settings}):
            here = [s for s in settings if s.run.test_user_ratio == ratio]
            panel = list(_variant_and_main(measures, here, metric, name_of))
            if panel:
                panels[f"{percent(ratio)} test users"] = panel
        if panels:
            names = [name_of(setting) for setting in settings]
            rows = [*(r for r in _rows_of(panels) if r not in names), *dict.fromkeys(names)]
            figures.append(
                Figure(
                    _name("modality", dataset, task, metric),
                    f"{metric} on {dataset} by what is read of an item (`item_features`). {_BARS}",
                    _dots_in_words(metric, panels),
                    functools.partial(draw_dots, rows, panels, _axis(metric)),
                )
            )
    return figures


def few_shot(measures: Measures) -> list[Figure]:
    """The variant `few_shot`: each metric by the number of ratings that are revealed."""
    figures = []
    for task, dataset, metric in _grids(measures, "few_shot"):
        settings = measures.select("few_shot", dataset=dataset, eval_task=task)
        name_of = _namer(settings, apart=("few_shot",))
        for ratio in sorted({s.run.test_user_ratio for s in settings}):
            points: dict[str, dict[str, Point]] = {}
            roles: dict[str, Role] = {}
            revealed = set()
            for setting in settings:
                point = _point(measures, setting, metric)
                number = setting.values.get("few_shot")
                if setting.run.test_user_ratio == ratio and point and number is not None:
                    points.setdefault(name_of(setting), {})[str(number)] = point
                    roles[name_of(setting)] = "floor" if setting.run.kind == "floor" else "model"
                    revealed.add(number)
            if len(revealed) < 2:
                continue
            ticks = [str(number) for number in sorted(revealed)]
            series = [Series(name, of_line, roles[name]) for name, of_line in points.items()]
            figures.append(
                Figure(
                    _name("few-shot", dataset, task, f"{ratio:g}", metric),
                    f"{metric} on {dataset} by the number of target ratings of each test user that"
                    f" are revealed, with {percent(ratio)} test users. {_BARS}",
                    _lines_in_words(metric, ticks, series),
                    functools.partial(
                        draw_lines, ticks, series, "revealed ratings of each user", _axis(metric)
                    ),
                )
            )
    return figures


def groups(measures: Measures) -> list[Figure]:
    """The metric that chooses, by group of users and items, for three models.

    They are the floor that is the reference, MetaMMCDR, and of the others the one that is best on
    validation users.
    """
    figures = []
    for scenario in measures.first_scenarios:
        task, metric = scenario.eval_task, measures.main_metric(scenario.eval_task)
        if metric is None or not has_user_values(metric):
            continue
        parts = groups_of(measures, task, metric)
        for dataset in measures.datasets(eval_task=task, test_user_ratio=scenario.test_user_ratio):
            chosen = _telling(measures, measures.models_of(scenario, dataset), metric)
            if not chosen:
                continue
            ratio = scenario.test_user_ratio
            figures.append(
                Figure(
                    _name("groups", dataset, task, f"{ratio:g}"),
                    f"{metric} on {dataset} by group of test users, and by how often items are"
                    f" rated in training, with {percent(ratio)} test users{_said_of(scenario)}:"
                    f" {', '.join(chosen)}. Shown are the floor that is best on validation users,"
                    f" {HIGHLIGHTED}, and the best of the other models there. {_BARS}",
                    f"Lines of {metric} by group for {', '.join(chosen)}; the table of the groups"
                    " has the numbers.",
                    functools.partial(draw_panels, _group_panels(parts, chosen)),
                )
            )
    return figures


# Which data sets, tasks and metrics


def _grids(measures: Measures, variant: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Tasks, data sets and metrics of the main grid, or of a variant."""
    settings = measures.select(variant)
    for task in dict.fromkeys(s.run.eval_task for s in settings):
        for dataset in dict.fromkeys(s.run.dataset for s in settings if s.run.eval_task == task):
            for metric in measures.shown_metrics(task)[:_N_METRICS]:
                yield task, dataset, metric


def _telling(measures: Measures, settings: list[Setting], metric: str) -> dict[str, Setting]:
    """The models of the figure by groups, by label."""
    choose = min if is_smaller_better(metric) else max
    others = [
        s
        for s in settings
        if s.run.kind != "floor" and _role(s) == "model" and np.isfinite(measures.validation(s))
    ]
    chosen = [measures.reference(settings)]
    chosen += [choose(others, key=measures.validation)] if others else []
    chosen += [s for s in settings if _role(s) == "highlight" and s.done]
    return {setting.run.label: setting for setting in chosen if setting}


def _group_panels(parts: Sequence[Group], chosen: Mapping[str, Setting]) -> dict[str, Panel]:
    panels = {}
    for grouping in dict.fromkeys(part.grouping for part in parts):
        of_grouping = {part.name: part for part in parts if part.grouping == grouping}
        found = {name: group_estimates(part, chosen) for name, part in of_grouping.items()}
        series = [
            Series(
                label,
                {name: _of_estimate(e) for name, of in found.items() if (e := of[label])},
                _role(setting),
            )
            for label, setting in chosen.items()
        ]
        ticks = [name for name, of in found.items() if any(of.values())]
        panels[grouping] = Panel(ticks, series, next(iter(of_grouping.values())).metric)
    return panels


def _variant_and_main(
    measures: Measures,
    settings: Sequence[Setting],
    metric: str,
    name_of: Callable[[Setting], str],
) -> Iterator[Series]:
    """The settings of a variant at one ratio, and the main runs beside which they stand."""
    variants: dict[str, Point] = {}
    mains: dict[str, Point] = {}
    for setting in settings:
        point = _point(measures, setting, metric)
        if point:
            variants[name_of(setting)] = point
        main = measures.main_run_of(setting)
        point = _point(measures, main, metric) if main else None
        if main and point:
            mains[name_of(main)] = point
    if len(variants | mains) > 1:
        yield Series("variant", {n: p for n, p in variants.items() if n not in mains})
        if mains:
            yield Series("main run", mains, "highlight")


def _namer(settings: Sequence[Setting], apart: Sequence[str] = ()) -> Callable[[Setting], str]:
    """What tells the settings of a variant apart, in words.

    Args:
        settings: The settings.
        apart: Keys that stand on an axis.

    Returns:
        Names a setting, or a main run beside it by what it was run with.
    """
    keys = dict.fromkeys(key for s in settings for key in s.values if key not in apart)
    known = [s for s in settings if s.results]
    varying = [k for k in keys if len({json.dumps(_value(s, k)) for s in known}) > 1]
    fields = [
        field
        for field in ("model", "base_model", "preset")
        if len({getattr(s.run, field) for s in settings}) > 1
    ]

    def name(setting: Setting) -> str:
        parts = [str(getattr(setting.run, field)) for field in fields]
        parts += [_in_words(key, _value(setting, key)) for key in varying]
        return ", ".join(parts) or setting.run.model

    return name


def _value(setting: Setting, key: str) -> Any:
    """The value of a key that a setting was run with."""
    return setting.values.get(key, setting.results[0]["config"].get(key) if setting.results else "")


def _in_words(key: str, value: Any) -> str:
    return str(value) if key == "item_features" else f"{key.removeprefix('few_shot_')}={value}"


def _rows_of(panels: Mapping[str, Sequence[Series]]) -> list[str]:
    return list(dict.fromkeys(r for panel in panels.values() for s in panel for r in s.points))


# Numbers


def _point(measures: Measures, setting: Setting, metric: str) -> Point | None:
    """What is drawn of a setting; None where nothing is done, or its training went to nan."""
    found = measures.estimate(setting, metric)
    return None if found is None or not np.isfinite(found.mean) else _of_estimate(found)


def _of_estimate(estimate: Estimate) -> Point:
    return Point(estimate.mean, estimate.low, estimate.high)


def _curves(setting: Setting) -> Iterator[Curve]:
    """The trainings of a setting, each as far as it has numbers."""
    for result in setting.results:
        validated = [s for s in result["stages"] if len(s.get("valid_curve", [])) > 1]
        if validated:
            points = [(e, v) for e, v in validated[-1]["valid_curve"] if np.isfinite(v)]
            epochs, values = [e for e, _ in points], [v for _, v in points]
            if points:
                yield Curve(epochs, values, validated[-1]["best_epoch"])


def _role(setting: Setting) -> Role:
    if setting.run.label == HIGHLIGHTED:
        return "highlight"
    return "floor" if setting.run.kind == "floor" else "model"


# Words


def _name(*parts: str) -> str:
    """A name for files and anchors."""
    return file_name("-".join(parts))


def _axis(metric: str) -> str:
    return f"{metric}, {'lower' if is_smaller_better(metric) else 'higher'} is better"


def _said_of(scenario: Scenario) -> str:
    """Which base model and preset, where that says something."""
    parts = [f"base model {scenario.base_model}"] if scenario.base_model else []
    parts += [f"preset {scenario.preset}"] if scenario.preset != "default" else []
    return f" ({', '.join(parts)})" if parts else ""


def _lines_in_words(metric: str, ticks: Sequence[str], series: Sequence[Series]) -> str:
    choose = min if is_smaller_better(metric) else max
    parts = []
    for tick in ticks:
        known = [one for one in series if tick in one.points]
        best = choose(known, key=lambda one: one.points[tick].mean)
        parts.append(f"at {tick} the best is {best.name} with {best.points[tick].mean:.4f}")
    return f"Lines of {metric} for {len(series)} models: {'; '.join(parts)}."


def _dots_in_words(metric: str, panels: Mapping[str, Sequence[Series]]) -> str:
    parts = [
        f"{title}, {one.name}: "
        + ", ".join(f"{row} {point.mean:.4f}" for row, point in one.points.items())
        for title, panel in panels.items()
        for one in panel
    ]
    return f"Dots of {metric}. {'; '.join(parts)}."
