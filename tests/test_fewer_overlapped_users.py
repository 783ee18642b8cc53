"""The script benchmarks/fewer_overlapped_users.py, on made-up runs and once for real."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_results import Folder, run_of
from model_checks import tiny_pair, write_world

from recbole_cdr_mm.benchmark.report.document import Figure, Table
from recbole_cdr_mm.benchmark.report.measures import Measures
from recbole_cdr_mm.benchmark.report.tables import MISSING
from recbole_cdr_mm.benchmark.results import load_results

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "benchmarks" / "fewer_overlapped_users.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add(folder: Folder, name: str, model: str, ratio: float, size: float, task: str) -> None:
    """A run for each seed whose errors have this size, or whose positives lie this far down."""
    variant = {"name": name, "values": {"overlap_ratio": ratio}}
    for seed in SEEDS:
        label = f"{model} (overlap_ratio={ratio})"
        run = run_of(label, seed, model=model, variant=variant, eval_task=task)
        if task == "rating":
            folder.rating(run, size)
        else:
            folder.ranking(run, int(size))


@pytest.mark.parametrize("task", ["rating", "ranking"])
def test_the_loss_is_a_share_of_each_models_own_value(
    script: ModuleType, tmp_path: Path, task: str
) -> None:
    folder = Folder(tmp_path / "out")
    sizes = {"One": {1.0: 20, 0.5: 20, 0.1: 40}, "Two": {1.0: 20, 0.5: 15, 0.1: 60}}
    for model, of_model in sizes.items():
        for ratio, size in of_model.items():
            add(folder, script.NAME, model, ratio, size / (20 if task == "rating" else 1), task)
    measures = Measures(load_results(folder.plan()))
    metric = measures.main_metric(task)
    document = script.report(measures, metric, "Title")
    table, figure = document.sections[0].parts
    assert isinstance(table, Table)
    assert isinstance(figure, Figure)
    assert [width for _, width in table.spans] == [3, 2]
    assert table.columns == ("100%", "50%", "10%", "50%", "10%")
    runs = {(s.run.model, s.values["overlap_ratio"]): s for s in measures.select(script.NAME)}
    sign = 100 if task == "rating" else -100
    for row in table.rows:
        for cell, ratio in zip(row.cells[3:], (0.5, 0.1), strict=True):
            few, full = (
                [result["test"][metric] for result in runs[row.name, r].results]
                for r in (ratio, 1.0)
            )
            expected = sign * np.mean(np.divide(few, full) - 1)
            assert cell.value == pytest.approx(expected, abs=1e-3)
            assert cell.low <= cell.value <= cell.high
    one, two = table.rows
    assert one.cells[3].value == one.cells[3].low == one.cells[3].high == 0
    assert one.cells[4].low > 0 > two.cells[3].high
    script.write(document, tmp_path / "report")
    assert {file.suffix for file in (tmp_path / "report" / "figures").iterdir()} == {".png", ".svg"}
    assert "| One |" in (tmp_path / "report" / "report.md").read_text()


def test_a_model_without_all_links_has_no_loss(script: ModuleType, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    add(folder, script.NAME, "One", 0.5, 1.0, "rating")
    for run in [{**run_of("One", seed), "key": f"missing-{seed}"} for seed in SEEDS]:
        variant = {"name": script.NAME, "values": {"overlap_ratio": 1.0}}
        folder.missing({**run, "variant": variant})
    measures = Measures(load_results(folder.plan()))
    (table,) = script.report(measures, "RMSE", "Title").sections[0].parts
    assert [cell is MISSING for cell in table.rows[0].cells] == [True, False, True]


@pytest.mark.slow
def test_runs_as_its_docstring_says(script: ModuleType, tmp_path: Path) -> None:
    write_world(tiny_pair(), tmp_path / "data")
    options = {"dataset": "tiny", "data_path": tmp_path / "data", "out": tmp_path / "out"}
    options |= {"models": "CalibratedTransfer", "overlap_ratios": "0.5", "seeds": "1"}
    command = [f"--{key}={value}" for key, value in {**options, "use_gpu": False}.items()]
    assert script.main(command) == 0
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    assert any(line.startswith("| CalibratedTransfer | ") for line in lines)


def test_mistakes_end_in_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_world(tiny_pair(), tmp_path / "data")
    command = ["--dataset=tiny", f"--data_path={tmp_path / 'data'}", f"--out={tmp_path / 'out'}"]
    for wrong, text in {
        "--models=Nobody": "There is no model `Nobody`",
        "--overlap_ratios=2": "`overlap_ratio: 2.0` must be (0 < float <= 1)",
        "--lerning_rate=1": "unknown key `lerning_rate` of `config`",
    }.items():
        assert script.main(["--models=BiasTransfer", *command, wrong]) == 2
        assert text in capsys.readouterr().err
