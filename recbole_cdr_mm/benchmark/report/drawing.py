"""Drawings of plain numbers: lines over groups, dots with intervals, learning curves.

Nothing here knows of benchmarks. Colours are those of Okabe and Ito ("Color Universal Design",
2008), told apart by people who see fewer colours; each comes with a marker of its own.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

# For `matplotlib.style.context`, over its style `default`.
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],  # the first one comes with matplotlib
    "font.size": 7.5,
    "text.parse_math": False,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # text stays text: small files, and words can be found and copied
    "svg.hashsalt": "recbole-cdr-mm",
}
WIDTH = 4.4  # inches: a column of a paper is 3.3, in which letters of 7.5 points have 5.6
HIGHLIGHT = "#D55E00"
GREY = "#6f6f6f"
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
_MARKERS = ("o", "s", "^", "D", "v")  # as many as share no divisor with the colours
_DASHES = ((4, 2), (1, 1.5), (6, 1.5, 1, 1.5), (2, 1), (8, 2))
_LABEL_SIZE = 7.0

Role = Literal["model", "floor", "highlight"]


@dataclass(frozen=True)
class Point:
    """A value with its interval; nan where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """What one line or one sort of dots shows.

    Attributes:
        name: Its label.
        points: By place on the axis: a tick of `draw_lines`, a row of `draw_dots`.
        role: How it stands out: a floor in grey dashes, the highlight in a strong colour.
    """

    name: str
    points: Mapping[str, Point]
    role: Role = "model"


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        epochs: Epochs trained, rising, (n,).
        values: What was validated after each, (n,).
        best: The epoch that was chosen; not marked where it was not validated.
    """

    epochs: Sequence[int]
    values: Sequence[float]
    best: int


@dataclass(frozen=True)
class Panel:
    """A drawing among others: ticks of its x-axis, its series, and what its y-axis shows."""

    ticks: Sequence[str]
    series: Sequence[Series]
    y_label: str


def draw_lines(
    ticks: Sequence[str], series: Sequence[Series], x_label: str, y_label: str
) -> Figure:
    """One line for each series, named at its end, with a bar for each interval.

    A series far from all others is named above the drawing instead, for it would press the others
    together; see `far_off`.

    Args:
        ticks: Places on the x-axis, evenly spaced.
        series: The lines; their points are at some of the ticks.
        x_label: Below the x-axis.
        y_label: Beside the y-axis.
    """
    outside = far_off(series)
    drawn = [one for one in series if one not in outside]
    height = max(2.7, 0.9 + 0.145 * len(drawn))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    _plot_lines(axes, ticks, drawn)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _label_ends(axes, drawn, height)
    _name_outside(axes, outside, width=62)
    return figure


def draw_panels(panels: Mapping[str, Panel]) -> Figure:
    """The same few series in panels, two beside each other, with one legend above all.

    Args:
        panels: By title. All have the same series, in the same order.
    """
    n_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, 1.6 * n_rows + 0.35), layout="constrained")
    grid = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for axes, (title, panel) in zip(grid, panels.items(), strict=False):
        _plot_lines(axes, panel.ticks, panel.series)
        axes.set_title(title, loc="left")
        axes.set_ylabel(panel.y_label)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.legend(
        *grid[0].get_legend_handles_labels(),
        loc="outside upper left",
        ncols=3,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    return figure


def draw_dots(rows: Sequence[str], panels: Mapping[str, Sequence[Series]], x_label: str) -> Figure:
    """Rows of dots with intervals, in panels side by side that share their rows.

    Args:
        rows: Places on the y-axis, from the top.
        panels: The series of each panel by its title; their points are at some of the rows.
        x_label: Below the x-axes.
    """
    names = list(dict.fromkeys(s.name for panel in panels.values() for s in panel))
    height = 0.75 + len(rows) * max(0.2, 0.13 * len(names))
    width = max(WIDTH, 0.95 + 1.15 * len(panels))
    figure = Figure(figsize=(width, height + 0.2), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    shifts = dict(zip(names, np.linspace(-0.18, 0.18, len(names)), strict=True))
    if len(names) == 1:
        shifts = {names[0]: 0.0}
    for axes, (title, panel) in zip(grid, panels.items(), strict=True):
        for one, style in zip(panel, _styles(panel), strict=True):
            y = np.array([rows.index(row) for row in one.points]) + shifts[one.name]
            _with_bars(axes, y, list(one.points.values()), {**style, "ls": ""}, across=True)
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(2 if len(panels) > 2 else 4))
        axes.grid(visible=False, axis="y")
    grid[0].set_yticks(range(len(rows)), rows)
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel(x_label, fontsize=STYLE["axes.labelsize"])
    if len(names) > 1:
        figure.legend(
            *grid[0].get_legend_handles_labels(),
            loc="outside upper left",
            ncols=len(names),
            handletextpad=0.3,
        )
    return figure


def draw_curves(panels: Mapping[str, Sequence[Curve]], y_label: str) -> Figure:
    """Learning curves, a panel for each model: a thin line for each training, their mean bold.

    The mean ends where the shortest training ends. A dot marks the epoch that was chosen.

    Args:
        panels: Trainings of each model.
        y_label: What was validated.
    """
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(
        figsize=(max(WIDTH / 3 * n_columns, 2.4), 1.25 * n_rows + 0.3), layout="constrained"
    )
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        for curve in curves:
            axes.plot(curve.epochs, curve.values, color=_COLOURS[0], lw=0.7, alpha=0.55)
            chosen = [v for e, v in zip(curve.epochs, curve.values, strict=True) if e == curve.best]
            axes.plot([curve.best] * len(chosen), chosen, "o", color=HIGHLIGHT, ms=3, zorder=3)
        if len(curves) > 1:
            axes.plot(*_mean_curve(curves), color=_COLOURS[0], lw=1.7)
        low, high = _range(np.array([value for curve in curves for value in curve.values]))
        axes.set_ylim(low, high)
        axes.set_title(name, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("epochs", fontsize=STYLE["axes.labelsize"])
    figure.supylabel(y_label, fontsize=STYLE["axes.labelsize"])
    return figure


def far_off(series: Sequence[Series]) -> list[Series]:
    """The series that lie wholly outside what the others span; never a highlight.

    Outside is further than three interquartile ranges from the quartiles of the series' medians,
    and further than a tenth of their median: of close values none is far off.
    """
    means = [_means(one) for one in series]
    middles = np.array([np.median(values) for values in means])
    low, high = _fences(middles, least=0.1 * abs(np.median(middles)))
    return [
        one
        for one, values in zip(series, means, strict=True)
        if one.role != "highlight" and ((values < low) | (values > high)).all()
    ]


def spread_out(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Places for labels on a line, as near as can be to where they are wanted, in order.

    Args:
        wanted: Rising, (n,).
        gap: Least distance of neighbours.

    >>> spread_out(np.array([0.0, 0.5, 0.5]), 0.2)
    array([0. , 0.4, 0.6])
    """
    steps = gap * np.arange(len(wanted))
    return np.asarray(isotonic_regression(wanted - steps).x + steps)


def _styles(series: Iterable[Series]) -> Iterable[dict[str, Any]]:
    """How each series looks."""
    colours, markers = itertools.cycle(_COLOURS), itertools.cycle(_MARKERS)
    dashes = itertools.cycle(_DASHES)
    for one in series:
        style: dict[str, Any] = {"label": one.name, "lw": 1.1, "ms": 3.4, "zorder": 3}
        if one.role == "floor":
            style |= {"color": GREY, "marker": ".", "ls": (0, next(dashes)), "zorder": 2}
        elif one.role == "highlight":
            style |= {"color": HIGHLIGHT, "marker": "o", "ls": "-", "lw": 2, "ms": 4.5, "zorder": 4}
        else:
            style |= {"color": next(colours), "marker": next(markers), "ls": "-"}
        yield style


def _plot_lines(axes: Axes, ticks: Sequence[str], series: Sequence[Series]) -> None:
    """Lines over ticks, moved aside a little each, so that their bars do not hide each other."""
    spread = min(0.22, 0.03 * (len(series) - 1))
    shifts = np.linspace(-spread, spread, len(series))
    for one, shift, style in zip(series, shifts, _styles(series), strict=True):
        places = [i for i, tick in enumerate(ticks) if tick in one.points]
        points = [one.points[ticks[i]] for i in places]
        _with_bars(axes, np.array(places) + shift, points, style)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.35, len(ticks) - 0.65)
    axes.set_ylim(*_limits(series))
    axes.grid(visible=False, axis="x")


def _with_bars(
    axes: Axes,
    places: NDArray[np.float64],
    points: Sequence[Point],
    style: Mapping[str, Any],
    across: bool = False,
) -> None:
    """Draw points, joined by a line, and a bar for each interval; `across`: values along x."""
    means = np.array([point.mean for point in points])
    ends = np.array([(point.low, point.high) for point in points]).T  # (2, n)
    strong = across or style["color"] == HIGHLIGHT
    bars = {
        "color": style["color"],
        "lw": 1.1 if strong else 0.8,
        "alpha": 0.7 if strong else 0.35,
        "zorder": style["zorder"] - 1.5,
    }
    if across:
        axes.hlines(places, *ends, **bars)
        axes.plot(means, places, mec="white", mew=0.4, **style)
    else:
        axes.vlines(places, *ends, **bars)
        axes.plot(places, means, mec="white", mew=0.4, **style)


def _label_ends(axes: Axes, series: Sequence[Series], height: float) -> None:
    """Name each line right of the drawing, with a thin line from its last point to its name."""
    to_axes = axes.transData + axes.transAxes.inverted()
    lines = dict(zip((one.name for one in series), axes.lines, strict=True))
    ends = {
        name: to_axes.transform(np.column_stack(line.get_data())[-1])
        for name, line in lines.items()
    }
    ordered = sorted(series, key=lambda one: float(ends[one.name][1]))
    gap = 1.2 * _LABEL_SIZE / 72 / (height - 0.55)  # of the height of the axes, about
    places = spread_out(np.array([ends[one.name][1] for one in ordered]), gap)
    places += min(1.0 + gap / 2 - places[-1], 0.0)
    for one, place in zip(ordered, places, strict=True):
        colour = lines[one.name].get_color()
        x, y = ends[one.name]
        axes.plot(
            [x + 0.012, 1.03, 1.06],
            [y, place, place],
            color=colour,
            lw=0.5,
            alpha=0.7,
            clip_on=False,
            transform=axes.transAxes,
            label="_leader",
        )
        axes.text(
            1.075,
            place,
            one.name,
            transform=axes.transAxes,
            va="center",
            size=_LABEL_SIZE,
            color={"highlight": HIGHLIGHT, "floor": GREY}.get(one.role, "#222222"),
            weight="bold" if one.role == "highlight" else "normal",
        )


def _name_outside(axes: Axes, outside: Sequence[Series], width: int) -> None:
    """Say above the drawing which series are not in it, and where they lie."""
    if not outside:
        return
    words = []
    for one in outside:
        low, high = f"{_means(one).min():.3g}", f"{_means(one).max():.3g}"
        words.append(f"{one.name} {low}" + (f" to {high}" if high != low else ""))
    text = "Far off, not drawn: " + ", ".join(words)
    axes.set_title(textwrap.fill(text, width), loc="left", color=GREY, size=6.5)


def _mean_curve(curves: Sequence[Curve]) -> tuple[list[int], NDArray[np.float64]]:
    """The mean of trainings at those epochs at which all were validated."""
    known = [dict(zip(curve.epochs, curve.values, strict=True)) for curve in curves]
    epochs = [epoch for epoch in curves[0].epochs if all(epoch in values for values in known)]
    return epochs, np.array([[values[e] for e in epochs] for values in known]).mean(axis=0)


def _means(series: Series) -> NDArray[np.float64]:
    return np.array([point.mean for point in series.points.values()])


def _limits(series: Sequence[Series]) -> tuple[float, float]:
    """Ends of an axis on which all means and intervals are seen."""
    ends = [x for one in series for p in one.points.values() for x in (p.mean, p.low, p.high)]
    return _padded(np.nanmin(ends), np.nanmax(ends))


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of an axis on which all values are seen that are not far off."""
    low, high = _fences(values)
    seen = values[(values >= low) & (values <= high)]
    return _padded(seen.min(), seen.max())


def _fences(values: NDArray[np.float64], least: float = 0.0) -> tuple[float, float]:
    """Beyond which values are far off: Tukey's outer fences, or `least` from the quartiles."""
    # Quartiles that are values, not between two, so that a few far ones do not move them.
    ends = [np.quantile(values, 0.25, method="higher"), np.quantile(values, 0.75, method="lower")]
    first, third = sorted(float(end) for end in ends)
    reach = max(3 * (third - first), least)
    return first - reach, third + reach


def _padded(low: float, high: float) -> tuple[float, float]:
    padding = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - padding, high + padding
