"""A whole run at full size, part by part: loading, each stage, evaluation, and peak memory.

    python -m dataset_tools synthetic --dataset=movie_cd --task=movie_cd --data_path=DIR
    python benchmarks/full_task.py --dataset=movie_cd --data_path=DIR

Loading is timed in processes of their own: the plain way, RecBole's own data sets of both domains;
and the split pair, without anything kept of the files and with it. The bound is what memory allows:
each byte of the ratings' files is read once at the bandwidth of copying half a gigabyte, measured
in the same run. Stages and evaluation have their plain ways and bounds in source_stage.py and
bridge_stage.py. Then the run itself. Any other key is given as --key=value.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

START = perf_counter()

from measuring import bandwidth, peak_gb  # noqa: E402

from recbole_cdr_mm import compat  # noqa: E402
from recbole_cdr_mm.errors import exit_code_of  # noqa: E402

compat.apply()

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset  # noqa: E402

from recbole_cdr_mm.config import MMConfig  # noqa: E402
from recbole_cdr_mm.data.dataset import PairDataset  # noqa: E402
from recbole_cdr_mm.register import register  # noqa: E402
from recbole_cdr_mm.run import assemble  # noqa: E402
from recbole_cdr_mm.trainer import build_trainer  # noqa: E402

QUIET = ["--show_progress=False", "--state=WARNING"]


def load(arguments: Sequence[str], *, by_recbole: bool) -> None:
    """Load a pair, and print seconds and GB."""
    register()
    imported = perf_counter()
    config = MMConfig(command_line=arguments)
    if by_recbole:
        for domain in _domains(config):
            load_by_recbole(domain, str(config.data_root))
    else:
        PairDataset(config).build()
    end = perf_counter()
    print(json.dumps([imported - START, end - imported, peak_gb()]))


def load_by_recbole(domain: str, data_path: str) -> None:
    """Load one domain's ratings as RecBole does for a model of its own."""
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"]}
    values = {"data_path": data_path, "load_col": columns, "state": "WARNING"}
    with patch.object(sys, "argv", sys.argv[:1]):  # RecBole's Config reads the command line
        create_dataset(Config("BPR", domain, config_dict=values))


def compare_loading(arguments: Sequence[str]) -> None:
    """Load in all ways and print a table."""
    ways = {"RecBole's own": "recbole", "the first time": "pair", "the second time": "pair"}
    config = MMConfig(command_line=arguments)
    files = [config.data_root / domain / f"{domain}.inter" for domain in _domains(config)]
    for file in files:  # once before, so that all ways find them in memory
        with file.open("rb") as stream, open(os.devnull, "wb") as nowhere:
            shutil.copyfileobj(stream, nowhere)
    measured: list[list[float]] = []
    for mode in ways.values():
        command = [sys.executable, __file__, f"--load={mode}", *arguments]
        read = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        measured.append(json.loads(read.stdout.splitlines()[-1]))
    bound = sum(file.stat().st_size for file in files) / bandwidth()
    print("| loading | s | imports, s | RecBole's / s | of the bound | peak GB |")
    print("| --- |" + " ---: |" * 5)
    for name, (imports, seconds, peak) in zip(ways, measured, strict=True):
        print(
            f"| {name} | {seconds:.1f} | {imports:.1f} | {measured[0][1] / seconds:.1f} |"
            f" {bound / seconds:.1%} | {peak:.1f} |",
            flush=True,
        )


def _domains(config: MMConfig) -> tuple[str, str]:
    """Names of source and target domain."""
    return config["source_dataset"], config["target_dataset"]


def run(arguments: Sequence[str], folder: Path) -> None:
    """Measure everything and print a table."""
    register()
    kept = [*arguments, f"--loading_cache={folder / 'cache'}"]
    compare_loading(kept)
    print("\n| part | s | epochs | examples/s | peak GB |\n| --- | ---: | ---: | ---: | ---: |")
    start = perf_counter()
    config = MMConfig(command_line=[*kept, f"--checkpoint_dir={folder}"])
    parts = assemble(config)
    _row("loading, features and model", perf_counter() - start)
    trainer = build_trainer(config, parts.model)
    fitted = perf_counter()
    trainer.fit(parts.train_data, parts.valid_data, show_progress=False)
    fitting = perf_counter() - fitted
    for report in trainer.reports:
        speed = f"{report.as_result()['examples_per_second']:,.0f}"
        _row(f"stage {report.name}", report.seconds, str(report.epochs), speed)
    _row("validation and checkpoints", fitting - sum(r.seconds for r in trainer.reports))
    tested = perf_counter()
    result = trainer.evaluate(parts.test_data)
    _row(f"test, {len(parts.pair.split.test):,} ratings", perf_counter() - tested)
    _row("all", perf_counter() - start)
    print("\nTest:", "  ".join(f"{name} {value:.4f}" for name, value in (result or {}).items()))


def _row(part: str, seconds: float, epochs: str = "", speed: str = "") -> None:
    print(f"| {part} | {seconds:.1f} | {epochs} | {speed} | {peak_gb():.1f} |", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--dataset", required=True, help="a pair of the size of a task")
    parser.add_argument("--data_path", required=True, help="the folder that holds it")
    parser.add_argument("--model", default="MetaMMCDR", help="MetaMMCDR")
    parser.add_argument("--load", choices=("pair", "recbole"), help=argparse.SUPPRESS)
    options, others = parser.parse_known_args()
    named = [f"--{key}={getattr(options, key)}" for key in ("model", "dataset", "data_path")]
    arguments = [*named, *QUIET, *others]

    def command() -> None:
        if options.load:
            load(arguments, by_recbole=options.load == "recbole")
            return
        with tempfile.TemporaryDirectory() as folder:
            run(arguments, Path(folder))

    return exit_code_of(command)


if __name__ == "__main__":
    sys.exit(main())
