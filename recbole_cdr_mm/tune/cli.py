"""The command line of the search."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna

import recbole_cdr_mm
from dataset_tools.commands import name_list, print_table
from dataset_tools.safe_output import locked
from recbole_cdr_mm import compat
from recbole_cdr_mm.errors import ConfigError, exit_code_of
from recbole_cdr_mm.given import parse_command_line
from recbole_cdr_mm.packaged import PROPERTIES
from recbole_cdr_mm.parallel.local import LocalPool
from recbole_cdr_mm.parallel.ray_pool import RayPool
from recbole_cdr_mm.parallel.tasks import Pool
from recbole_cdr_mm.tune.ranges import Choice, check_ranges, read_ranges
from recbole_cdr_mm.tune.report import (
    budget_text,
    summarise,
    table_rows,
    trial_text,
    write_outputs,
)
from recbole_cdr_mm.tune.search import Search, ended_trials, go_on, open_study
from recbole_cdr_mm.tune.trial import Run

PACKAGED = PROPERTIES / "tune"

_NOT_HERE = {  # keys of a single run
    "model": "Give --models",
    "resume": "The same command goes on by itself; leave it out",
    "result_json": "Trials do not measure the test users; leave it out",
    "save_predictions": "Trials do not measure the test users; leave it out",
    "checkpoint_dir": "Trials keep no checkpoints; leave it out",
    "worker": "Trials run in processes that can have no others; leave it out",
}


def tune(
    models: Sequence[str],
    dataset: str,
    n_trials: int,
    out: Path,
    pool: Pool,
    *,
    params_file: Path | None = None,
    params_dir: Path | None = None,
    split_seeds: Sequence[int] = (),
    config_files: Sequence[str] = (),
    command_line: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Search each model's values on the validation users of a pair, with the same budget.

    What is there of an earlier call with the same arguments is gone on with. The test users are not
    read.

    Args:
        models: Names of models, ours or RecBole's.
        dataset: Name of the pair.
        n_trials: Trials of each model, those that are pruned or fail among them.
        out: Folder of the outputs (see `write_outputs`), of the studies and of the trials' output.
        pool: Trains.
        params_file: Range file, of one model.
        params_dir: Folder of range files `<model>.hyper`, or `<model>.<eval_task>.hyper` for one
            task; by default the packaged ones.
        split_seeds: Splits on which each trial is trained; by default the one of `split_seed`.
        config_files: YAML files. A tuned key among them is where its search starts.
        command_line: `--key=value` arguments; no tuned keys.

    Returns:
        A summary of each model; see `summarise`.

    Raises:
        UserError: For whatever the user can put right.
    """
    searches = [
        _plan(
            model,
            dataset,
            n_trials,
            partial(_range_file, model, models, params_file, params_dir),
            split_seeds,
            config_files,
            command_line,
        )
        for model in models
    ]
    return [_search(search, out, pool) for search in searches]


def _range_file(
    model: str,
    models: Sequence[str],
    params_file: Path | None,
    params_dir: Path | None,
    eval_task: str,
) -> Path:
    if params_file:
        if len(models) > 1 or params_dir:
            raise ConfigError(
                "--params_file is of one model. Give --models=NAME, or --params_dir=DIR alone, with"
                " a file <model>.hyper for each model."
            )
        return params_file
    folder = params_dir or PACKAGED
    of_task, path = folder / f"{model}.{eval_task}.hyper", folder / f"{model}.hyper"
    if of_task.exists():
        return of_task
    if not path.exists():
        packaged = ", ".join(sorted({file.name.split(".")[0] for file in PACKAGED.glob("*.hyper")}))
        raise ConfigError(
            f"There is no {path}, which would say what to tune of {model}. Give --params_file=FILE."
            f" Packaged are those of {packaged}."
        )
    return path


def _plan(
    model: str,
    dataset: str,
    n_trials: int,
    range_file: Callable[[str], Path],
    split_seeds: Sequence[int],
    config_files: Sequence[str],
    command_line: Sequence[str],
) -> Search:
    """Check everything that can be checked before the first trial."""
    compat.apply()
    # RecBole's modules can be imported only now.
    from recbole_cdr_mm.config import MMConfig
    from recbole_cdr_mm.identity import Identity
    from recbole_cdr_mm.register import register

    register()
    given = parse_command_line(command_line)
    for key, remedy in _NOT_HERE.items():
        if key in given:
            raise ConfigError(f"`--{key}` is of a single run. {remedy}.")
    if split_seeds and "split_seed" in given:
        raise ConfigError("--split_seeds and --split_seed say the same. Leave one of them out.")
    config = MMConfig(model, dataset, config_files, command_line=command_line)
    ranges = read_ranges(range_file(config["eval_task"]))
    check_ranges(model, ranges.values(), config.keys, given)
    for found in ranges.values():
        for value in found.ends if isinstance(found, Choice) else ():
            try:
                MMConfig(model, dataset, config_files, {found.key: value}, command_line)
            except ConfigError as error:  # it does not go with another key's value
                raise ConfigError(f"{found.origin}: `{found.key}: {value}`: {error}") from error
    run = Run(
        config.model,
        dataset,
        tuple(config_files),
        tuple(command_line),
        tuple(split_seeds) or (config["split_seed"],),
        config["eval_task"],
        config["valid_metric"],
        bool(config["valid_metric_bigger"]),
        saved=not config.is_ours,
    )
    resolved = Identity().of(config)
    identity = {
        **resolved.values,
        "data and code": resolved.state,
        "ranges": {key: found.text for key, found in ranges.items()},
        "split_seeds": run.split_seeds,
    }
    start = {key: config[key] for key in ranges}
    return Search(run, ranges, start, n_trials, config["seed"], identity)


def _search(search: Search, out: Path, pool: Pool) -> dict[str, Any]:
    """Run what is left of one search, and write what it found."""
    model, path = search.run.model, out / f"{search.run.model}.study.db"
    with locked(path, "--out"), open_study(path, search) as study:
        done = len(ended_trials(study))
        print(
            f"{model} on {search.run.dataset}: {search.n_trials} trials, {done} of them done."
            f" {search.run.metric} of the validation users of split_seed"
            f" {', '.join(map(str, search.run.split_seeds))}"
        )
        if search.start_parameters is None:
            outside = [
                f"{key} ({search.start[key]})"
                for key, found in search.ranges.items()
                if found.parameter(search.start[key]) is None
            ]
            print(f"The values without tuning are not tried: {', '.join(outside)} out of range.")
        for place, trial in enumerate(go_on(search, study, pool, out / "logs"), start=done + 1):
            print(trial_text(search, trial, place), flush=True)
        summary = summarise(search, study)
        write_outputs(out, search, study, summary)
        print(f"{model}: {budget_text(summary)}\n")
    return summary


# The command


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: `--models=A,B --dataset=NAME --trials=N --out=DIR` and any key of a run.

    Args:
        argv: The arguments; sys.argv's where None.

    Returns:
        The exit code: 0 done, 2 the user's mistake, 130 interrupted.
    """
    named, others = _parser().parse_known_args(sys.argv[1:] if argv is None else argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def command() -> None:
        with _pool(named.processes, named.ray_address, others) as pool:
            summaries = tune(
                named.models,
                named.dataset,
                named.trials,
                named.out,
                pool,
                params_file=named.params_file,
                params_dir=named.params_dir,
                split_seeds=named.split_seeds,
                config_files=named.config_files.split(),
                command_line=others,
            )
        print_table(table_rows(summaries, named.out))

    return exit_code_of(command, "Interrupted. The same command goes on.")


@contextmanager
def _pool(
    processes: int | None, ray_address: str | None, command_line: Sequence[str]
) -> Iterator[Pool]:
    if ray_address is None:
        yield LocalPool(processes or 1)
    else:
        use_gpu = parse_command_line(command_line).get("use_gpu")
        wanted = use_gpu is None or use_gpu.value is not False
        with RayPool(ray_address, processes, use_gpu=wanted) as pool:
            yield pool


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recbole_cdr_mm.tune",
        description=(
            "Search hyperparameters on the validation users of a pair: as many trials for each"
            " model, the first with the values that it has without tuning. The same command goes on"
            " with a search that was killed. The test users are not read."
        ),
        epilog=(
            "Every other key of properties/ and of RecBole is given as --key=value and holds for"
            " all trials. Example: python -m recbole_cdr_mm.tune --models=BiasTransfer,MetaMMCDR"
            " --dataset=movie_cd --data_path=dataset --trials=20 --out=tuned --processes=2"
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--models", type=name_list, required=True, help="models, separated by commas"
    )
    parser.add_argument("--dataset", required=True, help="a pair")
    parser.add_argument("--trials", type=_count, required=True, help="trials of each model")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the best values and of all trials"
    )
    parser.add_argument(
        "--params_file", type=Path, help="range file of one model, as RecBole's hyper_test has it"
    )
    parser.add_argument(
        "--params_dir",
        type=Path,
        help="folder of range files MODEL.hyper, or MODEL.ranking.hyper for rankings alone;"
        " default: packaged ones",
    )
    parser.add_argument(
        "--split_seeds",
        type=_numbers,
        default=(),
        help="splits on which each trial is trained, separated by commas; the mean counts, and a"
        " trial costs as many trainings. Default: that of split_seed",
    )
    parser.add_argument(
        "--processes", type=_count, help="trials at a time; default: 1, on Ray one for each CPU"
    )
    parser.add_argument(
        "--ray_address", help="train on a Ray cluster: auto, HOST:PORT, or local to start one here"
    )
    parser.add_argument(
        "--config_files", default="", help="YAML files, separated by blanks; later ones win"
    )
    parser.add_argument("--version", action="version", version=recbole_cdr_mm.__version__)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
