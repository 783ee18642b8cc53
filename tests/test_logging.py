"""RecBole's logger in a run."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from model_checks import run_mm, tiny_pair, write_world

ENDING = "GlobalMean on tiny (split_seed"  # of the message that a run ends with


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def counts_in_files(folder: Path) -> list[int]:
    """How often each log file has the last message."""
    logs = sorted((folder / "log" / "GlobalMean").glob("*.log"))
    return [log.read_text(encoding="utf-8").count(ENDING) for log in logs]


def test_runs_beside_a_handler_of_ones_own(
    data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook whose root logger has a handler, with which RecBole alone logs nothing."""
    monkeypatch.chdir(tmp_path)
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    own = logging.StreamHandler(heard := io.StringIO())
    shown = io.StringIO()
    monkeypatch.setattr(root, "handlers", [*before, own])
    monkeypatch.setattr(sys, "stderr", shown)
    level = root.level
    for seed in (1, 2):
        run_mm(data_path, model="GlobalMean", state="INFO", seed=seed)
    assert (root.handlers, root.level) == ([*before, own], level)
    assert counts_in_files(tmp_path) == [1, 1]
    assert heard.getvalue().count(ENDING) == 2
    assert shown.getvalue() == ""


RUNS = """
import logging, sys
from recbole_cdr_mm.quick_start import run_recbole_mm

config = {"data_path": sys.argv[1], "use_gpu": False, "show_progress": False}
streams = sys.stdout, sys.stderr
for seed in (1, 2):
    run_recbole_mm("GlobalMean", "tiny", config_dict={**config, "seed": seed})
assert (sys.stdout, sys.stderr) == streams
assert logging.getLogger().handlers == []
"""


def test_runs_in_a_process_without_handlers(data_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUNS, str(data_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(ENDING) == 2
    assert counts_in_files(tmp_path) == [1, 1]
