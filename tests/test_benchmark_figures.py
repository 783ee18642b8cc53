"""The figures of a report, against the numbers that they draw."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from benchmark_results import Folder, run_of
from matplotlib.figure import Figure as MatplotlibFigure

from recbole_cdr_mm import compat
from recbole_cdr_mm.benchmark.report import figures
from recbole_cdr_mm.benchmark.report.document import Figure
from recbole_cdr_mm.benchmark.report.drawing import (
    Curve,
    Point,
    Series,
    draw_curves,
    draw_lines,
    far_off,
)
from recbole_cdr_mm.benchmark.report.measures import Measures
from recbole_cdr_mm.benchmark.results import load_results

ALL = (
    figures.ratio_curves,
    figures.base_models,
    figures.learning_curves,
    figures.modality,
    figures.few_shot,
    figures.groups,
)


@pytest.fixture(scope="module", autouse=True)
def _patched() -> None:
    compat.apply()


def rmse(*columns: dict[str, np.ndarray]) -> float:
    """The mean over seeds."""
    errors = [c["prediction"].astype(float) - c["rating"] for c in columns]
    return float(np.mean([np.sqrt(np.square(error).mean()) for error in errors]))


def measures_of(folder: Folder) -> Measures:
    return Measures(load_results(folder.plan()))


def only(found: list[Figure], metric: str) -> Figure:
    (figure,) = (f for f in found if metric in f.name)
    return figure


def lines(drawn: MatplotlibFigure, axes: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The lines of a drawing that have a name."""
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for line in drawn.axes[axes].lines
        if not str(line.get_label()).startswith("_")
    }


def names(drawn: MatplotlibFigure) -> set[str]:
    return {text.get_text() for text in drawn.axes[0].texts}


def point(mean: float) -> Point:
    return Point(mean, mean - 0.01, mean + 0.01)


# Which figures there are, and what they show


def test_nothing_to_draw(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.missing(run_of("MetaMMCDR", base_model="MF"))
    folder.failed(run_of("ItemMean", kind="floor"))
    measures = measures_of(folder)
    assert [draw(measures) for draw in ALL] == [[]] * len(ALL)


def test_one_ratio_and_one_base_model_are_no_figure(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.rating(run_of("MetaMMCDR", base_model="MF"), 0.9)
    measures = measures_of(folder)
    assert figures.ratio_curves(measures) == figures.base_models(measures) == []
    assert len(figures.learning_curves(measures)) == 1


def test_ratio_curves(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    expected = {}
    for label, kind, scale in (("ItemMean", "floor", 1.0), ("MetaMMCDR", "cross-domain", 0.9)):
        expected[label] = [
            rmse(
                *(
                    folder.rating(run_of(label, seed, kind=kind, test_user_ratio=r), scale + r / 10)
                    for seed in (1, 2)
                )
            )
            for r in (0.8, 0.2)
        ][::-1]
    figure = only(figures.ratio_curves(measures_of(folder)), "RMSE")
    drawn = figure.draw()
    for label, (_, y) in lines(drawn).items():
        np.testing.assert_allclose(y, expected[label], rtol=1e-6)
    assert names(drawn) == {"ItemMean", "MetaMMCDR"}
    assert [t.get_text() for t in drawn.axes[0].get_xticklabels()] == ["20%", "80%"]
    best = min(expected, key=lambda label: expected[label][0])
    assert f"at 20% the best is {best} with {expected[best][0]:.4f}" in figure.alt


def test_bars_are_the_intervals(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    for ratio in (0.2, 0.5):
        folder.rating(run_of("MetaMMCDR", test_user_ratio=ratio), 0.9)
    measures = measures_of(folder)
    drawn = only(figures.ratio_curves(measures), "MAE").draw()
    (bars,) = drawn.axes[0].collections
    segments = np.array(bars.get_segments())  # (2, 2, 2)
    estimates = [measures.estimate(setting, "MAE") for setting in measures.settings]
    expected = [(e.low, e.high) for e in estimates if e]
    np.testing.assert_allclose(segments[:, :, 1], expected)


def test_base_models(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    expected = {
        base: [
            rmse(folder.rating(run_of(label, base_model=base), scale))
            for label, scale in (("EMCDR", 0.9 + shift), ("MetaMMCDR", 0.8 + shift))
        ]
        for base, shift in (("MF", 0.0), ("GMF", 0.05))
    }
    folder.rating(run_of("ItemMean", kind="floor"), 1.0)
    drawn = only(figures.base_models(measures_of(folder)), "RMSE").draw()
    for base, (x, _) in lines(drawn).items():
        np.testing.assert_allclose(x, expected[base], rtol=1e-6)
    rows = [t.get_text() for t in drawn.axes[0].get_yticklabels()]
    assert rows == ["EMCDR", "MetaMMCDR"]


def test_modality_stands_beside_the_main_run(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    config = {"item_features": "text", "seed": 1, "split_seed": 1}
    main = rmse(folder.rating(run_of("MetaMMCDR", config=config), 0.9))
    variants = [
        rmse(
            folder.rating(
                run_of(
                    f"MetaMMCDR (item_features={value})",
                    variant={"name": "modality", "values": {"item_features": value}},
                ),
                scale,
            )
        )
        for value, scale in (("id", 0.95), ("both", 0.85))
    ]
    drawn = only(figures.modality(measures_of(folder)), "RMSE").draw()
    found = lines(drawn)
    np.testing.assert_allclose(found["main run"][0], [main], rtol=1e-6)
    np.testing.assert_allclose(found["variant"][0], variants, rtol=1e-6)
    rows = [t.get_text() for t in drawn.axes[0].get_yticklabels()]
    assert rows == ["text", "id", "both"]


def test_few_shot(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    expected: dict[str, list[float]] = {"start=random": [], "start=transformed": []}
    for start in ("transformed", "random"):
        for number in (8, 0, 1):  # in another order than on the axis
            values = {"few_shot": number, "few_shot_start": start}
            label = f"MetaMMCDR (few_shot={number}, few_shot_start={start})"
            run = run_of(label, variant={"name": "few_shot", "values": values})
            expected[f"start={start}"].append(rmse(folder.rating(run, 1 - number / 20)))
    drawn = only(figures.few_shot(measures_of(folder)), "RMSE").draw()
    for name, (_, y) in lines(drawn).items():
        last, *first = expected[name]
        np.testing.assert_allclose(y, [*first, last], rtol=1e-6)
    assert names(drawn) == set(expected)
    assert [t.get_text() for t in drawn.axes[0].get_xticklabels()] == ["0", "1", "8"]


def test_groups_choose_by_validation_and_average_each_group(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    folder.rating(run_of("ItemMean", kind="floor"), 0.7, valid=1.2)
    folder.rating(run_of("BiasTransfer", kind="floor"), 1.0, valid=1.0)
    folder.rating(run_of("EMCDR"), 0.8, valid=0.95)
    folder.rating(run_of("CMF"), 0.6, valid=0.99)
    columns = folder.rating(run_of("MetaMMCDR"), 0.9)
    (figure,) = figures.groups(measures_of(folder))
    drawn = figure.draw()
    found = lines(drawn, axes=3)  # by items
    assert list(found) == ["BiasTransfer", "EMCDR", "MetaMMCDR"]
    unseen = columns["item_ratings"] == 0
    part = {name: columns[name][unseen] for name in ("prediction", "rating")}
    np.testing.assert_allclose(found["MetaMMCDR"][1][0], rmse(part), rtol=1e-6)


def test_learning_curves_draw_the_last_stage_that_was_validated(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    stages = [
        {"name": "bridge", "seconds": 1, "best_epoch": 1, "valid_curve": [[0, 0.9], [1, 0.8]]},
        {"name": "few_shot", "seconds": 1, "best_epoch": 2, "valid_curve": []},
    ]
    for seed in (1, 2):
        folder.rating(run_of("MetaMMCDR", seed), 0.9, stages=stages)
    folder.rating(run_of("ItemMean", kind="floor"), 1.0, stages=[])
    (figure,) = figures.learning_curves(measures_of(folder))
    (axes,) = figure.draw().axes
    assert axes.get_title("left") == "MetaMMCDR"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.9, 0.8])
    assert [axes.lines[1].get_xdata()[0], axes.lines[1].get_ydata()[0]] == [1, 0.8]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interval, which is nan too
def test_a_training_that_went_to_nan_spoils_no_figure(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    curve = [[0, 0.9], [2, 0.8], [4, float("nan")]]
    stages = [{"name": "bridge", "seconds": 1, "best_epoch": 3, "valid_curve": curve}]
    for ratio in (0.2, 0.5):
        folder.rating(run_of("EMCDR", test_user_ratio=ratio), 0.9)
        folder.rating(run_of("CMF", test_user_ratio=ratio), float("nan"), 0.8, stages=stages)
    measures = measures_of(folder)
    assert names(only(figures.ratio_curves(measures), "RMSE").draw()) == {"EMCDR"}
    (figure,) = figures.learning_curves(measures)
    axes = figure.draw().axes[1]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.9, 0.8])
    assert len(axes.lines[1].get_ydata()) == 0  # the epoch that was chosen was not validated


# Drawing plain numbers


def test_the_mean_curve_ends_with_the_shortest() -> None:
    curves = [Curve([0, 1, 2], [3.0, 2.0, 1.0], 2), Curve([0, 1], [5.0, 3.0], 1)]
    (axes,) = draw_curves({"model": curves}, "RMSE").axes
    mean = axes.lines[-1]
    np.testing.assert_array_equal(mean.get_xdata(), [0, 1])
    np.testing.assert_array_equal(mean.get_ydata(), [4.0, 2.5])


def test_a_model_far_off_is_named_and_not_drawn() -> None:
    series = [Series(f"m{i}", {"a": point(0.9 + i / 100)}) for i in range(5)]
    series.append(Series("far", {"a": point(4.32), "b": point(4.5)}))
    series.append(Series("MetaMMCDR", {"a": point(0.91)}, "highlight"))
    drawn = draw_lines(["a", "b"], series, "x", "y")
    (axes,) = drawn.axes
    assert "far" not in lines(drawn)
    assert axes.get_title("left") == "Far off, not drawn: far 4.32 to 4.5"
    assert axes.get_ylim()[1] < 1


def test_close_values_are_not_far_off() -> None:
    means = (0.927, 0.9274, 0.9275, 0.947)
    assert far_off([Series(f"m{i}", {"a": point(mean)}) for i, mean in enumerate(means)]) == []


def test_of_two_none_is_far_off() -> None:
    assert far_off([Series("a", {"a": point(0.9)}), Series("b", {"a": point(4.3)})]) == []


def test_the_highlight_is_never_far_off() -> None:
    series = [Series(f"m{i}", {"a": point(0.9 + i / 100)}) for i in range(5)]
    assert far_off([*series, Series("MetaMMCDR", {"a": point(9)}, "highlight")]) == []


def test_labels_of_equal_lines_do_not_overlap() -> None:
    series = [Series(f"m{i}", {"a": point(0.9), "b": point(0.9)}) for i in range(18)]
    drawn = draw_lines(["a", "b"], series, "x", "y")
    drawn.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in drawn.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 18
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
    assert boxes[0].y0 >= 0
    assert boxes[-1].y1 <= drawn.bbox.height


# Files


def made_up(name: str) -> Figure:
    series = [Series("$a_b$ <i>", {"a": point(0.9), "b": point(0.8)})]
    return Figure(name, "c", 'says "<b>"', lambda: draw_lines(["a", "b"], series, "x", "y"))


def test_bytes_do_not_depend_on_when_or_under_which_style() -> None:
    first = figures.rendered(made_up("one"))
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9}):
        second = figures.rendered(made_up("one"))
    assert first == second
    assert first.png.startswith(b"\x89PNG")


def test_a_figure_is_drawn_once() -> None:
    drawn = []

    def draw() -> MatplotlibFigure:
        drawn.append(1)
        return MatplotlibFigure(figsize=(1, 1))

    figure = Figure("once", "", "", draw)
    figures.rendered(figure)
    figures.svg_text(figure)
    assert drawn == [1]


def test_inline_svgs_share_no_ids_and_refer_to_their_own() -> None:
    texts = [figures.svg_text(made_up(name)) for name in ("one", "two")]
    ids = [set(re.findall(r'\sid="([^"]+)"', text)) for text in texts]
    assert ids[0]
    assert not ids[0] & ids[1]
    for found, text in zip(ids, texts, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) == found
        assert 'role="img" aria-label="says &#34;&lt;b&gt;&#34;"' in text
        assert "$a_b$ &lt;i&gt;" in text
