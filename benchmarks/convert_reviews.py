"""Time `dataset_tools amazon` against reading and JSON-parsing the same file with orjson alone.

    python benchmarks/convert_reviews.py --folder=DIR [--rows=100000,1000000,10000000] [--gzip]

Files are made by make_reviews.py and stay in DIR (10 GB for ten million rows). Each measurement is
a process of its own; the two take turns, and the fastest of `--repeats` counts. The slope is the
cost of a further row between two sizes, which start-up does not touch.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from make_reviews import write_reviews

BASELINE = """
import gzip, sys
import orjson
open_ = gzip.open if sys.argv[1].endswith(".gz") else open
with open_(sys.argv[1], "rb") as file:
    for line in file:
        orjson.loads(line)
"""


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds on the clock, of all cores, and MB at most."""

    wall: float
    cpu: float
    peak: float


def measure(arguments: list[str]) -> Cost:
    """Run a process to its end."""
    start = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    wall = time.perf_counter() - start
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def best(costs: list[Cost]) -> Cost:
    """The fastest, with the largest peak."""
    fastest = min(costs, key=lambda cost: cost.wall)
    return Cost(fastest.wall, fastest.cpu, max(cost.peak for cost in costs))


def make(folder: Path, rows: int, packed: bool) -> Path:
    """The file of so many reviews, made where it is missing."""
    plain = folder / f"reviews_{rows}.json"
    if not plain.is_file():
        write_reviews(plain, rows)
    if not packed:
        return plain
    target = plain.with_suffix(".json.gz")
    if not target.is_file():
        with plain.open("rb") as source, gzip.open(target, "wb", compresslevel=6) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    return target


def main() -> None:
    """Measure all sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", default="100000,1000000,10000000")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--gzip", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print("| rows | MB | orjson s | convert s | ratio | rows/s | slope, us/row | CPU s | peak MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    before: tuple[int, float] | None = None
    for rows in map(int, options.rows.split(",")):
        file = make(options.folder, rows, options.gzip)
        command = ["-m", "dataset_tools", "amazon", f"--reviews={file}", "--dataset=books"]
        command.append(f"--data_path={options.folder / 'dataset'}")
        baseline, ours = [], []
        for _ in range(options.repeats):
            baseline.append(measure(["-c", BASELINE, str(file)]))
            ours.append(measure(command))
        parse, convert = best(baseline), best(ours)
        slope = "" if before is None else (convert.wall - before[1]) / (rows - before[0]) * 1e6
        before = rows, convert.wall
        print(
            f"| {rows:,} | {file.stat().st_size / 1e6:,.0f} | {parse.wall:.2f} | "
            f"{convert.wall:.2f} | {convert.wall / parse.wall:.2f} | {rows / convert.wall:,.0f} | "
            f"{slope if slope == '' else format(slope, '.2f')} | {convert.cpu:.1f} | "
            f"{convert.peak:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
