"""How much each model loses when fewer people are known to be the same in both domains.

    python benchmarks/fewer_overlapped_users.py --dataset=movie_cd --data_path=dataset \
        --out=runs/fewer_overlapped_users

Runs a plan of the benchmark: models x `overlap_ratio` x seeds. Both domains keep all ratings and
the test users stay the same; what vanishes are links between training users. The same command goes
on after a kill. OUT/report.md has the table, OUT/figures/ the drawing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from dataset_tools.commands import name_list
from dataset_tools.safe_output import atomic_path
from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import ConfigError, exit_code_of

compat.apply()

from recbole_cdr_mm.benchmark.plan import read_plan  # noqa: E402
from recbole_cdr_mm.benchmark.report.document import (  # noqa: E402
    Cell,
    Document,
    Figure,
    Section,
    Table,
)
from recbole_cdr_mm.benchmark.report.drawing import (  # noqa: E402
    Panel,
    Point,
    Series,
    draw_panels,
)
from recbole_cdr_mm.benchmark.report.figures import HIGHLIGHTED, rendered  # noqa: E402
from recbole_cdr_mm.benchmark.report.markdown import markdown  # noqa: E402
from recbole_cdr_mm.benchmark.report.measures import Measures  # noqa: E402
from recbole_cdr_mm.benchmark.report.tables import (  # noqa: E402
    Column,
    estimate_cell,
    percent,
    table_of,
)
from recbole_cdr_mm.benchmark.results import load_results  # noqa: E402
from recbole_cdr_mm.benchmark.runner import run_plan  # noqa: E402
from recbole_cdr_mm.evaluation.intervals import Estimate, Sample, resample  # noqa: E402
from recbole_cdr_mm.evaluation.user_values import (  # noqa: E402
    UserValues,
    has_user_values,
    is_smaller_better,
)
from recbole_cdr_mm.given import parse_command_line  # noqa: E402
from recbole_cdr_mm.parallel.local import LocalPool  # noqa: E402

NAME = "fewer_overlapped_users"
MODELS = {
    "rating": ["MetaMMCDR", "PTUPCDR", "EMCDR", "CalibratedTransfer"],
    "ranking": ["MetaMMCDR", "PTUPCDR", "EMCDR", "RidgeBridge"],
}
_INTERVALS = (
    "With 95% intervals for fresh test users and seeds; for a loss they are drawn again for both"
    " ratios together."
)

Runs = Mapping[int, UserValues]
Estimates = dict[str, dict[float, Estimate]]  # by model and ratio


def loss(runs: Runs, full: Runs, metric: str) -> Estimate:
    """How much quality is lost, in % of the metric with all links, as mean over seeds.

    Args:
        runs: The metric with fewer links, by seed.
        full: With all links, on the same users under the same seeds.
        metric: Which decides the sign: a loss is positive.
    """
    sign = 100 if is_smaller_better(metric) else -100
    few, all_links = resample([runs, full])
    values = {seed: sign * (run.value / full[seed].value - 1) for seed, run in runs.items()}
    ratio = 1 + np.mean(list(values.values())) / sign
    mean = np.mean([run.value for run in full.values()])
    replicates = sign * (few.replicates / all_links.replicates - 1)
    influence = sign * (few.influence - ratio * all_links.influence) / mean
    return Sample(replicates, influence).estimate(values)


def losses(measures: Measures, metric: str) -> Estimates:
    """The loss of each model, on the seeds that were run with all links, too."""
    found: Estimates = {}
    settings = {(s.run.model, s.values["overlap_ratio"]): s for s in measures.select(NAME)}
    for (model, ratio), setting in settings.items():
        runs = measures.user_values(setting, metric)
        full = measures.user_values(settings[model, 1.0], metric)
        seeds = [seed for seed in runs if seed in full]
        is_zero = not any(full[seed].value for seed in seeds)  # a loss in % of it says nothing
        if seeds and ratio < 1 and not is_zero:
            one, other = ({seed: each[seed] for seed in seeds} for each in (runs, full))
            found.setdefault(model, {})[ratio] = loss(one, other, metric)
    return found


def report(measures: Measures, metric: str, title: str) -> Document:
    """A table and a drawing of the metric and of its loss."""
    settings = measures.select(NAME)
    ratios = sorted({setting.values["overlap_ratio"] for setting in settings}, reverse=True)
    models = list(dict.fromkeys(setting.run.model for setting in settings))
    lost = losses(measures, metric)
    found: Estimates = {model: {} for model in models}
    for setting in settings:
        measured = measures.estimate(setting, metric)
        if measured is not None:
            found[setting.run.model][setting.values["overlap_ratio"]] = measured
    n_seeds = max(len(setting.planned) for setting in settings)
    columns = [
        Column(
            metric,
            percent(ratio),
            {model: estimate_cell(of.get(ratio), n_seeds) for model, of in found.items()},
        )
        for ratio in ratios
    ]
    columns += [
        Column(
            "loss, %",
            percent(ratio),
            {model: _percent_cell(of[ratio]) for model, of in lost.items() if ratio in of},
        )
        for ratio in ratios[1:]
    ]
    better = "smaller" if is_smaller_better(metric) else "larger"
    caption = (
        f"{metric} ({better} is better) by the share of overlapped training users whose link is"
        f" known, and the loss in % of the model's own {metric} with all links: positive is worse."
        f" {_INTERVALS}"
    )
    parts: list[Table | Figure] = [table_of(NAME, caption, "model", columns, models)]
    if lost:
        ticks = [percent(ratio) for ratio in ratios]
        panels = {
            metric: Panel(ticks, _series(found, list(lost)), metric),
            "Loss": Panel(ticks, _series(lost, list(lost)), "%"),
        }
        last = {model: of[min(of)].mean for model, of in lost.items()}
        words = ", ".join(f"{model} {mean:+.1f}%" for model, mean in last.items())
        alt = f"Lines of {metric} and of its loss; the loss with the fewest links: {words}."
        drawing = Figure(f"{NAME}_loss", caption, alt, functools.partial(draw_panels, panels))
        parts.append(drawing)
    return Document(title, (Section("links", "Fewer overlapped users", (), tuple(parts)),))


def _series(estimates: Estimates, models: Sequence[str]) -> list[Series]:
    return [
        Series(
            model,
            {percent(r): Point(e.mean, e.low, e.high) for r, e in estimates[model].items()},
            "highlight" if model == HIGHLIGHTED else "model",
        )
        for model in models
    ]


def _percent_cell(found: Estimate) -> Cell:
    text = f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
    return Cell(text, found.mean, found.low, found.high, len(found.values))


def write(document: Document, out: Path) -> None:
    """Write OUT/report.md, and the drawing as PNG and SVG."""
    with atomic_path(out / "report.md") as file:
        file.write_text(markdown(document), encoding="utf-8", newline="\n")
    for part in document.sections[0].parts:
        if isinstance(part, Figure):
            with atomic_path(out / "figures" / f"{part.name}.png") as file:
                file.write_bytes(rendered(part).png)
            with atomic_path(out / "figures" / f"{part.name}.svg") as file:
                file.write_text(rendered(part).svg, encoding="utf-8", newline="\n")


def _ratios(value: str) -> list[float]:
    return [float(part) for part in name_list(value)]


def _seeds(value: str) -> list[int]:
    return [int(part) for part in name_list(value)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is not done yet, and write table and drawing."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any other key of a run is given as --key=value and holds for all runs.",
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", required=True, help="a pair")
    parser.add_argument("--out", required=True, type=Path, help="the folder of runs and report")
    parser.add_argument("--eval_task", choices=tuple(MODELS), default="rating")
    parser.add_argument("--models", type=name_list, help="models, separated by commas")
    parser.add_argument(
        "--overlap_ratios",
        type=_ratios,
        default=[1.0, 0.5, 0.1],
        help="separated by commas; 1 is always among them (1,0.5,0.1)",
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=[1, 2, 3], help="separated by commas (1,2,3)"
    )
    parser.add_argument("--preset", choices=("default", "paper"), help="of all models; all have it")
    parser.add_argument("--metric", help="by default the one that chooses on validation users")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    options, others = parser.parse_known_args(argv)

    def command() -> None:
        ratios = sorted({1.0, *options.overlap_ratios}, reverse=True)
        models = options.models or MODELS[options.eval_task]
        preset = {"preset": options.preset} if options.preset else {}
        values = {
            "title": f"Fewer overlapped users: {options.dataset}, {options.eval_task}",
            "datasets": [options.dataset],
            "models": models,
            "eval_tasks": [options.eval_task],
            "seeds": options.seeds,
            "variants": [{"name": NAME, "model": models, "overlap_ratio": ratios, **preset}],
        }
        with atomic_path(options.out / "plan.yaml") as file:
            file.write_text(yaml.safe_dump(values), encoding="utf-8")
        config = {key: given.value for key, given in parse_command_line(others).items()}
        plan = read_plan(options.out / "plan.yaml", config)
        plan = dataclasses.replace(plan, runs=[run for run in plan.runs if run.variant])
        for run, failure in run_plan(plan, options.out, LocalPool(options.processes)):
            print(f"{run.describe()} failed: {failure}")
        measures = Measures(load_results(options.out))
        metric = options.metric or measures.main_metric(options.eval_task)
        if metric is None or not has_user_values(metric):
            raise ConfigError(f"--metric={metric} is no mean over users, or no run is done.")
        write(report(measures, metric, plan.title), options.out)
        print(options.out / "report.md")

    return exit_code_of(command, "Interrupted. The same command goes on from here.")


if __name__ == "__main__":
    raise SystemExit(main())
