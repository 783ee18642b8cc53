"""Running a plan: each run once, failures as rows, and nothing lost when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from model_checks import QUIET, TINY, run_mm, tiny_pair, write_world

from dataset_tools.safe_output import locked
from recbole_cdr_mm.benchmark.cli import main
from recbole_cdr_mm.benchmark.plan import read_plan
from recbole_cdr_mm.benchmark.results import load_results
from recbole_cdr_mm.benchmark.runner import run_plan
from recbole_cdr_mm.cores import usable_cores
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.parallel.local import LocalPool
from recbole_cdr_mm.parallel.tasks import Failure

BRIDGES = ("EMCDR", "PTUPCDR", "MetaMMCDR")
WORKERS = min(2, usable_cores())


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def write_plan(folder: Path, data_path: Path, **values: Any) -> Path:
    trained = TINY if set(values["models"]) & set(BRIDGES) else {}
    config = {**QUIET, **trained, "data_path": str(data_path), **values.pop("config", {})}
    defaults = {"datasets": ["tiny"], "seeds": [1], "eval_tasks": ["rating"]}
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump({**defaults, **values, "config": config}))
    return file


def run(plan: Path, out: Path) -> list[tuple[str, Failure]]:
    failed = run_plan(read_plan(plan, {}), out, LocalPool(WORKERS, 1))
    return [(run.label, failure) for run, failure in failed]


def times(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (out / "runs").iterdir()}


class TestRunPlan:
    @pytest.fixture(scope="class")
    @classmethod
    def out(cls, data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("bench")
        plan = write_plan(folder, data_path, models=["EMCDR", "PTUPCDR"], title="Two bridges")
        assert run(plan, folder / "out") == []
        return folder / "out"

    def test_results_are_those_of_single_runs(self, data_path: Path, out: Path) -> None:
        results = load_results(out).results
        labels = [r.run.label for r in results]
        assert labels == ["ItemMean", "BiasTransfer", "CalibratedTransfer", "EMCDR", "PTUPCDR"]
        for entry in results:
            tiny = TINY if entry.run.kind == "cross-domain" else {}
            alone = run_mm(data_path, model=entry.run.model, seed=1, split_seed=1, **tiny)
            assert entry.result is not None
            assert entry.result["test"] == alone["test"]
            rows = entry.predictions()
            error = rows["prediction"].astype(float) - rows["rating"]
            assert np.abs(error).mean() == pytest.approx(alone["test"]["MAE"], abs=2e-6)

    def test_base_models_are_trained_once(self, out: Path) -> None:
        reused = {
            entry.run.label: [stage["reused"] for stage in entry.result["stages"]]
            for entry in load_results(out).results
            if entry.result and entry.run.kind == "cross-domain"
        }
        assert sorted(map(sum, reused.values())) == [0, 2]

    def test_what_is_done_is_not_run_again(self, out: Path, data_path: Path) -> None:
        before = times(out)
        plan = out.parent / "plan.yaml"
        assert run(plan, out) == []
        assert times(out) == before
        write_plan(out.parent, data_path, models=["EMCDR", "CMF"])
        assert run(plan, out) == []
        after = times(out)
        assert {name for name in after if before.get(name) != after[name]} == {
            name for name in after if name.startswith("CMF-")
        }
        labels = [entry.run.label for entry in load_results(out).results]
        assert labels == ["ItemMean", "BiasTransfer", "CalibratedTransfer", "EMCDR", "CMF"]

    def test_nothing_is_left_behind(self, out: Path) -> None:
        assert list((out / "checkpoints").iterdir()) == []
        assert not list(out.rglob("*.tmp"))

    def test_damaged_predictions_say_what_to_do(self, out: Path) -> None:
        entry = load_results(out).results[0]
        whole = entry.predictions_file.read_bytes()
        entry.predictions_file.write_bytes(whole[:50])
        with pytest.raises(ConfigError, match=r"\.npz: cannot be read .* run the plan again"):
            entry.predictions()
        entry.predictions_file.write_bytes(whole)


class TestFailures:
    def test_a_failing_run_is_a_row_and_is_tried_again(
        self, data_path: Path, tmp_path: Path
    ) -> None:
        bad = {"EMCDR": {"learning_rate": 1e30}}
        values = {"models": ["EMCDR"], "eval_tasks": ["ranking"], "model_config": bad}
        plan = write_plan(tmp_path, data_path, **values)
        out = tmp_path / "out"
        ((label, failure),) = run(plan, out)
        assert label == "EMCDR"
        assert failure.type == "ConfigError"
        assert "(NaN)" in failure.message
        entries = {entry.run.label: entry for entry in load_results(out).results}
        assert entries["Popularity"].result is not None
        entry = entries["EMCDR"]
        assert entry.result is None
        assert entry.error is not None
        assert entry.error["message"] == failure.message
        assert failure.message in (out / entry.error["log"]).read_text()
        before = times(out)
        assert len(run(plan, out)) == 1
        assert {name.split("-")[0] for name, t in times(out).items() if before.get(name) != t} == {
            "EMCDR"
        }

    def test_two_benchmarks_in_one_folder(self, data_path: Path, tmp_path: Path) -> None:
        plan = write_plan(tmp_path, data_path, models=["GlobalMean"])
        with locked(tmp_path / "out" / "benchmark", "--out"):
            with pytest.raises(ConfigError, match="another process is at work on it"):
                run(plan, tmp_path / "out")


@pytest.mark.slow
def test_killed_in_the_middle(data_path: Path, tmp_path: Path) -> None:
    """kill -9 while two runs are under way: nothing is run twice, nothing lost, same results."""
    values = {
        "models": ["EMCDR", "PTUPCDR", "MetaMMCDR"],
        "config": {"epochs": 60, "state": "INFO"},
    }
    plan = write_plan(tmp_path, data_path, **values)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(plan, whole) == []
    command = [sys.executable, "-m", "recbole_cdr_mm.benchmark", "run", f"--plan={plan}"]
    process = subprocess.Popen([*command, f"--out={killed}", f"--processes={WORKERS}"])
    checkpoints = killed / "checkpoints"
    end = time.monotonic() + 120
    while not list(checkpoints.glob("EMCDR-*/*.pth")) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = times(killed)
    results = {name for name in done if name.endswith(".json")}
    assert results
    assert not any(name.startswith("EMCDR") for name in results)
    assert run(plan, killed) == []
    after = times(killed)
    assert {name: after[name] for name in results} == {name: done[name] for name in results}
    logs = [log.read_text() for log in (killed / "logs").glob("EMCDR-*.log")]
    assert any("Resuming from" in log for log in logs)
    for one, other in zip(load_results(whole).results, load_results(killed).results, strict=True):
        assert one.run.key == other.run.key
        assert one.result is not None
        assert other.result is not None
        assert one.result["test"] == other.result["test"]
        assert one.result["valid"] == other.result["valid"]


class TestCommandLine:
    def test_dry_run(
        self, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plan = write_plan(tmp_path, data_path, models=["GlobalMean"])
        arguments = ["run", f"--plan={plan}", f"--out={tmp_path / 'out'}", "--dry_run=True"]
        assert main([*arguments, "--test_user_ratio=0.5"]) == 2
        assert "`test_user_ratio` of `config` is set by `test_user_ratios`" in (
            capsys.readouterr().err
        )
        assert main(arguments) == 0
        assert capsys.readouterr().out.splitlines()[-1] == (
            "to do  GlobalMean on tiny, rating, test_user_ratio 0.2, seed 1"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run", "--plan=none.yaml", "--out=out"], "none.yaml: No such file"),
            (["run", "--plan=plan.yaml", "--out=out", "--processes=0"], "must be 1 or more"),
            (["run", "--plan=plan.yaml", "--out=out", "--processes=9999"], "Give at most"),
            (["run", "--plan=plan.yaml", "--out=out", "--epoch=3"], "unknown key `epoch`"),
            (["run", "--plan=plan.yaml", "--out=out", "epochs"], "is not of the form --key=value"),
            (["report", "--out=nowhere"], "nowhere: holds no benchmark. Make one with"),
        ],
        ids=str,
    )
    def test_mistakes(
        self,
        data_path: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        plan = write_plan(tmp_path, data_path, models=["GlobalMean"])
        places = {"plan.yaml": str(plan), "=out": f"={tmp_path / 'out'}"}
        for name, place in places.items():
            arguments = [argument.replace(name, place) for argument in arguments]
        assert main(arguments) == 2
        captured = capsys.readouterr().err
        assert message in captured
        assert len(captured.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_damaged_result(
        self, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plan = write_plan(tmp_path, data_path, models=["GlobalMean"])
        run(plan, tmp_path / "out")
        file = next((tmp_path / "out" / "runs").glob("GlobalMean*.json"))
        file.write_text(json.dumps(json.loads(file.read_text()))[:40])
        out = f"--out={tmp_path / 'out'}"
        for arguments in (["report", out], ["run", f"--plan={plan}", out]):
            assert main(arguments) == 2
            assert "Remove it and run the plan again." in capsys.readouterr().err
