"""RecBole's logger in a run."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from model_checks import run_mm, tiny_pair, write_world


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def test_the_log_of_a_run_beside_handlers_of_ones_own(
    data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook whose root logger has a handler, with which RecBole alone logs nothing."""
    monkeypatch.chdir(tmp_path)
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    own = logging.StreamHandler(heard := io.StringIO())
    monkeypatch.setattr(root, "handlers", [*before, own])
    level = root.level
    for _ in range(2):
        run_mm(data_path, model="GlobalMean", state="INFO", seed=len(heard.getvalue()))
    assert root.handlers == [*before, own]
    assert root.level == level
    logs = sorted((tmp_path / "log" / "GlobalMean").glob("*.log"))
    assert len(logs) == 2
    for log in logs:
        assert log.read_text(encoding="utf-8").count("GlobalMean on tiny (split_seed") == 1
    assert heard.getvalue().count("GlobalMean on tiny (split_seed") == 2
