"""Compare columnar engines on four fields of a file of reviews: which one `dataset_tools` uses.

    pip install duckdb
    python benchmarks/engines.py reviews.json

Each engine reads into memory, in a process of its own; they take turns.
"""

from __future__ import annotations

import sys

from convert_reviews import best, measure

FIELDS = {"reviewerID": "String", "asin": "String", "overall": "Float64", "unixReviewTime": "Int64"}
ENGINES = {
    "orjson, line by line": "for line in open(path, 'rb'): orjson.loads(line)",
    "Polars, blocks of 8 MB": """
schema = {name: getattr(polars, kind) for name, kind in fields.items()}
frames, rest = [], b""
with open(path, "rb") as file:
    while data := file.read(8 << 20):
        end = data.rfind(b"\\n") + 1
        frames.append(polars.read_ndjson(rest + data[:end], schema=schema))
        rest = data[end:]
""",
    "Polars, scan_ndjson, streaming": """
schema = {name: getattr(polars, kind) for name, kind in fields.items()}
polars.scan_ndjson(path, schema=schema).collect(engine="streaming")
""",
    "DuckDB, read_json": """
kinds = {"String": "VARCHAR", "Float64": "DOUBLE", "Int64": "BIGINT"}
columns = ", ".join(f"{name}: '{kinds[kind]}'" for name, kind in fields.items())
duckdb.execute(
    f"CREATE TABLE r AS SELECT * FROM read_json('{path}', "
    f"format='newline_delimited', columns={{{columns}}})"
)
""",
}


def main(path: str, repeats: int = 3) -> None:
    """Measure all engines and print a table."""
    costs: dict[str, list] = {name: [] for name in ENGINES}
    for _ in range(repeats):
        for name, code in ENGINES.items():
            head = "import sys, orjson, polars, duckdb; path, fields = sys.argv[1], "
            costs[name].append(measure(["-c", f"{head}{FIELDS}\n{code}", path]))
    print("| engine | s | CPU s | peak MB |\n| --- | ---: | ---: | ---: |")
    for name, measured in costs.items():
        cost = best(measured)
        print(f"| {name} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.peak:,.0f} |")


if __name__ == "__main__":
    main(sys.argv[1])
