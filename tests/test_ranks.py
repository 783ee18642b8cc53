"""Runs of several processes: the same numbers as one, one that writes, and an end if one dies."""

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
import psutil
import pytest
import torch
from model_checks import TINY, command_line, run_mm, tiny_pair, write_world
from rank_tasks import WORLD, in_rank

from recbole_cdr_mm import ranks
from recbole_cdr_mm.errors import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(in_rank, (str(folder),), nprocs=WORLD)
    # Not weights alone: `in_rank` has just written NumPy's arrays too.
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def test_what_processes_tell_each_other(found: list[dict[str, Any]]) -> None:
    for rank, own in enumerate(found):
        assert own["rank"] == (rank, WORLD, rank == 0)
        assert own["gathered"] == ["of 0", "of 1", "of 2"]
        assert own["of_first"] == 0
        assert own["model"] == ([[0.0, 0.0]], 0)


def test_shares_of_training_batches_have_one_size(found: list[dict[str, Any]]) -> None:
    assert [own["share"] for own in found] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]


def test_shares_of_measured_batches_hold_each_row_once(found: list[dict[str, Any]]) -> None:
    shares = [own["batches"] for own in found]
    assert shares == [
        [[0, 3], [4, 7], [8]],
        [[1], [5], [9]],
        [[2], [6], [10]],
    ]
    rows = [ranks.in_turn([torch.tensor(s) for s in parts]) for parts in zip(*shares, strict=True)]
    assert [row.tolist() for row in rows] == found[0]["all batches"]


def test_gradients_become_their_mean(found: list[dict[str, Any]]) -> None:
    before = [own["gradients"][0] for own in found]
    for own in found:
        for name, after in own["gradients"][1].items():
            parts = [b[name] for b in before if b[name] is not None]
            np.testing.assert_allclose(after, np.sum(parts, axis=0) / WORLD, rtol=1e-6)
    assert before[1]["table 0"] is None
    assert before[0]["weight 1"] is None


def test_a_run_of_one_process_is_the_first_of_one() -> None:
    rows = torch.arange(5)
    assert (ranks.rank(), ranks.world_size(), ranks.is_first()) == (0, 1, True)
    assert ranks.share(rows).tolist() == rows.tolist()
    assert ranks.gathered("x") == ["x"]
    ranks.wait()


# Whole runs

META = {"model": "MetaMMCDR", **TINY, "start_from_floor": False, "simulate_cold_users": False}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def start(data_path: Path, folder: Path, **values: Any) -> subprocess.Popen[str]:
    arguments = command_line(data_path, folder, **{"state": "INFO", **values})
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run_recbole_mm.py"), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(data_path: Path, folder: Path, **values: Any) -> dict[str, Any]:
    process = start(data_path, folder, **values)
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.parametrize("eval_task", ["rating", "ranking"])
def test_two_processes_measure_as_one_does(data_path: Path, tmp_path: Path, eval_task: str) -> None:
    """One trains, and two measure what it has trained."""
    values = {**META, "eval_task": eval_task, "eval_batch_size": 700}
    one = run_mm(
        data_path,
        **values,
        checkpoint_dir=str(tmp_path / "saved"),
        save_predictions=str(tmp_path / "one.npz"),
    )
    (checkpoint,) = (tmp_path / "saved").glob("*.pth")
    two = run(data_path, tmp_path, nproc=2, resume=checkpoint, save_predictions="two.npz", **values)
    assert two["versions"]["processes"] == 2
    for part in ("valid", "test", "estimates"):
        assert two[part] == pytest.approx(one[part], abs=1e-6)
    with np.load(tmp_path / "one.npz") as of_one, np.load(tmp_path / "two.npz") as of_two:
        assert of_one.files == of_two.files
        for name in of_one.files:
            np.testing.assert_array_equal(of_two[name], of_one[name])


TWO = {**META, "nproc": 2, "epochs": 6}


@pytest.fixture(scope="module")
def two(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run of two processes, and the folder where it was run."""
    folder = tmp_path_factory.mktemp("two")
    return {**run(data_path, folder, pretrained_path="kept", **TWO), "folder": folder}


def test_two_processes_train_as_one_does(data_path: Path, two: dict[str, Any]) -> None:
    one = run_mm(data_path, **{**TWO, "nproc": 1})
    assert two["test"]["RMSE"] == pytest.approx(one["test"]["RMSE"], abs=2e-3)
    for of_one, of_two in zip(one["stages"], two["stages"], strict=True):
        assert of_two["losses"] == pytest.approx(of_one["losses"], rel=2e-2)


def test_one_process_writes(two: dict[str, Any]) -> None:
    assert len(list(two["folder"].glob("log/**/*.log"))) == 1
    assert len(list(two["folder"].glob("log_tensorboard/*"))) == 1
    assert len(list(two["folder"].glob("saved/*"))) == 1
    assert len(list(two["folder"].glob("kept/*.pth"))) == 2


def test_a_mistake_of_the_user_is_said_once(data_path: Path, tmp_path: Path) -> None:
    process = start(data_path, tmp_path, nproc=2, test_user_ratio=0.999999, **META)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert errors.count("ConfigError: test_user_ratio 0.999999") == 1
    assert "Traceback" not in errors


def test_a_killed_process_ends_the_run_and_it_can_be_resumed(
    data_path: Path, tmp_path: Path, two: dict[str, Any]
) -> None:
    process = start(data_path, tmp_path, **TWO)
    while process.poll() is None and not list(tmp_path.glob("saved/*.pth")):
        time.sleep(0.01)
    children = psutil.Process(process.pid).children()
    _, second = (child for child in children if "spawn_main" in " ".join(child.cmdline()))
    second.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "ProcessError: Process 1 of the run was ended by SIGKILL" in errors
    assert "--resume=True" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "result.json").exists()
    resumed = run(data_path, tmp_path, resume=True, **TWO)
    assert resumed["test"] == pytest.approx(two["test"], abs=1e-6)
    for part in ("name", "epochs", "best_epoch", "examples"):
        assert [s[part] for s in resumed["stages"]] == [s[part] for s in two["stages"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "FM"}, r"RecBole's own models run in one process"),
        ({"enable_scaler": True}, r"`enable_scaler: True` scales the losses of each process"),
        ({"world_size": 3}, r"`world_size: 3` .* must be multiples of `nproc: 2`"),
        ({"world_size": 4, "group_offset": 1}, r"must be multiples of `nproc: 2`"),
    ],
)
def test_what_cannot_be_done_by_many_is_refused(
    data_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_mm(data_path, **{"model": "TargetMF", "nproc": 2, **given})


def test_torchrun_is_a_launcher_too(data_path: Path, tmp_path: Path) -> None:
    arguments = command_line(data_path, tmp_path, model="TargetMF", **TINY)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    started = subprocess.run(
        [*command, str(ROOT / "run_recbole_mm.py"), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stderr
    assert json.loads((tmp_path / "result.json").read_text())["versions"]["processes"] == 2


def test_torchrun_is_not_for_recboles_models(
    data_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"RecBole's own models run in one process"):
        run_mm(data_path, model="FM")


JOINED = """
from pathlib import Path
from time import monotonic, sleep
import torch
from recbole_cdr_mm import ranks

def threads():
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]

with ranks.joined(torch.device("cpu")):
    start = monotonic()
    while not threads() and monotonic() < start + 60:  # they take their names as they begin
        sleep(0.01)
    assert threads()
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
assert threads() == []
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads in /proc")
def test_no_thread_of_a_group_outlives_it() -> None:
    """One that does may want Python's lock while Python ends, which aborts the process."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    environment = {**os.environ, **alone}
    done = subprocess.run([sys.executable, "-c", JOINED], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
