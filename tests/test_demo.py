"""What `make demo` shows, on another pair of its kind: defaults, and texts by a real encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset_tools.cli import main
from recbole_cdr_mm.benchmark.cli import main as benchmark
from recbole_cdr_mm.quick_start import run_recbole_mm

MODELS = ("BiasTransfer", "CalibratedTransfer", "MetaMMCDR")


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_path = tmp_path_factory.mktemp("dataset")
    where = [f"--data_path={data_path}", "--dataset=demo"]
    main(["synthetic", *where, "--seed=1"])
    main(["text", *where, "--encoder=minilm"])
    return data_path


@pytest.mark.slow
def test_metammcdr_in_its_defaults_beats_the_floors(data_path: Path) -> None:
    def rmse(model: str) -> float:
        results: list[dict[str, Any]] = [
            run_recbole_mm(
                model,
                "demo",
                config_dict={
                    "data_path": str(data_path),
                    "split_seed": seed,
                    "seed": seed,
                    "use_gpu": False,
                    "show_progress": False,
                },
                saved=False,
            )
            for seed in (1, 2)
        ]
        return sum(result["test"]["RMSE"] for result in results) / len(results)

    bias, calibrated, metammcdr = map(rmse, MODELS)
    assert metammcdr < 0.99 * calibrated < 0.99 * bias


def test_the_plan_is_on_three_splits_and_has_the_floors(
    data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Path(__file__).parents[1] / "properties" / "plan" / "demo.yaml"
    options = [f"--plan={plan}", f"--out={tmp_path}", "--dry_run=True", f"--data_path={data_path}"]
    assert benchmark(["run", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 * 3
    for model in MODELS:
        assert sum(f"  {model} on demo, rating" in line for line in lines) == 3
