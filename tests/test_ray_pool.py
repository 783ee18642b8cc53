"""Workers of a Ray cluster: a local one of two nodes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pool_tasks
import pytest
from model_checks import tiny_pair, write_world

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.parallel.ray_pool import RayPool
from recbole_cdr_mm.parallel.tasks import Outcome, Task
from recbole_cdr_mm.tune.cli import main


def test_without_ray(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray_address needs Ray\. Install it"):
        RayPool("local")
    command = "--models=ItemMean --dataset=tiny --trials=1 --out=out --ray_address=auto"
    assert main(command.split()) == 2
    assert capsys.readouterr().err.startswith("ConfigError: --ray_address needs Ray.")


def where(report: Callable[[Any], Any]) -> tuple[str, int, str]:
    """Node, process and working directory of a task, which takes some time."""
    import ray

    time.sleep(1)
    return ray.get_runtime_context().get_node_id(), os.getpid(), os.getcwd()


def gpu(report: Callable[[Any], Any]) -> tuple[str, float]:
    """Which GPUs a task sees, and how much of them is its own."""
    import ray

    share = ray.get_runtime_context().get_assigned_resources()["GPU"]
    return os.environ["CUDA_VISIBLE_DEVICES"], share


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of this machine with a CPU each, and a GPU that is made up; on free ports."""
    pytest.importorskip("ray")
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the functions of tasks
        folder = stack.enter_context(TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
        patch.setenv("RAY_TMPDIR", folder)  # pytest's own is too long for the names of sockets
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        stack.callback(cluster.shutdown)
        for n_gpus in (0, 1):
            cluster.add_node(num_cpus=1, num_gpus=n_gpus, include_dashboard=False)
        cluster.wait_for_nodes()
        yield cluster


@pytest.mark.slow
class TestCluster:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("ray")

    @pytest.fixture(scope="class")
    @classmethod
    def begun(cls) -> list[int]:
        """For each outcome of `outcomes`, how many tasks were asked for before."""
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def outcomes(cls, cluster: Any, folder: Path, begun: list[int]) -> dict[str, Outcome]:
        """Of one run of many tasks, since each starts a process that imports RecBole."""
        logs = Path("logs")  # relative, as paths that a user gives may be
        all_tasks = [
            Task("where 1", where, {}, logs / "1"),
            Task("where 2", where, {}, logs / "2"),
            Task("double", pool_tasks.double, {"number": 4}, logs / "double"),
            Task("ask 1", pool_tasks.ask, {"number": 1}, logs / "ask 1"),
            Task("ask 5", pool_tasks.ask, {"number": 5}, logs / "ask 5"),
            Task("threads", pool_tasks.threads, {}, logs / "threads"),
            Task("mistake", pool_tasks.mistake, {}, logs / "mistake"),
            Task("bug", pool_tasks.bug, {}, logs / "bug"),
            Task("die", pool_tasks.die, {}, logs / "die"),
        ]
        asked = []

        def tasks() -> Iterator[Task]:
            for task in all_tasks:
                asked.append(task)
                yield task

        found = {}
        with contextlib.chdir(folder), RayPool(cluster.address) as pool:
            assert pool.n_workers == 2
            for outcome in pool.run(tasks(), lambda task, number: f"{task.name}: {number}"):
                found[outcome.task.name] = outcome
                begun.append(len(asked))
        return found

    def test_on_both_nodes_each_in_a_process_of_its_own(
        self, outcomes: dict[str, Outcome], folder: Path
    ) -> None:
        nodes, processes, folders = zip(
            outcomes["where 1"].value, outcomes["where 2"].value, strict=True
        )
        assert nodes[0] != nodes[1]
        assert processes[0] != processes[1]
        assert folders == (str(folder), str(folder))

    def test_values_and_logs(self, outcomes: dict[str, Outcome], folder: Path) -> None:
        assert (outcomes["double"].value, outcomes["double"].error) == (8, None)
        assert "doubling 4\n" in (folder / "logs" / "double").read_text(encoding="utf-8")
        assert 1 <= outcomes["where 1"].seconds < 5

    def test_reports_are_answered(self, outcomes: dict[str, Outcome]) -> None:
        assert outcomes["ask 1"].value == ["ask 1: 1", "ask 1: 2"]
        assert outcomes["ask 5"].value == ["ask 5: 5", "ask 5: 6"]

    def test_threads(self, outcomes: dict[str, Outcome]) -> None:
        assert outcomes["threads"].value == (1, {1})

    def test_tasks_are_asked_for_when_a_worker_is_free(
        self, outcomes: dict[str, Outcome], begun: list[int]
    ) -> None:
        assert begun == [2, 3, 4, 5, 6, 7, 8, 9, 9]

    def test_failures_are_outcomes(self, outcomes: dict[str, Outcome], folder: Path) -> None:
        mistake = outcomes["mistake"].error
        assert str(mistake) == "ConfigError: `epochs: 0` must be more. Give more."
        assert str(mistake) in (folder / "logs" / "mistake").read_text(encoding="utf-8")
        assert str(outcomes["bug"].error) == "ZeroDivisionError: of our own making"
        died = outcomes["die"].error
        assert died is not None
        assert died.type == "ProcessDied"
        assert died.message.endswith("See logs/die.")

    def test_error_of_the_listener_ends_the_tasks(self, cluster: Any, tmp_path: Path) -> None:
        def refuse(task: Task, payload: Any) -> None:
            raise RuntimeError("enough")

        with RayPool(cluster.address, n_workers=1) as pool:
            assert pool.n_workers == 1
            task = Task("ask", pool_tasks.ask, {"number": 1}, tmp_path / "ask.log")
            with pytest.raises(RuntimeError, match="enough"):
                list(pool.run([task], refuse))
            after = Task("double", pool_tasks.double, {"number": 1}, tmp_path / "double.log")
            assert [outcome.value for outcome in pool.run([after])] == [2]

    def test_gpus_are_divided(self, cluster: Any, tmp_path: Path) -> None:
        with RayPool(cluster.address, use_gpu=True) as pool:
            (outcome,) = pool.run([Task("gpu", gpu, {}, tmp_path / "gpu.log")])
        assert outcome.value == ("0", 0.5)

    def test_tune(self, cluster: Any, tmp_path: Path) -> None:
        values = {
            "models": "ItemMean,TargetMF",
            "dataset": "tiny",
            "data_path": write_world(tiny_pair(), tmp_path / "data"),
            "use_gpu": False,
            "epochs": 4,
            "trials": 3,
        }
        arguments = [f"--{key}={value}" for key, value in values.items()]
        assert main([*arguments, "--out=on_ray", f"--ray_address={cluster.address}"]) == 0
        assert main([*arguments, "--out=here"]) == 0
        for model in ("ItemMean", "TargetMF"):
            on_ray, here = (
                json.loads(Path(out, f"{model}.json").read_text(encoding="utf-8"))
                for out in ("on_ray", "here")
            )
            assert on_ray["trials"] == on_ray["completed"] + on_ray["pruned"] == 3
            assert on_ray["default_value"] == here["default_value"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_no_cluster_there(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=f"--ray_address={address}: .* Start a cluster with"):
        RayPool(address)
