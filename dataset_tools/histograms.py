"""Histograms of a domain, or of the two of a pair side by side, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dataset_tools.pair import Domain
from dataset_tools.safe_output import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4477aa", "#cc6677")  # source and target; told apart by all eyes
ROLES = {1: ("domain",), 2: ("source domain", "target domain")}
MOST_VALUES = 21  # with more different ratings they are put into as many bins


def draw_histograms(
    path: Path, domains: Sequence[Domain], words: Sequence[NDArray[np.int64] | None]
) -> None:
    """Draw ratings, ratings per user, ratings per item and words per item text.

    Args:
        path: The PNG to be; replaced in one step.
        domains: A domain, or source and target.
        words: Of each, the words of each item text; None where there are no texts.

    Raises:
        ConfigError: If the folder cannot be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(domains), 12.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    halves = figure.subfigures(1, len(domains), squeeze=False)[0]
    for half, domain, lengths, role, colour in zip(
        halves, domains, words, ROLES[len(domains)], COLOURS, strict=False
    ):
        half.suptitle(f"{role} {domain.name}", fontsize=13, parse_math=False)
        ratings, of_users, of_items, texts = half.subplots(4)
        of_user, of_item = domain.ratings_of_users(), domain.ratings_of_items()
        _draw_ratings(ratings, domain.rating, colour)
        _draw_counts(of_users, of_user[of_user > 0], "a user", colour)
        _draw_counts(of_items, of_item[of_item > 0], "an item", colour)
        _draw_words(texts, lengths, len(of_item), colour)
    with atomic_path(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def _draw_ratings(axes: Axes, rating: NDArray[np.float64], colour: str) -> None:
    """A bar for each value, with its share; bins where there are many values."""
    values, counts = np.unique(rating, return_counts=True)
    if len(values) > MOST_VALUES:
        axes.hist(rating, bins=MOST_VALUES, color=colour, edgecolor="white")
    else:
        width = 0.8 * np.diff(values).min(initial=1.0)
        bars = axes.bar(values, counts, width=width, color=colour)
        axes.bar_label(bars, [f"{count / len(rating):.0%}" for count in counts], fontsize=8)
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.margins(y=0.12)
    axes.set(
        title=f"{len(rating):,} ratings, mean {rating.mean():.2f}",
        xlabel="rating",
        ylabel="ratings",
    )
    _finish(axes)


def _draw_counts(axes: Axes, count: NDArray[np.int64], of: str, colour: str) -> None:
    """Ratings of each user or item on logarithmic axes, in bins of whole numbers."""
    name = of.split()[1]
    axes.hist(count, bins=_log_bins(count), color=colour, edgecolor="white")
    axes.set(
        title=f"{len(count):,} {name}s with {np.median(count):g} ratings in the median, "
        f"{count.max():,} at most",
        xlabel=f"ratings of {of}",
        ylabel=f"{name}s",
        xscale="log",
        yscale="log",
    )
    axes.set_ylim(bottom=0.7)
    _finish(axes)


def _draw_words(axes: Axes, words: NDArray[np.int64] | None, n_items: int, colour: str) -> None:
    """Length of each text, or that there is none."""
    if words is None or not len(words):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no item texts", ha="center", va="center", transform=axes.transAxes)
        return
    axes.hist(words, bins=_log_bins(words), color=colour, edgecolor="white")
    axes.set(
        title=f"{len(words):,} of {n_items:,} items have a text, of {np.median(words):g} words in "
        "the median",
        xlabel="words of an item's text",
        ylabel="items",
        xscale="log",
    )
    _finish(axes)


def _log_bins(count: NDArray[np.int64]) -> list[float]:
    """Edges halfway between whole numbers, in steps that never get smaller.

    >>> _log_bins(np.array([1, 9]))
    [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 7.5, 9.5]
    """
    edges = [int(count.min())]
    while edges[-1] <= count.max():
        edges.append(edges[-1] + max(1, edges[-1] // 3))
    return [edge - 0.5 for edge in edges]


def _finish(axes: Axes) -> None:
    """Plain numbers at the ticks, and lines to read them by."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axes.get_xscale() == "log":
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
        )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(10)
