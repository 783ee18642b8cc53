"""The search of one model's values: Optuna asks, workers train, and a file remembers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError

from recbole_cdr_mm.errors import ConfigError
from recbole_cdr_mm.parallel.tasks import Outcome, Pool, Task
from recbole_cdr_mm.tune.ranges import Range
from recbole_cdr_mm.tune.trial import Run, train_trial

# Attributes of trials.
_REASON, _SECONDS, _WANTED = "reason", "seconds", "wanted"
_IDENTITY = "identity"  # of studies


@dataclass(frozen=True)
class Search:
    """What is searched, and for how long.

    Attributes:
        run: What all trials have in common.
        ranges: What is tuned, by key.
        start: The tuned keys' values without tuning, which are tried first.
        n_trials: Trials that shall end: completed, pruned or failed.
        seed: Draws the values.
        identity: All that decides what a trial's value means, by name. A study goes on only where
            it is the same.
    """

    run: Run
    ranges: Mapping[str, Range]
    start: Mapping[str, Any]
    n_trials: int
    seed: int
    identity: Mapping[str, Any]

    @property
    def start_parameters(self) -> dict[str, Any] | None:
        """Optuna's parameters of the start; None where a value lies outside of its range."""
        parameters = {key: found.parameter(self.start[key]) for key, found in self.ranges.items()}
        return None if None in parameters.values() else parameters

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """The values of the tuned keys in a trial."""
        return {key: found.value(trial.params[key]) for key, found in self.ranges.items()}


@contextmanager
def open_study(path: Path, search: Search) -> Iterator[optuna.Study]:
    """Open the file that remembers the trials of a search, or begin it.

    It is an SQLite file, whose transactions are whole or undone when the process is killed; in
    Optuna's journal file a line that was cut short spoils all that follows.

    Args:
        path: The file, in a folder that is there.
        search: What it shall be the study of.

    Yields:
        The study.

    Raises:
        ConfigError: If the file is damaged, or remembers trials of another search, or more trials
            than this one may have.
    """
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    except (DatabaseError, RuntimeError) as error:  # no database; of a release unlike this one
        raise ConfigError(
            f"{path}: cannot be read as a study of Optuna. Remove it to begin anew."
        ) from error
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=search.run.model,
            direction="maximize" if search.run.bigger_is_better else "minimize",
            # What a trial has to beat is the median of the completed ones at the same step.
            pruner=optuna.pruners.MedianPruner(n_min_trials=3),
            load_if_exists=True,
        )
        _check_identity(path, study, search)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_identity(path: Path, study: optuna.Study, search: Search) -> None:
    wanted = json.loads(json.dumps(search.identity, default=str))
    stored = study.user_attrs.get(_IDENTITY)
    if stored is None:
        study.set_user_attr(_IDENTITY, wanted)
    elif stored != wanted:
        differing = [
            f"{key} ({stored.get(key)} there, {wanted.get(key)} here)"
            for key in sorted({*stored, *wanted})
            if stored.get(key) != wanted.get(key)
        ]
        raise ConfigError(
            f"{path}: is of a search with other values of {', '.join(differing)}. Give the same to"
            " go on with it, or choose another folder with --out."
        )
    done = len(ended_trials(study))
    if done > search.n_trials:
        raise ConfigError(
            f"{path}: {search.run.model} has had {done} trials already. Give --trials={done} or"
            " more, or choose another folder with --out."
        )


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial came to no end of its own, so that it does not count."""
    return trial.state == TrialState.FAIL and _REASON not in trial.user_attrs


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: completed, pruned, and failed for a reason of their own."""
    return [t for t in study.trials if t.state.is_finished() and not is_interrupted(t)]


def reason_of(trial: FrozenTrial) -> str:
    """Why a trial failed."""
    return str(trial.user_attrs[_REASON])


def seconds_of(trial: FrozenTrial) -> float:
    """Wall time of an ended trial's trainings."""
    return float(trial.user_attrs[_SECONDS])


def go_on(search: Search, study: optuna.Study, pool: Pool, logs: Path) -> Iterator[FrozenTrial]:
    """Run the trials that are left.

    The values of a trial depend on the seed, on how many came before it and on what became of
    them; so with one worker a search that was killed goes on as if it had not been.

    Args:
        search: What is searched.
        study: What has been tried.
        pool: Trains.
        logs: Folder of the trials' output.

    Yields:
        Trials that count, as they end.

    Raises:
        ConfigError: If the values to start from cannot be trained with. No other ones would do
            better, as a rule: a file is missing, or a key is set wrongly.
    """
    running: dict[str, optuna.Trial] = {}

    def tasks() -> Iterator[Task]:
        while (number := len(ended_trials(study)) + len(running)) < search.n_trials:
            seed = np.random.SeedSequence((search.seed, number)).generate_state(1)[0]
            study.sampler = optuna.samplers.TPESampler(seed=int(seed))
            trial = study.ask({key: r.distribution for key, r in search.ranges.items()})
            name = f"{search.run.model}.{trial.number}"
            running[name] = trial
            values = {key: r.value(trial.params[key]) for key, r in search.ranges.items()}
            arguments = {"run": search.run, "values": values}
            yield Task(name, train_trial, arguments, logs / f"{name}.log")

    def is_hopeless(task: Task, progress: tuple[int, float]) -> bool:
        trial = running[task.name]
        step, value = progress
        trial.report(value, step)
        return trial.params != search.start_parameters and trial.should_prune()

    _put_back(search, study)
    with closing(pool.run(tasks(), is_hopeless)) as outcomes:
        for outcome in outcomes:
            yield _tell(search, study, running.pop(outcome.task.name), outcome)


def _put_back(search: Search, study: optuna.Study) -> None:
    """Queue the values to start from, and those that were under way when a process was killed."""
    lost = study.get_trials(states=(TrialState.RUNNING,))
    kept = study.get_trials(states=(TrialState.WAITING,)) + ended_trials(study)
    known = [_wanted(trial) for trial in kept]
    for parameters in [search.start_parameters or {}, *map(_wanted, lost)]:
        # One that was lost while its values were drawn has not all of them: they are drawn again.
        if parameters.keys() == search.ranges.keys() and parameters not in known:
            study.enqueue_trial(parameters, user_attrs={_WANTED: parameters})
            known.append(parameters)
    for trial in lost:  # last, so that another kill finds them once more
        study.tell(trial.number, state=TrialState.FAIL)


def _wanted(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial, also where it has not begun."""
    wanted: dict[str, Any] = trial.user_attrs.get(_WANTED, trial.params)
    return wanted


def _tell(
    search: Search, study: optuna.Study, trial: optuna.Trial, outcome: Outcome
) -> FrozenTrial:
    """Tell the study what became of a trial."""
    trial.set_user_attr(_SECONDS, round(outcome.seconds, 3))
    if outcome.error is None and outcome.value is not None:
        return study.tell(trial, outcome.value)
    if outcome.error is None:
        return study.tell(trial, state=TrialState.PRUNED)
    if trial.params == search.start_parameters:
        study.tell(trial, state=TrialState.FAIL)  # without a reason: it will be tried again
        raise ConfigError(
            f"{search.run.model} with the values to start from: {outcome.error} See"
            f" {outcome.task.log}."
        )
    trial.set_user_attr(_REASON, str(outcome.error))
    return study.tell(trial, state=TrialState.FAIL)
