"""The command line of benchmarks: `python -m recbole_cdr_mm.benchmark COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recbole_cdr_mm import __version__, compat
from recbole_cdr_mm.errors import EXIT_CODE, ConfigError, exit_code_of

PROGRAM = "python -m recbole_cdr_mm.benchmark"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments; sys.argv's where None.

    Returns:
        The exit code: 0 done; 2 the user's mistake, or some runs failed; 130 interrupted.
    """
    parser = _parser()
    options, others = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    if others and options.command is not _run:
        parser.error(f"unknown arguments: {' '.join(others)}")

    def command() -> int:
        compat.apply()
        return int(options.command(options, others))

    return exit_code_of(command, "Interrupted. The same command goes on from here.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Many models on many data sets: run a plan, and report on what is there.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run what a plan asks for and is not done yet, then report",
        description=(
            "Run models x base models x data sets x ratios x seeds x presets. What is done is not"
            " run again; a killed benchmark goes on with the same command. Any other key of a run"
            " is given as --key=value for all of them, for example --data_path=dataset."
        ),
        allow_abbrev=False,
    )
    run.add_argument(
        "--plan",
        required=True,
        type=Path,
        help="a YAML file with keys of properties/benchmark.yaml",
    )
    run.add_argument("--out", required=True, type=Path, help="the benchmark's folder")
    run.add_argument(
        "--processes", type=int, default=1, help="runs at a time; the cores are divided (1)"
    )
    run.add_argument(
        "--dry_run",
        choices=("True", "False"),
        default="False",
        help="True: list the runs and whether each is done, and run none",
    )
    run.set_defaults(command=_run)

    report = commands.add_parser(
        "report", help="report on a benchmark's folder", description="Write OUT/report/ anew."
    )
    report.add_argument("--out", required=True, type=Path, help="the benchmark's folder")
    report.set_defaults(command=_report)

    table = commands.add_parser(
        "table",
        help="one table of some results on the same test rows",
        description="Compare results of run_recbole_mm.py that were measured on the same rows.",
    )
    table.add_argument("results", nargs="+", type=Path, help="files that --result_json wrote")
    table.set_defaults(command=_table)
    return parser


def _run(options: argparse.Namespace, others: Sequence[str]) -> int:
    from recbole_cdr_mm.benchmark.plan import read_plan
    from recbole_cdr_mm.benchmark.runner import is_done, run_plan
    from recbole_cdr_mm.given import parse_command_line
    from recbole_cdr_mm.parallel.local import LocalPool

    if options.processes < 1:
        raise ConfigError(f"`--processes={options.processes}` must be 1 or more.")
    pool = LocalPool(options.processes)
    config = {key: given.value for key, given in parse_command_line(others).items()}
    plan = read_plan(options.plan, config)
    if options.dry_run == "True":
        for run in plan.runs:
            print(f"{'done' if is_done(run, options.out) else 'to do':5}  {run.describe()}")
        return 0
    failed = run_plan(plan, options.out, pool)
    _report(options, others)
    if failed:
        print(
            f"{len(failed)} of {len(plan.runs)} runs failed; the report says why, and"
            f" {options.out / 'logs'} has their output. The same command tries them again.",
            file=sys.stderr,
        )
    return EXIT_CODE if failed else 0


def _report(options: argparse.Namespace, others: Sequence[str]) -> int:
    from recbole_cdr_mm.benchmark.report.terminal import in_ascii
    from recbole_cdr_mm.benchmark.report.write import write_report

    page = write_report(options.out)
    tables = page.with_name("main_tables.txt").read_text(encoding="utf-8")
    try:
        print(tables)
    except UnicodeEncodeError:  # an old terminal does not know the marks
        print(in_ascii(tables))
    print(page)
    return 0


def _table(options: argparse.Namespace, others: Sequence[str]) -> int:
    from recbole_cdr_mm.benchmark.table import print_table

    print_table(options.results)
    return 0
