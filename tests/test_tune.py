"""The search: what it tries, what it remembers, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from model_checks import (
    QUIET,
    TINY,
    build_run,
    tiny_pair,
    tokens_of,
    with_target_ratings,
    write_world,
)
from optuna.trial import TrialState
from small_pairs import write_lines

from dataset_tools.safe_output import locked
from recbole_cdr_mm.cores import usable_cores
from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.parallel.tasks import Failure, Outcome, Task, no_answer
from recbole_cdr_mm.quick_start import validate_recbole_mm
from recbole_cdr_mm.tune import trial as trial_module
from recbole_cdr_mm.tune.cli import main
from recbole_cdr_mm.tune.ranges import read_ranges
from recbole_cdr_mm.tune.report import summarise
from recbole_cdr_mm.tune.search import Search, ended_trials, go_on, open_study
from recbole_cdr_mm.tune.trial import SPLIT_STRIDE, WARM_UP, Run, train_trial

RUN = Run("Model", "pair", (), (), (1,), "rating", "RMSE", bigger_is_better=False, saved=False)
START = {"x": 3.0, "kind": "a"}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


# The search itself, on made-up objectives

Objective = Callable[[dict[str, Any], Callable[[tuple[int, float]], bool]], Any]


class Here:
    """A pool whose tasks call an objective in this process, one after another."""

    n_workers = 1

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def run(
        self, tasks: Iterable[Task], on_report: Callable[[Task, Any], Any] = no_answer
    ) -> Iterator[Outcome]:
        for task in tasks:
            try:
                value = self.objective(task.arguments["values"], lambda p, t=task: on_report(t, p))
                yield Outcome(task, value, None, 0.5)
            except ArithmeticError as error:
                yield Outcome(task, None, Failure.of(error), 0.5)


def square(values: dict[str, Any], report: Any) -> float:
    """Best at x = 1 and kind b; 4 at the start."""
    return (values["x"] - 1) ** 2 + (values["kind"] == "a") * 0.0


@pytest.fixture
def make_search(tmp_path: Path) -> Callable[..., Search]:
    def make(n_trials: int = 12, *, seed: int = 0, start: Any = START, **changed: Any) -> Search:
        path = write_lines(tmp_path / "a.hyper", "x uniform 0,4", "kind choice ['a', 'b']")
        identity = {"model": "Model", "epochs": 5, **changed}
        return Search(RUN, read_ranges(path), start, n_trials, seed, identity)

    return make


def run(search: Search, folder: Path, objective: Objective = square) -> list[Any]:
    """Trials that a search runs, as (values, state, value)."""
    folder.mkdir(exist_ok=True)
    with open_study(folder / "study.db", search) as study:
        trials = list(go_on(search, study, Here(objective), folder))
    return [(search.values(t), t.state, t.value) for t in trials]


def test_begins_with_the_values_without_tuning_and_does_better(
    tmp_path: Path, make_search: Any
) -> None:
    trials = run(make_search(25), tmp_path)
    assert len(trials) == 25
    assert trials[0] == (START, TrialState.COMPLETE, 4.0)
    assert min(value for _, _, value in trials) < 0.05
    assert all(value == square(values, None) for values, _, value in trials)


def test_draws_by_seed(tmp_path: Path, make_search: Any) -> None:
    first, same = (run(make_search(6, seed=1), tmp_path / name) for name in ("first", "same"))
    assert first == same
    assert run(make_search(6, seed=2), tmp_path / "other") != first


def test_start_out_of_range_is_not_tried(tmp_path: Path, make_search: Any) -> None:
    search = make_search(3, start={"x": 9.0, "kind": "a"})
    assert search.start_parameters is None
    assert len(run(search, tmp_path)) == 3
    with open_study(tmp_path / "study.db", search) as study:
        assert summarise(search, study)["default_value"] is None


@pytest.mark.parametrize("n_before", [0, 4, 11])
def test_killed_search_goes_on_as_if_it_had_not_been(
    tmp_path: Path, make_search: Any, n_before: int
) -> None:
    """The trial under way is tried again, and everything after it is as it would have been."""
    whole = run(make_search(), tmp_path / "whole")
    calls = iter(range(100))

    def killed(values: dict[str, Any], report: Any) -> float:
        if next(calls) == n_before:
            raise KeyboardInterrupt
        return square(values, report)

    with pytest.raises(KeyboardInterrupt):
        run(make_search(), tmp_path / "killed", killed)
    rest = run(make_search(), tmp_path / "killed")
    assert rest == whole[n_before:]
    assert run(make_search(), tmp_path / "killed") == []
    with open_study(tmp_path / "killed" / "study.db", make_search()) as study:
        assert len(ended_trials(study)) == len(whole)
        assert len(study.trials) == len(whole) + 1


def test_killed_twice_at_the_same_trial(tmp_path: Path, make_search: Any) -> None:
    whole = run(make_search(4), tmp_path / "whole")

    def killed(values: dict[str, Any], report: Any) -> float:
        if values == whole[2][0]:
            raise KeyboardInterrupt
        return square(values, report)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(make_search(4), tmp_path / "killed", killed)
    assert run(make_search(4), tmp_path / "killed") == whole[2:]


def test_more_trials_later(tmp_path: Path, make_search: Any) -> None:
    whole = run(make_search(12), tmp_path / "whole")
    parts = run(make_search(5), tmp_path / "parts") + run(make_search(12), tmp_path / "parts")
    assert parts == whole


def test_failed_trials_count_and_say_why(tmp_path: Path, make_search: Any) -> None:
    def fails(values: dict[str, Any], report: Any) -> float:
        if values["x"] > 3:
            raise ArithmeticError("too large")
        return square(values, report)

    search = make_search(15)
    run(search, tmp_path, fails)
    with open_study(tmp_path / "study.db", search) as study:
        failed = [t for t in ended_trials(study) if t.state == TrialState.FAIL]
        summary = summarise(search, study)
    assert failed
    assert all(t.user_attrs["reason"] == "ArithmeticError: too large" for t in failed)
    assert summary["failed"] == len(failed)
    assert summary["completed"] + summary["failed"] == summary["trials"] == 15
    assert summary["seconds"] == 15 * 0.5
    assert run(search, tmp_path) == []  # they are not tried again


def test_failure_at_the_start_ends_the_search_and_is_not_counted(
    tmp_path: Path, make_search: Any
) -> None:
    def fails(values: dict[str, Any], report: Any) -> float:
        raise ArithmeticError("no such file.")

    message = r"Model with the values to start from: ArithmeticError: no such file. See \S+\.log"
    with pytest.raises(ConfigError, match=message):
        run(make_search(4), tmp_path, fails)
    trials = run(make_search(4), tmp_path)
    assert len(trials) == 4
    assert trials[0] == (START, TrialState.COMPLETE, 4.0)


def test_all_failed(tmp_path: Path, make_search: Any) -> None:
    def fails(values: dict[str, Any], report: Any) -> float:
        raise ArithmeticError("never.")

    search = make_search(2, start={"x": 9.0, "kind": "a"})
    run(search, tmp_path, fails)
    with (
        open_study(tmp_path / "study.db", search) as study,
        pytest.raises(ConfigError, match=r"none of 2 trials was completed.* never. Give other"),
    ):
        summarise(search, study)


def test_prunes_what_is_worse_than_most(tmp_path: Path, make_search: Any) -> None:
    steps: list[int] = []

    def curve(values: dict[str, Any], report: Any) -> float | None:
        for step in range(10):
            if report((step, square(values, None) + 1 / (step + 1))):
                steps.append(step)
                return None
        return square(values, None)

    trials = run(make_search(20), tmp_path, curve)
    pruned = [values for values, state, _ in trials if state == TrialState.PRUNED]
    completed = [values for values, state, _ in trials if state == TrialState.COMPLETE]
    assert len(pruned) == len(steps) > 0
    assert all(step == 0 for step in steps)
    assert [state for _, state, _ in trials[:5]] == [TrialState.COMPLETE] * 5
    assert min(square(v, None) for v in pruned) > min(square(v, None) for v in completed)


def test_values_without_tuning_are_never_pruned(tmp_path: Path, make_search: Any) -> None:
    """They may come late, after a kill, and are what the others are compared with."""
    answers: list[bool] = []

    def curve(values: dict[str, Any], report: Any) -> float:
        answer = report((0, 100.0 if values == START else values["x"]))
        if values == START:
            answers.append(answer)
        return values["x"]

    elsewhere = make_search(8, start={"x": 9.0, "kind": "a"})
    run(elsewhere, tmp_path, curve)
    run(make_search(9), tmp_path, curve)
    assert answers == [False]


def test_bigger_is_better(tmp_path: Path, make_search: Any) -> None:
    search = make_search(25)
    run_of = Run(
        "Model", "pair", (), (), (1,), "ranking", "NDCG@10", bigger_is_better=True, saved=False
    )
    search = Search(run_of, search.ranges, search.start, 25, 0, {})
    trials = run(search, tmp_path, lambda values, report: values["x"])
    with open_study(tmp_path / "study.db", search) as study:
        summary = summarise(search, study)
    assert summary["best_value"] == max(value for _, _, value in trials) > 3.9
    assert summary["best"]["x"] == summary["best_value"]
    assert summary["default_value"] == 3.0


def test_first_of_equal_values_is_best(tmp_path: Path, make_search: Any) -> None:
    """So that the values without tuning stay where nothing beats them."""
    search = make_search(5)
    run(search, tmp_path, lambda values, report: 1.0)
    with open_study(tmp_path / "study.db", search) as study:
        assert summarise(search, study)["best"] == START


def test_refuses_the_study_of_another_search(tmp_path: Path, make_search: Any) -> None:
    run(make_search(3), tmp_path)
    with pytest.raises(ConfigError) as error:
        run(make_search(3, epochs=7, dim=2), tmp_path)
    assert "other values of dim (None there, 2 here), epochs (5 there, 7 here)." in str(error.value)
    with pytest.raises(ConfigError, match=r"Model has had 3 trials already. Give --trials=3 or"):
        run(make_search(2), tmp_path)


def test_refuses_a_damaged_study(tmp_path: Path, make_search: Any) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"study.db: cannot be read as a study of Optuna. Remove"):
        run(make_search(3), tmp_path)


# What a worker does for one trial


def validations(monkeypatch: pytest.MonkeyPatch, *curves: list[float]) -> list[dict[str, Any]]:
    """Let trainings give these validations, each training one list; the last one is its result."""
    calls: list[dict[str, Any]] = []

    def validate(*arguments: Any, on_validation: Any, **options: Any) -> dict[str, Any]:
        calls.append(arguments[3])
        curve = curves[len(calls) - 1]
        for number, score in enumerate(curve):
            on_validation(number, score)
        return {"valid_score": min(curve)}

    monkeypatch.setattr(trial_module, "validate_recbole_mm", validate)
    return calls


class TestTrial:
    def test_mean_over_splits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = validations(monkeypatch, [0.9, 0.8], [0.6, 0.7])
        run = Run(
            "Model", "pair", (), (), (1, 2), "rating", "RMSE", bigger_is_better=False, saved=False
        )
        assert train_trial(run, {"x": 5}, lambda progress: False) == pytest.approx(0.7)
        assert [(values["split_seed"], values["x"]) for values in calls] == [(1, 5), (2, 5)]

    def test_reports_the_best_so_far_after_the_warm_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = [5.0, 4.0, 3.0, 2.0, 6.0, 1.0], [8.0, 7.0, 9.0, 9.0]
        assert WARM_UP == 3
        validations(monkeypatch, first, second)
        run = Run(
            "Model", "pair", (), (), (1, 2), "rating", "RMSE", bigger_is_better=False, saved=False
        )
        seen: list[tuple[int, float]] = []
        assert train_trial(run, {}, lambda progress: bool(seen.append(progress))) == 4.0
        assert seen == [(3, 2.0), (4, 2.0), (5, 1.0), (SPLIT_STRIDE + 3, (1.0 + 7.0) / 2)]

    def test_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = validations(monkeypatch, [1.0] * 9, [1.0] * 9)
        run = Run(
            "Model", "pair", (), (), (1, 2), "rating", "RMSE", bigger_is_better=False, saved=False
        )
        seen: list[tuple[int, float]] = []

        def stop_at_five(progress: tuple[int, float]) -> bool:
            seen.append(progress)
            return progress[0] == 5

        assert train_trial(run, {}, stop_at_five) is None
        assert (len(calls), len(seen)) == (1, 3)

    def test_value_that_is_no_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        validations(monkeypatch, [float("inf")])
        with pytest.raises(ConfigError, match="Model: the validation RMSE is inf"):
            train_trial(RUN, {}, lambda progress: False)


# The command


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tiny_pair(), tmp_path_factory.mktemp("data"))


def command(data_path: Path, out: Path, models: str, n_trials: int, **values: Any) -> list[str]:
    everything = {
        "models": models,
        "dataset": "tiny",
        "data_path": data_path,
        "trials": n_trials,
        "out": out,
        "use_gpu": False,
        **values,
    }
    return [f"--{key}={value}" for key, value in everything.items()]


def rows(out: Path, model: str) -> list[dict[str, str]]:
    """The table of trials, without what differs between any two searches."""
    with (out / f"{model}.trials.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        del row["seconds"]
    return found


def summary_of(out: Path, model: str) -> dict[str, Any]:
    return dict(json.loads((out / f"{model}.json").read_text(encoding="utf-8")))


def validate(data_path: Path, model: str, files: Iterable[Path] = (), **values: Any) -> float:
    result = validate_recbole_mm(
        model, "tiny", list(files), {**QUIET, "data_path": str(data_path), **values}
    )
    return float(result["valid_score"])


@pytest.fixture(scope="module")
def tuned(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two models were tuned."""
    out = tmp_path_factory.mktemp("tuned")
    assert main(command(data_path, out, "BiasTransfer,ItemMean", 6)) == 0
    return out


class TestOutputs:
    def test_budget_and_best_values(self, data_path: Path, tuned: Path) -> None:
        for model in ("BiasTransfer", "ItemMean"):
            summary = summary_of(tuned, model)
            budget = {"trials": 6, "completed": 6, "pruned": 0, "failed": 0}
            assert {key: summary[key] for key in budget} == budget
            assert summary["seconds"] > 0
            assert (summary["model"], summary["dataset"]) == (model, "tiny")
            assert (summary["eval_task"], summary["metric"]) == ("rating", "RMSE")
            assert summary["split_seeds"] == [2020]
            assert summary["default_value"] == validate(data_path, model)
            assert summary["best_value"] <= summary["default_value"]
            assert validate(data_path, model, **summary["best"]) == summary["best_value"]

    def test_best_values_are_a_config_file(self, data_path: Path, tuned: Path) -> None:
        path = tuned / "BiasTransfer.yaml"
        summary = summary_of(tuned, "BiasTransfer")
        assert validate(data_path, "BiasTransfer", [path]) == summary["best_value"]
        text = path.read_text(encoding="utf-8")
        assert "the best of 6 trials (6 completed, 0 pruned, 0 failed" in text
        assert "# without tuning 5.0; loguniform -2,4" in text

    def test_table_of_trials(self, tuned: Path) -> None:
        trials = rows(tuned, "BiasTransfer")
        assert [row["trial"] for row in trials] == list("012345")
        first = {"bias_rounds": "10", "item_shrinkage": "3.0", "user_shrinkage": "5.0"}
        assert first.items() <= trials[0].items()
        best = min(float(row["value"]) for row in trials)
        assert best == summary_of(tuned, "BiasTransfer")["best_value"]

    def test_nothing_else_is_left(self, tuned: Path) -> None:
        endings = ("json", "study.db", "trials.csv", "yaml")
        expected = {f"{m}.{end}" for m in ("BiasTransfer", "ItemMean") for end in endings}
        assert {path.name for path in tuned.iterdir()} == {*expected, "logs"}
        assert len(list((tuned / "logs").iterdir())) == 12


def test_terminal(data_path: Path, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command does nothing but say what was found, with the budget of each."""
    before = (tuned / "BiasTransfer.json").read_bytes()
    assert main(command(data_path, tuned, "BiasTransfer,ItemMean", 6)) == 0
    out = capsys.readouterr().out
    assert "BiasTransfer on tiny: 6 trials, 6 of them done. RMSE of the validation users" in out
    header, *table = [line.split() for line in out.splitlines()[-3:]]
    assert header[:8] == "model metric default best trials completed pruned failed".split()
    assert [(row[0], row[4:8]) for row in table] == [
        ("BiasTransfer", ["6", "6", "0", "0"]),
        ("ItemMean", ["6", "6", "0", "0"]),
    ]
    assert (tuned / "BiasTransfer.json").read_bytes() == before


def test_test_users_are_not_read(data_path: Path, tuned: Path, tmp_path: Path) -> None:
    """Other target ratings of the test users change no trial."""
    pair = tiny_pair()
    test_users = tokens_of(build_run(data_path, model="BiasTransfer"), "test")
    assert test_users
    changed = with_target_ratings(pair, lambda r: 6 - r, test_users)
    other = write_world(changed, tmp_path / "data")
    assert main(command(other, tmp_path / "out", "BiasTransfer", 6)) == 0
    assert rows(tmp_path / "out", "BiasTransfer") == rows(tuned, "BiasTransfer")


def test_split_seeds(data_path: Path, tmp_path: Path) -> None:
    assert main(command(data_path, tmp_path, "ItemMean", 2, split_seeds="3,4")) == 0
    summary = summary_of(tmp_path, "ItemMean")
    values = [validate(data_path, "ItemMean", split_seed=seed) for seed in (3, 4)]
    assert summary["default_value"] == pytest.approx(sum(values) / 2)
    assert summary["split_seeds"] == [3, 4]


def test_ranges_and_start_of_the_user(data_path: Path, tmp_path: Path) -> None:
    hyper = write_lines(tmp_path / "my.hyper", "item_shrinkage choice [1.0, 2.0]")
    start = write_lines(tmp_path / "start.yaml", "item_shrinkage: 2.0", "user_shrinkage: 7.0")
    options = {"params_file": hyper, "config_files": start}
    assert main(command(data_path, tmp_path / "a", "BiasTransfer", 2, **options)) == 0
    first = rows(tmp_path / "a", "BiasTransfer")[0]
    assert first["item_shrinkage"] == "2.0"
    expected = validate(data_path, "BiasTransfer", item_shrinkage=2.0, user_shrinkage=7.0)
    assert float(first["value"]) == expected


def test_a_task_may_have_ranges_of_its_own(data_path: Path, tmp_path: Path) -> None:
    options = {**TINY, "eval_task": "ranking", "epochs": 1}
    assert main(command(data_path, tmp_path / "packaged", "MetaMMCDR", 1, **options)) == 0
    (trial,) = rows(tmp_path / "packaged", "MetaMMCDR")
    assert list(trial)[3:] == ["history", "item_features", "row_rank"]
    for name, line in (("CMF", "reg_weight uniform 0,1"), ("CMF.ranking", "epochs choice [1, 2]")):
        write_lines(tmp_path / "ranges" / f"{name}.hyper", line)
    options["params_dir"] = tmp_path / "ranges"
    for task, key in (("ranking", "epochs"), ("rating", "reg_weight")):
        given = {**options, "eval_task": task}
        if key == "epochs":
            del given["epochs"]
        assert main(command(data_path, tmp_path / task, "CMF", 1, **given)) == 0
        assert list(rows(tmp_path / task, "CMF")[0])[3:] == [key]


def test_folder_of_ranges_and_recboles_models(data_path: Path, tmp_path: Path) -> None:
    for model in ("FM", "ItemMean"):
        key = {"FM": "embedding_size choice [4, 8]", "ItemMean": "item_shrinkage uniform 0,9"}
        write_lines(tmp_path / "ranges" / f"{model}.hyper", key[model])
    options = {"params_dir": tmp_path / "ranges", "epochs": 2}
    start = write_lines(tmp_path / "start.yaml", "embedding_size: 4")
    assert main(command(data_path, tmp_path / "out", "ItemMean", 2, **options)) == 0
    options["config_files"] = start
    assert main(command(data_path, tmp_path / "out", "FM", 2, **options)) == 0
    assert not Path("saved").exists()
    expected = validate(data_path, "FM", embedding_size=4, epochs=2)
    assert summary_of(tmp_path / "out", "FM")["default_value"] == expected


@pytest.mark.slow
def test_bad_trial_is_stopped_early(data_path: Path, tmp_path: Path) -> None:
    """Where nothing is learned, the training ends after the warm-up."""
    good = ", ".join(str(0.03 + i / 1000) for i in range(5))
    hyper = write_lines(tmp_path / "my.hyper", f"learning_rate choice [{good}, 1e-9, 2e-9, 3e-9]")
    start = write_lines(tmp_path / "start.yaml", "learning_rate: 0.03")
    options = {**TINY, "epochs": 8, "params_file": hyper, "config_files": start}
    assert main(command(data_path, tmp_path / "out", "TargetMF", 9, **options)) == 0
    trials = rows(tmp_path / "out", "TargetMF")
    pruned = [row for row in trials if row["state"] == "pruned"]
    bad = [row for row in pruned if float(row["learning_rate"]) < 1e-8]
    assert bad
    assert summary_of(tmp_path / "out", "TargetMF")["pruned"] == len(pruned)

    def n_epochs(row: dict[str, str]) -> int:
        log = tmp_path / "out" / "logs" / f"TargetMF.{row['trial']}.log"
        return len(re.findall(r"epoch \d+\S* evaluating", log.read_text(encoding="utf-8")))

    assert {n_epochs(row) for row in bad} == {WARM_UP + 1}
    assert {n_epochs(row) for row in trials if row not in pruned} == {8}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_command_goes_on(data_path: Path, tmp_path: Path, processes: int) -> None:
    if processes > usable_cores():
        pytest.skip("needs two cores")
    options = {"epochs": 4, "processes": processes}
    arguments = command(data_path, tmp_path / "killed", "TargetMF", 6, **options)
    lost = kill_during_trial(3, arguments, tmp_path / "killed" / "logs")
    assert psutil.wait_procs(lost, timeout=10)[1] == []  # its workers have ended with it
    assert not (tmp_path / "killed" / "TargetMF.json").exists()
    assert main(arguments) == 0
    summary = summary_of(tmp_path / "killed", "TargetMF")
    assert summary["completed"] + summary["pruned"] + summary["failed"] == summary["trials"] == 6
    trials = rows(tmp_path / "killed", "TargetMF")
    ended = [row for row in trials if row["state"] != "interrupted"]
    interrupted = [row for row in trials if row["state"] == "interrupted"]
    assert len(ended) == 6
    assert 1 <= len(interrupted) <= processes
    assert all(values_of(row) in map(values_of, ended) for row in interrupted)
    if processes == 1:  # more of them end in another order each time
        assert main(command(data_path, tmp_path / "whole", "TargetMF", 6, **options)) == 0
        whole = rows(tmp_path / "whole", "TargetMF")
        for row in [*ended, *whole]:
            del row["trial"]
        assert ended == whole


def kill_during_trial(number: int, arguments: list[str], logs: Path) -> list[psutil.Process]:
    """Run the command, kill it while a trial is under way, and give what it had started."""
    process = psutil.Popen([sys.executable, "-m", "recbole_cdr_mm.tune", *arguments])
    while not list(logs.glob(f"TargetMF.{number}.log")):
        assert process.poll() is None
        time.sleep(0.05)
    children = process.children(recursive=True)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert children
    return children


def values_of(row: dict[str, str]) -> list[str]:
    """The values of a trial, whatever its number and what became of it."""
    return [value for key, value in row.items() if key not in ("trial", "state", "value")]


class TestRefused:
    """Each with exit code 2 and one error, before the first trial."""

    @pytest.fixture
    def refuse(self, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
        def refused(text: str, models: str = "BiasTransfer", **values: Any) -> None:
            assert main(command(data_path, tmp_path / "out", models, 2, **values)) == 2
            error = capsys.readouterr().err
            assert error.startswith("ConfigError: ")
            assert error.count("\n") == 1
            assert text in error
            assert not list(tmp_path.glob("out/logs/*"))

        return refused

    @pytest.mark.parametrize(
        ("text", "values"),
        [
            ("There is no model `BiasTransfr`", {"models": "BiasTransfr", "params_file": "a"}),
            ("which would say what to tune of GlobalMean. Give --", {"models": "GlobalMean"}),
            ("Packaged are those of BiasTransfer, CMF", {"models": "NeuMF"}),
            ("There is no none/BiasTransfer.hyper", {"params_dir": "none"}),
            ("no_such.hyper: No such file", {"params_file": "no_such.hyper"}),
            ("--params_file is of one model", {"models": "CMF,EMCDR", "params_file": "a"}),
            ("`--model` is of a single run. Give --models.", {"model": "CMF"}),
            ("`--resume` is of a single run. The same command goes on", {"resume": True}),
            ("`--result_json` is of a single run.", {"result_json": "a.json"}),
            ("--split_seeds and --split_seed say the same", {"split_seeds": "1", "split_seed": 2}),
            ("unknown key `item_shrinkge`. Did you mean", {"item_shrinkge": 2}),
            ("`user_shrinkage` is tuned, and --user_shrinkage sets it", {"user_shrinkage": 2}),
            ("`nowhere` is no pair", {"dataset": "nowhere"}),
            ("CMF.hyper, line 5: `reg_weight` is tuned", {"models": "CMF", "reg_weight": 0}),
            ("has no key `dropout_prob`", {"params_file": "own.hyper"}),
        ],
    )
    def test_arguments(self, refuse: Any, text: str, values: dict[str, Any]) -> None:
        write_lines(Path("own.hyper"), "dropout_prob uniform 0,0.5")
        write_lines(Path("a"), "item_shrinkage uniform 0,9")
        refuse(text, **values)

    def test_values_that_do_not_go_together(self, refuse: Any) -> None:
        write_lines(Path("own.hyper"), "loss_type choice ['MSE', 'BPR']")
        text = "own.hyper, line 1: `loss_type: BPR`: `loss_type: BPR` orders items"
        refuse(text, "TargetMF", params_file="own.hyper")

    def test_more_processes_than_cores(self, refuse: Any) -> None:
        refuse("would slow each other down", processes=10_000)

    def test_two_at_once(self, tmp_path: Path, refuse: Any) -> None:
        with locked(tmp_path / "out" / "BiasTransfer.study.db", "--out"):
            refuse("BiasTransfer.study.db: another process is at work on it")

    @pytest.mark.parametrize("values", [{"trials": "none"}, {"trials": 0}, {"split_seeds": "a"}])
    def test_usage(self, data_path: Path, tmp_path: Path, values: dict[str, Any]) -> None:
        with pytest.raises(SystemExit) as end:
            main([*command(data_path, tmp_path, "BiasTransfer", 2, **values)])
        assert end.value.code == 2


def test_another_command_on_the_same_folder(
    data_path: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data_path, tuned, "BiasTransfer", 6, seed=1)) == 2
    error = capsys.readouterr().err
    assert "BiasTransfer.study.db: is of a search with other values of seed (2020 there, 1" in error
    assert main(command(data_path, tuned, "BiasTransfer", 5)) == 2
    assert "has had 6 trials already" in capsys.readouterr().err


def test_missing_data_is_said_once(
    tmp_path: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And once it is there, the same command goes on."""
    data = write_world(tiny_pair(), tmp_path / "data")
    (inter,) = data.glob("*/*_movie.inter")
    away = inter.rename(tmp_path / "away")
    arguments = command(data, tmp_path / "out", "ItemMean", 2)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("DataFormatError: there is no ")
    away.rename(inter)
    assert main(arguments) == 0
    assert summary_of(tmp_path / "out", "ItemMean")["completed"] == 2
