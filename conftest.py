"""Fixtures and rules for all tests, and for the doctests that stand beside the code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before any library starts threads, and for all processes that tests start: pytest's workers share
# the cores, and waiting threads spin.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest

SHARED_DATA = Path(__file__).resolve().parents[1] / "shared" / "data"

pytest.register_assert_rewrite("model_checks", "raw_amazon")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run the tests that download something")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--network"):
        os.environ["HF_HUB_OFFLINE"] = "1"

    # As every entry point does: some modules that are collected for their doctests need it.
    from recbole_cdr_mm import compat

    compat.apply()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("realdata")
        if item.get_closest_marker("network") and not config.getoption("--network"):
            item.add_marker(pytest.mark.skip(reason="downloads something; run with --network"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True, scope="session")
def _session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, so that sums come out the same everywhere; no file written to the checkout."""
    import torch

    torch.set_num_threads(1)
    with contextlib.chdir(tmp_path_factory.mktemp("session")):
        yield


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RecBole writes into the working directory and reads pytest's arguments: it gets its own.

    TensorBoard writes there from a thread, which must have ended before the directory changes.
    """
    from recbole.trainer import trainer

    open_writer, writers = trainer.get_tensorboard, []

    def open_and_note(*args: Any) -> Any:
        writers.append(open_writer(*args))
        return writers[-1]

    monkeypatch.setattr(trainer, "get_tensorboard", open_and_note)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    yield
    for writer in writers:
        writer.close()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240501)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def torch_device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real ratings, as a `data_path`. A test that asks for them is marked `realdata`."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real ratings do not lie beside the checkout, in ../shared/data")
    return SHARED_DATA
